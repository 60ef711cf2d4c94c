/* Every rank computes the same from what all have gathered, so no rank has to be told. */
#include "runtime/nodes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "machine/share.h"
#include "runtime/death.h"
#include "runtime/error.h"
#include "runtime/print.h"

/* What a rank tells all others. */
struct told {
    struct share_card card;
    uint64_t arena;            /* its name */
    char why[NODES_WHY_BYTES]; /* it could not open what its node shares: "" or the reason */
};

static int lowest_rank_here(const struct runtime *runtime)
{
    int rank = 0;
    while (!doorbell_same_host(runtime->doorbell, rank))
        rank++;
    return rank;
}

/* Number the nodes in the order of their first ranks.  `single`: each rank of this host is a node, by its lowest
 * rank. */
static void divide(struct runtime *runtime, const bool *single)
{
    struct nodes *nodes = &runtime->nodes;
    const int *hosts = nodes->hosts;
    int limit = runtime->options.node && runtime->options.node < SPACES_MAX ? runtime->options.node : SPACES_MAX;
    nodes->count = 0;
    for (int rank = 0; rank < runtime->size; rank++) {
        int here = 0, before = 0, last = -1; /* ranks of its host, those before it, and the last of these */
        for (int peer = 0; peer < runtime->size; peer++)
            if (hosts[peer] == hosts[rank]) {
                here++;
                before += peer < rank;
                last = peer < rank ? peer : last;
            }
        int most = single[hosts[rank]] ? 1 : limit, groups = (here + most - 1) / most;
        bool begins = last < 0 || before * groups / here != (before - 1) * groups / here;
        if (begins)
            nodes->first[nodes->count] = nodes->to[nodes->count] = rank;
        nodes->of[rank] = begins ? (int)nodes->count++ : nodes->of[last];
    }
    nodes->space = nodes_space(runtime, runtime->rank);
    nodes->spaces = 0;
    for (int peer = 0; peer < runtime->size; peer++)
        nodes->spaces += nodes->of[peer] == nodes->of[runtime->rank];
}

int nodes_choose(struct runtime *runtime)
{
    size_t size = (size_t)runtime->size;
    struct nodes *nodes = &runtime->nodes;
    int lowest = lowest_rank_here(runtime);
    nodes->of = calloc(size, sizeof *nodes->of);
    nodes->first = calloc(size, sizeof *nodes->first);
    nodes->to = calloc(size, sizeof *nodes->to);
    nodes->hosts = calloc(size, sizeof *nodes->hosts);
    bool *single = calloc(size, sizeof *single);
    bool made = nodes->of && nodes->first && nodes->to && nodes->hosts && single;
    made = transport_agree_min(runtime->transport, made) == 1; /* by all ranks, or none goes on */
    if (made) {
        transport_gather(runtime->transport, &lowest, (int)sizeof lowest, nodes->hosts);
        divide(runtime, single);
    }
    free(single);
    return made ? 0 : -1;
}

int nodes_first(const struct runtime *runtime, node_id node)
{
    return runtime->nodes.first[node];
}

void nodes_heard(struct runtime *runtime, node_id node, unsigned poller)
{
    struct nodes *nodes = &runtime->nodes;
    bool there = poller && poller <= (unsigned)runtime->size && nodes->of[poller - 1] == node;
    nodes->to[node] = there ? (int)poller - 1 : nodes->first[node];
}

uint32_t nodes_space(const struct runtime *runtime, int rank)
{
    uint32_t space = 0;
    for (int peer = nodes_first(runtime, runtime->nodes.of[rank]); peer < rank; peer++)
        space += runtime->nodes.of[peer] == runtime->nodes.of[rank];
    return space;
}

