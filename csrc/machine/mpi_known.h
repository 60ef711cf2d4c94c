/* mpi_known - MPI as this core sees it: mpi.h, or the binary interface that a family of MPIs promises to keep.
 *
 * A core of the package must run with an MPI that was not there when it was compiled.  Two families keep their binary
 * interface from version to version: MPICH with its derivatives (Intel MPI, MVAPICH, Cray MPICH; libmpi.so.12), and
 * Open MPI (libmpi.so.40).  This file declares the part of each that dsm calls, so compiling needs no mpi.h, and one
 * wheel holds a core for each.  The loader decides which library answers: by then mpi4py has loaded one of that name
 * (dsm/_mpi.py).
 *
 * A core for any other MPI is compiled by its own mpicc (MPICC), which defines neither macro and takes mpi.h.
 *
 * A function of MPI that is called for the first time must be declared below.  tests/unit/test_build.py compares
 * everything here with the mpi.h of the MPI that it runs with.
 */
#pragma once

#if !defined(DSM_FOR_MPICH) && !defined(DSM_FOR_OPEN_MPI)

#include <mpi.h>

#else

#include <stddef.h>

#define MPI_SUCCESS 0
#define MPI_UNDEFINED (-32766)
#define MPI_ANY_TAG (-1)

/* For memory of our own: as much as any version writes. */
#define MPI_MAX_ERROR_STRING 1024
#define MPI_MAX_LIBRARY_VERSION_STRING 8192

enum {
    MPI_THREAD_SINGLE,
    MPI_THREAD_FUNNELED,
    MPI_THREAD_SERIALIZED,
    MPI_THREAD_MULTIPLE,
};

#ifdef DSM_FOR_MPICH

typedef int MPI_Comm;
typedef int MPI_Datatype;
typedef int MPI_Errhandler;
typedef int MPI_Message;
typedef int MPI_Op;
typedef int MPI_Request;

typedef struct {
    int count_low, count_high_and_cancelled;
    int MPI_SOURCE, MPI_TAG, MPI_ERROR;
} MPI_Status;

#define MPI_COMM_NULL ((MPI_Comm)0x04000000)
#define MPI_COMM_SELF ((MPI_Comm)0x44000001)
#define MPI_COMM_WORLD ((MPI_Comm)0x44000000)
#define MPI_REQUEST_NULL ((MPI_Request)0x2c000000)
#define MPI_BYTE ((MPI_Datatype)0x4c00010d)
#define MPI_INT ((MPI_Datatype)0x4c000405)
#define MPI_UINT64_T ((MPI_Datatype)0x4c00083e)
#define MPI_MAX ((MPI_Op)0x58000001)
#define MPI_MIN ((MPI_Op)0x58000002)
#define MPI_ERRORS_RETURN ((MPI_Errhandler)0x54000001)
#define MPI_STATUS_IGNORE ((MPI_Status *)1)
#define MPI_COMM_NULL_COPY_FN ((MPI_Comm_copy_attr_function *)0)
#define MPI_ANY_SOURCE (-2)
#define MPI_ERR_IN_STATUS 17
#define MPI_ERR_PENDING 18

#else

typedef struct ompi_communicator_t *MPI_Comm;
typedef struct ompi_datatype_t *MPI_Datatype;
typedef struct ompi_errhandler_t *MPI_Errhandler;
typedef struct ompi_message_t *MPI_Message;
typedef struct ompi_op_t *MPI_Op;
typedef struct ompi_request_t *MPI_Request;

typedef struct {
    int MPI_SOURCE, MPI_TAG, MPI_ERROR;
    int cancelled;
    size_t count;
} MPI_Status;

/* Its handles are the addresses of objects in the library, whatever they hold. */
extern char ompi_mpi_comm_null, ompi_mpi_comm_self, ompi_mpi_comm_world, ompi_request_null;
extern char ompi_mpi_byte, ompi_mpi_int, ompi_mpi_uint64_t, ompi_mpi_op_max, ompi_mpi_op_min, ompi_mpi_errors_return;

