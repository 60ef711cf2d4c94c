/* Damages one message of a running job on its way into MPI: a library for LD_PRELOAD that stands before MPI_Isend, which is
 * what the profiling interface of MPI is for (MPI 4.1, 15.2), so that the runtime needs no door for it.
 *
 *   DSM_TEST_DAMAGE_RANK    the rank that sends it
 *   DSM_TEST_DAMAGE_KIND    its kind, a number of enum message_kind
 *   DSM_TEST_DAMAGE_HOW     short: the last byte of the body is missing, and the header agrees
 *                      length: the header tells of one byte more;  magic, sender, kind: that field is wrong
 *                      stamp: the clock is near its end;  stub: ten bytes of it;  empty: nothing of it
 *   DSM_TEST_DAMAGE_AFTER   messages of the kind that go through before it
 */
#include <mpi.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/base/message.h"

static atomic_long seen;

static int change(unsigned char *copy, int count, const char *how)
{
    struct message_header header;
    memcpy(&header, copy, sizeof header);
    if (strcmp(how, "stub") == 0)
        return 10;
    if (strcmp(how, "empty") == 0)
        return 0;
    if (strcmp(how, "short") == 0)
        header.bytes = (uint64_t)--count;
    else if (strcmp(how, "length") == 0)
        header.bytes++;
    else if (strcmp(how, "magic") == 0)
        header.magic ^= 1;
    else if (strcmp(how, "sender") == 0)
        header.sender++;
    else if (strcmp(how, "kind") == 0)
        header.kind = MESSAGE_KINDS;
    else if (strcmp(how, "stamp") == 0)
        header.stamp = UINT64_MAX;
    else
        abort();
    memcpy(copy, &header, sizeof header);
    return count;
}

int MPI_Isend(const void *buffer, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm, MPI_Request *request)
{
    const char *rank = getenv("DSM_TEST_DAMAGE_RANK"), *kind = getenv("DSM_TEST_DAMAGE_KIND"),
               *how = getenv("DSM_TEST_DAMAGE_HOW");
    const char *after = getenv("DSM_TEST_DAMAGE_AFTER");
    struct message_header header = {0};
    if (type == MPI_BYTE && count >= (int)sizeof header)
        memcpy(&header, buffer, sizeof header);
    bool ours = rank && kind && how && header.magic == MESSAGE_MAGIC && header.sender == (uint32_t)atoi(rank) &&
                header.kind == atoi(kind);
    if (!ours || atomic_fetch_add(&seen, 1) != (after ? atol(after) : 0))
        return PMPI_Isend(buffer, count, type, to, tag, comm, request);
    unsigned char *copy = malloc((size_t)count); /* never freed: MPI may read it until the job has ended */
    if (!copy)
        abort();
    memcpy(copy, buffer, (size_t)count);
    return PMPI_Isend(copy, change(copy, count, how), type, to, tag, comm, request);
}