/* The ranks of each host on which some rank could not open what it was to share are nodes of their own. */
static void fall_back(struct runtime *runtime, const struct told *all)
{
    bool *single = calloc((size_t)runtime->size, sizeof *single);
    if (!single)
        death_end_all(runtime, "no memory to start", 1, false); /* the others have divided the ranks anew */
    for (int rank = 0; rank < runtime->size; rank++)
        if (all[rank].why[0]) {
            int host = runtime->nodes.hosts[rank];
            if (!single[host] && runtime->rank == rank) {
                char text[NODES_WHY_BYTES + 192];
                snprintf(text, sizeof text,
                         "dsm: each rank of this host is a node of its own, with copies of all that it reads, because "
                         "rank %d cannot open the memory of rank %d: %s\n",
                         rank, nodes_first(runtime, runtime->nodes.of[rank]), all[rank].why);
                print_text(text);
            }
            if (host == runtime->nodes.hosts[runtime->rank])
                memcpy(runtime->nodes.why, all[rank].why, sizeof runtime->nodes.why);
            single[host] = true;
        }
    divide(runtime, single);
    free(single);
}

static void open_files(struct runtime *runtime, const struct share *share, const struct told *all, int *files,
                       struct told *mine)
{
    int first = nodes_first(runtime, runtime->nodes.of[runtime->rank]);
    if (first != runtime->rank && share_open_files(share, &all[first].card, files, mine->why, NODES_WHY_BYTES / 2) == 0)
        mine->why[0] = 0;
}

/* What /proc refuses the owner sends, if it can; else both reasons are told. */
static void pass_files(struct runtime *runtime, const struct share *share, const struct told *all, int *files,
                       struct told *mine)
{
    enum { WAIT_MS = 1000 };
    char why[NODES_WHY_BYTES / 2 - 2];
    int node = runtime->nodes.of[runtime->rank], first = nodes_first(runtime, node);
    if (first == runtime->rank) {
        for (int peer = 0; peer < runtime->size; peer++)
            if (runtime->nodes.of[peer] == node && all[peer].why[0])
                (void)share_send(share, &all[peer].card);
    } else if (mine->why[0]) {
        if (share_receive(share, &all[first].card, WAIT_MS, files, why, sizeof why) == 0)
            mine->why[0] = 0;
        else
            snprintf(strchr(mine->why, 0), sizeof why + 2, "; %s", why);
    }
}

static int join(struct runtime *runtime, const int *files, uint64_t name)
{
    int error = memory_join(&runtime->memory, files[0]);
    if (error == 0)
        error = arena_join(&runtime->arena, files[1], name);
    return error ? error_set(DSM_E_ENVIRONMENT, "the memory of this node's first rank cannot be mapped: %s",
                             strerror(-error))
                 : DSM_OK;
}

int nodes_join(struct runtime *runtime)
{
    if (runtime->nodes.count == (uint32_t)runtime->size)
        return DSM_OK;
    struct share share;
    int files[SHARE_FILES] = {-1, -1}, offered[SHARE_FILES] = {runtime->memory.file, runtime->arena.file};
    struct told mine = {.arena = arena_name(&runtime->arena)};
    struct told *all = calloc((size_t)runtime->size, sizeof *all);
    if (transport_agree_min(runtime->transport, all != NULL) != 1) {
        free(all);
        return error_set(DSM_E_MEMORY, "no memory for %d ranks", runtime->size);
    }
    share_begin(&share, offered);
    mine.card = share.own;
    transport_gather(runtime->transport, &mine, (int)sizeof mine, all);
    open_files(runtime, &share, all, files, &mine);
    transport_gather(runtime->transport, &mine, (int)sizeof mine, all);
    pass_files(runtime, &share, all, files, &mine);
    transport_gather(runtime->transport, &mine, (int)sizeof mine, all);
    fall_back(runtime, all);
    share_end(&share);
    int first = nodes_first(runtime, runtime->nodes.of[runtime->rank]), error = DSM_OK;
    if (first != runtime->rank)
        error = join(runtime, files, all[first].arena);
    else
        for (int i = 0; i < SHARE_FILES; i++)
            if (files[i] >= 0)
                close(files[i]);
    free(all);
    return error;
}

uint32_t dsm_nodes(void)
{
    return runtime_current ? runtime_current->nodes.count : 0;
}

int32_t dsm_node_of(int rank)
{
    return runtime_current->nodes.of[rank];
}

const char *dsm_node_why(void)
{
    return runtime_current->nodes.why;
}