#define MPI_COMM_NULL ((MPI_Comm)(void *)&ompi_mpi_comm_null)
#define MPI_COMM_SELF ((MPI_Comm)(void *)&ompi_mpi_comm_self)
#define MPI_COMM_WORLD ((MPI_Comm)(void *)&ompi_mpi_comm_world)
#define MPI_REQUEST_NULL ((MPI_Request)(void *)&ompi_request_null)
#define MPI_BYTE ((MPI_Datatype)(void *)&ompi_mpi_byte)
#define MPI_INT ((MPI_Datatype)(void *)&ompi_mpi_int)
#define MPI_UINT64_T ((MPI_Datatype)(void *)&ompi_mpi_uint64_t)
#define MPI_MAX ((MPI_Op)(void *)&ompi_mpi_op_max)
#define MPI_MIN ((MPI_Op)(void *)&ompi_mpi_op_min)
#define MPI_ERRORS_RETURN ((MPI_Errhandler)(void *)&ompi_mpi_errors_return)
#define MPI_STATUS_IGNORE ((MPI_Status *)0)
#define MPI_COMM_NULL_COPY_FN OMPI_C_MPI_COMM_NULL_COPY_FN
#define MPI_ANY_SOURCE (-1)
#define MPI_ERR_IN_STATUS 18
#define MPI_ERR_PENDING 19

int OMPI_C_MPI_COMM_NULL_COPY_FN(MPI_Comm comm, int key, void *extra, void *value, void *copy, int *flag);

#endif

/* functions: begin */
typedef int(MPI_Comm_copy_attr_function)(MPI_Comm comm, int key, void *extra, void *value, void *copy, int *flag);
typedef int(MPI_Comm_delete_attr_function)(MPI_Comm comm, int key, void *value, void *extra);

int MPI_Abort(MPI_Comm comm, int status);
int MPI_Allgather(const void *mine, int count, MPI_Datatype type, void *all, int each, MPI_Datatype to, MPI_Comm comm);
int MPI_Allreduce(const void *mine, void *all, int count, MPI_Datatype type, MPI_Op operation, MPI_Comm comm);
int MPI_Bcast(void *value, int count, MPI_Datatype type, int root, MPI_Comm comm);
int MPI_Comm_create_keyval(MPI_Comm_copy_attr_function *, MPI_Comm_delete_attr_function *, int *key, void *extra);
int MPI_Comm_dup(MPI_Comm comm, MPI_Comm *made);
int MPI_Comm_free(MPI_Comm *comm);
int MPI_Comm_free_keyval(int *key);
int MPI_Comm_idup(MPI_Comm comm, MPI_Comm *made, MPI_Request *request);
int MPI_Comm_rank(MPI_Comm comm, int *rank);
int MPI_Comm_set_attr(MPI_Comm comm, int key, void *value);
int MPI_Comm_set_errhandler(MPI_Comm comm, MPI_Errhandler handler);
int MPI_Comm_size(MPI_Comm comm, int *size);
int MPI_Comm_test_inter(MPI_Comm comm, int *flag);
int MPI_Error_class(int code, int *class);
int MPI_Error_string(int code, char *text, int *length);
int MPI_Finalized(int *flag);
int MPI_Get_count(const MPI_Status *status, MPI_Datatype type, int *count);
int MPI_Get_library_version(char *text, int *length);
int MPI_Ibarrier(MPI_Comm comm, MPI_Request *request);
int MPI_Improbe(int source, int tag, MPI_Comm comm, int *flag, MPI_Message *message, MPI_Status *status);
int MPI_Imrecv(void *to, int count, MPI_Datatype type, MPI_Message *message, MPI_Request *request);
int MPI_Initialized(int *flag);
int MPI_Irecv(void *to, int count, MPI_Datatype type, int source, int tag, MPI_Comm comm, MPI_Request *request);
int MPI_Isend(const void *from, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm, MPI_Request *request);
int MPI_Query_thread(int *level);
int MPI_Test(MPI_Request *request, int *flag, MPI_Status *status);
int MPI_Testall(int count, MPI_Request requests[], int *flag, MPI_Status statuses[]);
int MPI_Testsome(int count, MPI_Request requests[], int *done, int indices[], MPI_Status statuses[]);
/* functions: end */

#endif
