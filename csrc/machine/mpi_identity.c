/* mpi_identity.c - which MPI this core was compiled with, and which one it runs on.
 *
 * A process can hold two MPIs: mpi4py takes the library that it finds, and this core whichever was loaded first under
 * the file name that it asks for, or the one that its mpicc wrote into it.  No call fails then; handles of one library
 * are simply read by the other.  So the core says what it sees, with calls that every MPI allows before MPI_Init, and
 * the package compares that with what mpi4py sees before any handle crosses over.
 */
#include <string.h>

#include "dsm.h"
#include "mpi_known.h"

#define WORDS_OF(number) #number
#define WORDS(number) WORDS_OF(number)

/* Derived products (Intel MPI, MVAPICH, Cray) define MPICH's macros too, and share its handles and its library name. */
const char *dsm_mpi_header(void)
{
#if defined(DSM_FOR_OPEN_MPI) || defined(OPEN_MPI) || defined(OMPI_MAJOR_VERSION)
    return "Open MPI";
#elif defined(DSM_FOR_MPICH) || defined(MPICH_VERSION) || defined(MPICH_NAME)
    return "MPICH";
#elif defined(I_MPI_VERSION)
    return "Intel MPI";
#elif defined(MPI_ABI_VERSION)
    return "the MPI standard ABI";
#else
    return "MPI " WORDS(MPI_VERSION) "." WORDS(MPI_SUBVERSION);
#endif
}

int dsm_mpi_library(char *text, int capacity)
{
    char version[MPI_MAX_LIBRARY_VERSION_STRING];
    int length = 0;

    if (text == NULL || capacity < 1) {
        return DSM_E_ARGUMENT;
    }
    text[0] = '\0';
    if (MPI_Get_library_version(version, &length) != MPI_SUCCESS || length < 0) {
        return DSM_E_ENVIRONMENT;
    }
    if (length > capacity - 1) {
        length = capacity - 1;
    }
    memcpy(text, version, (size_t)length);
    text[length] = '\0';
    return DSM_OK;
}

int dsm_mpi_handle_bytes(void)
{
    return (int)sizeof(MPI_Comm);
}

bool dsm_mpi_initialized(void)
{
    int flag = 0;

    return MPI_Initialized(&flag) == MPI_SUCCESS && flag != 0;
}
