#include "runtime/collective.h"

#include "runtime/call.h"
#include "runtime/error.h"
#include "runtime/faults.h"
#include "runtime/guard.h"
#include "runtime/inquiry.h"

static bool has_departed(const struct runtime *runtime)
{
    return meeting_departed(runtime->node, runtime->nodes.space);
}

/* The thread leaves its ballot, and the last of the node's processes makes the node arrive.  A barrier needs the node's
 * mutex for that only. */
static void join(struct runtime *runtime, const struct ballot *call)
{
    struct node *node = runtime->node;
    struct ballot ballot = *call;
    if (ballot.kind != MEETING_RECOUNT)
        ballot.numbers[BALLOT_MADE] = runtime->made.sum;
    if (!meeting_needs_no_ballot(node, &ballot)) {
        char text[MADE_TELL_BYTES];
        ballot.what = made_tell(&runtime->made, call->what ? call->what : ballot_kind_name(call->kind), text);
        shared_lock(runtime);
        meeting_bring(node, &ballot);
        shared_unlock(runtime);
    }
    enum meeting_join found = meeting_join(node, runtime->nodes.space, (uint32_t)runtime->rank);
    if (found == MEETING_PASSES) {
        progress_wake(runtime);
    } else if (found == MEETING_ARRIVES) {
        shared_lock(runtime);
        meeting_arrive(node, MEETING_THREADS);
        node_settle(node);
        progress_flush(runtime);
        shared_unlock(runtime);
    }
}

/* What other nodes have written may be stale here.  After the last meeting no other rank may be left to answer: nothing
 * is fetched before it is touched. */
static void follow(struct runtime *runtime, enum meeting_kind kind)
{
    if (runtime->nodes.count == 1 && !changes_due(runtime->node, runtime->nodes.space))
        return;
    shared_lock(runtime);
    if (kind == MEETING_FINALIZE)
        changes_follow(runtime->node);
    else
        faults_catch_up(runtime);
    shared_unlock(runtime);
}

static void compare_made(struct runtime *runtime, const struct meeting *meeting)
{
    if (meeting->made == runtime->made.sum)
        made_agree(&runtime->made);
}

static int meeting_error(const struct meeting *meeting)
{
    switch (meeting->outcome) {
    case MEETING_AGREED: return DSM_OK;
    case MEETING_KINDS_DIFFER:
        return error_set(DSM_E_MEETING,
                         "ranks met in different collective calls: %s; all ranks make the same "
                         "collective calls in the same order",
                         meeting->text);
    case MEETING_BALLOTS_DIFFER:
        return error_set(DSM_E_ARGUMENT, "the arguments of a collective call differ between ranks: %s", meeting->text);
    case MEETING_MADE_DIFFERS:
        return error_set(DSM_E_MADE,
                         "what was made differs between ranks: %s; all ranks make the same locks, counters, events and "
                         "the like, in the same order (with DSM_CHECK=1 each is compared when it is made)",
                         meeting->text);
    case MEETING_REFUSED: return error_set(DSM_E_VIEWS, "%s", meeting->text);
    case MEETING_NO_SPACE:
        return error_set(DSM_E_MEMORY, "the shared address range has no gap that is large enough (DSM_RANGE_BYTES sets "
                                       "its size)");
    }
    return error_set(DSM_E_MEETING, "unknown outcome");
}

int collective_meet(const char *call, const struct ballot *ballot, double slice_s, uint32_t *result)
{
    struct runtime *runtime = call_enter_own(call);
    if (!runtime)
        return DSM_E_STATE;
    bool own = runtime->meeting == ballot->kind && pthread_equal(runtime->meeting_thread, pthread_self());
    if (runtime->meeting && !own) {
        enum meeting_kind other = runtime->meeting;
        progress_leave_own(runtime);
        return error_set(DSM_E_STATE, "%s while another thread of this rank is in %s, or left it by an exception",
                         ballot->what ? ballot->what : ballot_kind_name(ballot->kind), ballot_kind_name(other));
    }
    struct wait *wait = waits_begin(runtime->waits, WAIT_FOR_MEETING, (uint64_t)ballot->kind);
    inquiry_ask_for_absent(runtime, wait);
    if (!runtime->meeting) {
        runtime->meeting = ballot->kind;
        runtime->meeting_thread = pthread_self();
        join(runtime, ballot);
        guard_look(runtime, runtime->nodes.count > 1); /* a system call, while the arrival travels */
    }
    int error = DSM_AGAIN;
    bool done = progress_await(runtime, has_departed, waits_deadline_ns(wait, slice_s));
    if (done) {
        const struct meeting *meeting = &runtime->node->meetings[MEETING_THREADS];
        meeting_take(runtime->node, runtime->nodes.space);
        runtime->meeting = 0;
        compare_made(runtime, meeting);
        error = meeting_error(meeting);
        if (result)
            *result = meeting->result;
        follow(runtime, ballot->kind);
    }
    runtime->stats->wait_barrier_ns += waits_end(wait, done);
    progress_leave_own(runtime);
    return error;
}

int dsm_recount(double slice_s)
{
    struct runtime *runtime = runtime_current;
    const struct made *made = &runtime->made;
    uint32_t most = made->locks > made->counters ? made->locks : made->counters, agreed;
    struct ballot ballot = {.kind = MEETING_RECOUNT, .numbers = {most > made->flags ? most : made->flags}};
    int error = collective_meet("the count of what was made", &ballot, slice_s, &agreed);
    if (!error)
        runtime->made = (struct made){.locks = agreed, .counters = agreed, .flags = agreed};
    return error;
}

int dsm_barrier(double slice_s)
{
    return collective_meet("barrier()", &(struct ballot){.kind = MEETING_BARRIER}, slice_s, NULL);
}
