/* Why the program's pipes are waited for: MPICH's launcher ends when it learns of MPI_Abort, and drops what it has
 * not read from a rank's pipe.  It passes on what it has read before the news of the abort. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "mpi_process.h"

#include "mpi_known.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Not for ever: the reader may be gone. */
static void wait_until_read(int file)
{
    enum { READ_MS = 1000 };
    struct stat kind;
    int unread = 0;
    if (fstat(file, &kind) != 0 || !S_ISFIFO(kind.st_mode))
        return;
    for (int ms = 0; ms < READ_MS && ioctl(file, FIONREAD, &unread) == 0 && unread > 0; ms++)
        poll(NULL, 0, 1);
}

static void (*before_finalize)(void);

static int at_finalize(MPI_Comm comm, int key, void *attribute, void *unused)
{
    (void)comm;
    (void)attribute;
    (void)unused;
    MPI_Comm_free_keyval(&key);
    before_finalize();
    return MPI_SUCCESS;
}

/* MPI_Finalize deletes the attributes of MPI_COMM_SELF before anything else (MPI 4.0, 11.2.4). */
int mpi_process_before_finalize(void (*call)(void))
{
    int key;
    before_finalize = call;
    int code = MPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, at_finalize, &key, NULL);
    if (code == MPI_SUCCESS)
        code = MPI_Comm_set_attr(MPI_COMM_SELF, key, NULL);
    return code == MPI_SUCCESS ? 0 : -1;
}

bool mpi_process_world(int *rank, int *size)
{
    int initialized = 0, finalized = 0;
    return MPI_Initialized(&initialized) == MPI_SUCCESS && MPI_Finalized(&finalized) == MPI_SUCCESS && initialized &&
           !finalized && MPI_Comm_rank(MPI_COMM_WORLD, rank) == MPI_SUCCESS &&
           MPI_Comm_size(MPI_COMM_WORLD, size) == MPI_SUCCESS;
}

void mpi_process_abort(int status)
{
    int rank, size;
    wait_until_read(STDOUT_FILENO);
    wait_until_read(STDERR_FILENO);
    if (mpi_process_world(&rank, &size))
        MPI_Abort(MPI_COMM_WORLD, status);
    _exit(status ? status : 1);
}
