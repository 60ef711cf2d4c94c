/* end - how dsm ends in this process: by dsm.finalize(), at the end of the program, or in MPI_Finalize.
 *
 * dsm ends when no rank needs it any more: some ranks may be at the end of their programs, where one refusal keeps dsm
 * active for what the interpreter still runs, while others have called dsm.finalize() or MPI_Finalize.
 */
#pragma once

/* End with all other ranks, if that has not been done; again where one of them was at the end of its program only.
 * MPI calls it in MPI_Finalize. */
void end_with_mpi(void);
