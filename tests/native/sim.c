/* A run: it is set up, goes on step by step, ends.
 *
 * One step delivers one message or runs one thread up to the point where it has to wait, to be interrupted, or has
 * finished an operation.  Whatever fails ends the run by a long jump to its beginning, with a text that names the seed. */
#include "sim_world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- failing --------------------------------------------------------------------------------------------------- */

static size_t describe_events(const struct sim_node *home, char *text, size_t room)
{
    const struct node *node = home->node;
    size_t length = 0;
    if (!node)
        return 0;
    uint64_t first = node->event_count > EVENTS_SHOWN ? node->event_count - EVENTS_SHOWN : 0;
    for (uint64_t i = first; i < node->event_count && length < room; i++) {
        const struct event *event = &node->events[i % EVENTS_KEPT];
        length +=
            (size_t)snprintf(text + length, room - length, "  node %d  stamp %llu  %s  region %u  page %llu  peer %d\n",
                             home->number, (unsigned long long)event->stamp, context_event_name(event->kind),
                             event->region, (unsigned long long)event->object, event->peer);
    }
    return length < room ? length : room;
}

void sim_fail(struct sim *sim, int number, const char *format, ...)
{
    char *text = sim->failure;
    size_t room = SIM_FAILURE_BYTES, length;
    length = (size_t)snprintf(text, room, "seed %llu, step %llu, node %d: ", (unsigned long long)sim->seed,
                              (unsigned long long)sim->step, number);
    va_list arguments;
    va_start(arguments, format);
    length += (size_t)vsnprintf(text + length, room - length, format, arguments);
    va_end(arguments);
    if (length < room)
        length += (size_t)snprintf(text + length, room - length, "\n  knobs:");
    for (int i = 0; sim_knob_name(i) && length < room; i++)
        length += (size_t)snprintf(text + length, room - length, " %s=%lld", sim_knob_name(i),
                                   (long long)*sim_knob_at(&sim->knobs, i));
    if (length < room)
        length += (size_t)snprintf(text + length, room - length, "\n");
    if (number >= 0 && length < room)
        describe_events(&sim->nodes[number], text + length, room - length);
    longjmp(sim->escape, 1);
}

/* ---- the schedule --------------------------------------------------------------------------------------------------- */

void sim_thread_may_be_done(struct thread *thread)
{
    struct sim *sim = thread->home->sim;
    if (thread->at < thread->script->ops.count || thread->done || sim->open)
        return;
    thread->done = true;
    sim->unfinished--;
    for (int i = 0; i < sim->thread_count; i++) /* who joins it */
        if (sim->threads[i].space == thread->space)
            sim->threads[i].blocked = false;
}

void sim_run_thread(struct thread *thread)
{
    static void (*const actions[SIM_OPS])(struct thread *) = {
        [SIM_WRITE] = sim_do_access,    [SIM_READ] = sim_do_access,     [SIM_PEEK] = sim_do_access,
        [SIM_ACQUIRE] = sim_do_acquire, [SIM_RELEASE] = sim_do_release, [SIM_ADD] = sim_do_add,
        [SIM_PIN] = sim_do_pin,         [SIM_UNPIN] = sim_do_unpin,     [SIM_MEET] = sim_do_meet,
        [SIM_FORGET] = sim_do_forget,   [SIM_START] = sim_do_start,     [SIM_GATE] = sim_do_gate,
        [SIM_JOIN] = sim_do_join,       [SIM_IDLE] = sim_do_idle,       [SIM_PREFETCH] = sim_do_prefetch,
        [SIM_COLLECT] = sim_do_collect, [SIM_HINT] = sim_do_hint,       [SIM_REQUEST] = sim_do_request,
        [SIM_SET] = sim_do_set,         [SIM_CLEAR] = sim_do_clear,     [SIM_AWAIT] = sim_do_await,
    };
    struct sim *sim = thread->home->sim;
    sim_runs(sim);
    sim->current = thread;
    sim->touched = thread->home->number;
    sim_enter(thread->space);
    actions[op_of(thread)->kind](thread);
    sim->current = NULL;
    sim_thread_may_be_done(thread);
}

static int choose_channel(struct sim *sim)
{
    int index = -1;
    for (int tries = 0; tries < 4; tries++) {
        index = sim->active[sim_random_below(&sim->random, (uint32_t)sim->active_count)];
        if (sim->channels[index].stalled_until <= sim->step)
            break;
    }
    return index;
}

static void stall_something(struct sim *sim)
{
    uint64_t until = sim->step + 1 + sim_random_below(&sim->random, 400);
    if (sim_random_chance(&sim->random, 500)) {
        struct thread *thread = &sim->threads[sim_random_below(&sim->random, (uint32_t)sim->thread_count)];
        if (thread->sleep_until < until)
            thread->sleep_until = until;
    } else {
        uint32_t nodes = (uint32_t)sim->program.nodes;
        int from = (int)sim_random_below(&sim->random, nodes), to = (int)sim_random_below(&sim->random, nodes);
        sim_channel(sim, from, to)->stalled_until = until;
    }
}

/* A thread that can run now, or NULL.  `*wakes`: when the next sleeper of the program wakes. */
static struct thread *choose_thread(struct sim *sim, uint64_t *wakes)
{
    struct thread *runnable[SIM_THREADS_MAX];
    uint32_t count = 0;
    *wakes = UINT64_MAX;
    for (int i = 0; i < sim->thread_count; i++) {
        struct thread *thread = &sim->threads[i];
        if (thread->done || thread->blocked)
            continue;
        if (thread->sleep_until <= sim->step)
            runnable[count++] = thread;
        else if (thread->sleep_until < *wakes && !thread->script->helper)
            *wakes = thread->sleep_until;
    }
    return count ? runnable[sim_random_below(&sim->random, count)] : NULL;
}

static const char *state_name(const struct thread *thread)
{
    return thread->done ? "done" : thread->blocked ? "blocked" : "running";
}

void sim_fail_stuck(struct sim *sim, const char *what)
{
    char text[4096];
    size_t length = 0;
    for (int i = 0; i < sim->thread_count && length < sizeof text; i++) {
        const struct thread *thread = &sim->threads[i];
        if (thread->done || thread->at == thread->script->ops.count)
            continue;
        const struct sim_op *op = op_of(thread);
        length +=
            (size_t)snprintf(text + length, sizeof text - length, "\n  thread %d.%d of rank %d %s in %s %u, stage %d%s",
                             thread->home->number, thread->number, thread->space->rank, state_name(thread),
                             sim_op_name(op->kind), op->what, thread->stage, thread->in_fault ? ", in a fault" : "");
    }
    for (int number = 0; number < sim->program.nodes && length < sizeof text; number++) {
        const struct node *node = sim->nodes[number].node;
        length +=
            (size_t)snprintf(text + length, sizeof text - length,
                             "\n  node %d: collection phase %d, holding %d, %u fetches, %llu cuts, meetings %d and %d",
                             number, node->collection.phase, context_holds(node), node->fetches->count,
                             (unsigned long long)node->cuts, node->meetings[0].state, node->meetings[1].state);
    }
    sim_fail(sim, sim->touched, "%s%s", what, text);
}

/* Nothing else can happen: the nodes that linger go on. */
static bool go_on(struct sim *sim)
{
    bool any = false;
    int64_t linger = sim->knobs.linger;
    sim->knobs.linger = 0;
    for (int number = 0; number < sim->program.nodes; number++)
        if (sim->nodes[number].node->unfinished) {
            sim_enter(&sim->nodes[number].spaces[0]);
            sim_pump(&sim->nodes[number]);
            any = true;
        }
    sim->knobs.linger = linger;
    return any;
}

static void run_step(struct sim *sim)
{
    uint64_t wakes;
    sim->step++;
    if (sim->step > (uint64_t)sim->knobs.steps_max)
        sim_fail_stuck(sim, "no end in sight");
    if (sim_random_chance(&sim->random, sim->knobs.stalls))
        stall_something(sim);
    if (sim->knobs.linger > 0 && sim_random_chance(&sim->random, 100))
        go_on(sim);
    struct thread *thread = choose_thread(sim, &wakes);
    int channel = -1;
    if (sim->active_count > 0 && (!thread || sim_random_chance(&sim->random, sim->knobs.deliver)))
        channel = choose_channel(sim);
    if (channel >= 0 && thread && sim_channel_is_slow(sim, channel) && !sim_random_chance(&sim->random, SLOW_PERMILLE))
        channel = -1;
    if (channel >= 0)
        sim_deliver(sim, channel);
    else if (thread)
        sim_run_thread(thread);
    else if (wakes != UINT64_MAX)
        sim->step = wakes;
    else if (!go_on(sim))
        sim_fail_stuck(sim, "deadlock");
    sim_check_step(sim);
}

/* ---- a run ---------------------------------------------------------------------------------------------------------- */

static void set_up_node(struct sim *sim, int number)
{
    struct sim_node *home = &sim->nodes[number];
    const struct sim_knobs *knobs = &sim->knobs;
    home->sim = sim;
    home->number = number;
    home->view = calloc(1, RANGE_BYTES);
    if (!home->view)
        abort();
    for (uint32_t i = 0; i < home->space_count; i++)
        home->spaces[i].port = sim_port(&home->spaces[i]);
    struct node_options options = {
        .number = number,
        .spaces = home->space_count,
        .ranks = (uint32_t)sim->program.ranks,
        .size = sim->program.nodes,
        .budget_bytes = (uint64_t)knobs->budget_bytes,
        .readahead_bytes_max = (uint64_t)knobs->readahead_bytes,
        .refetch_bytes_max = (uint64_t)knobs->refetch_bytes,
        .push_bytes_max = (uint64_t)knobs->push_bytes,
        .readers_max = (uint32_t)knobs->readers,
        .readers_small_max = (uint32_t)knobs->readers,
        .published_unused_max = (uint32_t)knobs->publishes,
        .open_bytes_max = (uint64_t)knobs->open_bytes,
        .cache_bytes = (uint64_t)knobs->cache_bytes,
        .races = sim_detects(sim),
        .races_stay_open = knobs->detect == 2,
        .races_bytes_max = UINT64_MAX,
        .policy = {.stay_open_permille = (uint32_t)knobs->stay_open,
                   .preopen_permille = (uint32_t)knobs->preopen,
                   .guess_permille = (uint32_t)knobs->guess,
                   .changes_kept = (uint32_t)knobs->changes_kept,
                   .evict_permille = (uint32_t)knobs->evict,
                   .random_state = (uint32_t)sim_random_next(&sim->random) | 1,
                   .check_all = knobs->check == 2},
    };
    options.policy.whole = (unsigned)knobs->whole;
    options.policy.bulk = (unsigned)knobs->bulk;
    home->node = node_new(&options, &home->spaces[0].port);
}

static void set_up_space(struct sim *sim, int rank)
{
    struct sim_space *space = &sim->spaces[rank];
    struct sim_node *home = &sim->nodes[sim->program.node_of[rank]];
    if (home->space_count == 0)
        home->spaces = space;
    *space = (struct sim_space){.home = home, .number = home->space_count++, .rank = rank};
    space->slow = sim_random_chance(&sim->random, sim->knobs.slow);
}

void sim_set_up(struct sim *sim, const struct sim_program *written)
{
    struct sim_random maker = {.state = sim->seed};
    if (written) {
        sim_program_complete(&sim->program, written, &sim->knobs, &maker);
        if (!sim->open)
            sim_program_close(&sim->program);
    } else {
        sim_knobs_choose(&sim->knobs, &maker);
        sim_program_make(&sim->program, &sim->knobs, &maker);
    }
    sim->random.state = sim_random_next(&maker);
    for (int i = 0; i < SIM_NODES_MAX * SIM_NODES_MAX; i++)
        sim->channels[i].active_at = -1;
    for (int i = 0; i < SIM_LOCKS_MAX; i++)
        sim->locks[i].id = (uint32_t)i;
    for (int i = 0; i < SIM_COUNTERS_MAX; i++)
        sim->counters[i] = (struct counter_truth){.id = (uint32_t)i, .start = sim->program.counter_starts[i]};
    for (int rank = 0; rank < sim->program.ranks; rank++)
        set_up_space(sim, rank);
    for (uint32_t i = 0; i < sim->program.script_count; i++) {
        struct thread *thread = &sim->threads[sim->thread_count++];
        const struct sim_script *script = &sim->program.scripts[i];
        thread->script = script;
        thread->space = &sim->spaces[script->rank];
        thread->home = thread->space->home;
        for (uint32_t k = 0; k < i; k++)
            thread->number += sim->threads[k].home == thread->home;
        sim->unfinished += !script->helper;
        if (script->ops.count == 0)
            abort();
    }
    for (int number = 0; number < sim->program.nodes; number++)
        set_up_node(sim, number);
}

static void add_space_stats(struct sim_stats *to, const struct node *node, uint32_t space)
{
    const struct node_stats *from = &node->stats[space];
    const struct region_stats pages = regions_total(node->regions, space);
    const struct lock_stats locks = lock_total(node, space);
    to->faults_read += pages.faults_read;
    to->faults_write += pages.faults_write;
    to->faults_local += pages.faults_local;
    to->fetches += pages.fetches;
    to->fetch_requests += pages.fetch_requests;
    to->pages_received += pages.pages_received;
    to->diffs_received += pages.diffs_received;
    to->diffs_made += pages.diffs_made;
    to->twins_made += pages.twins_made;
    to->intervals_closed += from->intervals_closed;
    to->notices_received += pages.notices_received;
    to->invalidations += pages.invalidations;
    to->lock_acquires += locks.acquires;
    to->lock_acquires_local += locks.acquires_local;
    to->lock_grants += locks.grants;
    to->pages_readahead += from->pages_readahead;
    to->pages_refetched += from->pages_refetched;
    to->refetch_waits += from->refetch_waits;
    to->probes += from->probes;
    to->probes_unused += from->probes_unused;
    to->pushes_sent += from->pushes_sent;
    to->pushes_used += from->pushes_used;
    to->pushes_unused += from->pushes_unused;
    to->pages_preopened += from->pages_preopened;
    to->pages_preopened_unused += from->pages_preopened_unused;
    to->copies_given_up += from->copies_given_up;
}

static void add_node_stats(struct sim_stats *to, const struct node *node)
{
    for (uint32_t space = 0; space < node->spaces; space++)
        add_space_stats(to, node, space);
    to->collections += node->collection.count;
    to->cuts += node->cuts;
    to->node_runs++;
    if (node->pool.bytes_used_max > to->pool_bytes_max)
        to->pool_bytes_max = node->pool.bytes_used_max;
}

static void add_stats(struct sim_stats *to, const struct sim_stats *from)
{
    uint64_t max = to->pool_bytes_max > from->pool_bytes_max ? to->pool_bytes_max : from->pool_bytes_max;
    for (size_t i = 0; i < sizeof *to / sizeof(uint64_t); i++)
        ((uint64_t *)to)[i] += ((const uint64_t *)from)[i];
    to->pool_bytes_max = max;
}

void sim_end(struct sim *sim, struct sim_stats *total)
{
    sim->ending = true;
    sim_check_counters(sim);
    sim_check_races(sim);
    for (int number = 0; number < sim->program.nodes; number++) {
        struct sim_node *home = &sim->nodes[number];
        sim_check_node(sim, number);
        add_node_stats(&sim->stats, home->node);
        node_free(home->node);
        home->node = NULL;
        if (home->chunks)
            sim_fail(sim, number, "a chunk of %zu bytes is leaked", home->chunks->bytes);
    }
    sim->stats.programs = 1;
    sim->stats.steps = sim->step;
    add_stats(total, &sim->stats);
}

void sim_delete(struct sim *sim)
{
    sim_runs(NULL);
    for (int i = 0; i < SIM_NODES_MAX * SIM_NODES_MAX; i++)
        for (struct parcel *parcel = sim->channels[i].head, *next; parcel; parcel = next) {
            next = parcel->next;
            free(parcel);
        }
    for (int number = 0; number < SIM_NODES_MAX; number++) {
        sim_chunks_free(&sim->nodes[number]);
        free(sim->nodes[number].view);
    }
    for (int i = 0; i < SIM_COUNTERS_MAX; i++)
        free(sim->counters[i].sums);
    for (int i = 0; i < SIM_CELLS_MAX; i++)
        free(sim->history[i].items);
    free(sim->decisions);
    sim_program_free(&sim->program);
    free(sim);
}

struct sim *sim_new(uint64_t seed, const struct sim_knobs *knobs, int trace, char *failure)
{
    struct sim *sim = calloc(1, sizeof *sim);
    if (!sim)
        abort();
    sim->seed = seed;
    sim->knobs = *knobs;
    sim->trace = trace;
    sim->failure = failure;
    return sim;
}

void sim_watch(struct sim *sim, struct sim_observation *observations, uint32_t room, uint32_t *count)
{
    sim->observations = observations;
    sim->observation_room = room;
    sim->observed = count;
    *count = 0;
}

/* To the end, and away with it. */
static int run(struct sim *sim, const struct sim_program *written, struct sim_stats *total)
{
    int failed = setjmp(sim->escape);
    if (!failed) {
        sim_set_up(sim, written);
        while (sim->unfinished)
            run_step(sim);
        sim_end(sim, total);
    }
    bool damaged = sim->damaged;
    total->programs_damaged += damaged;
    total->damages_noticed += damaged && failed;
    sim_delete(sim);
    return !failed ? 0 : damaged ? 1 : -1;
}

int sim_run(uint64_t seed, const struct sim_knobs *knobs, int trace, struct sim_stats *total, char *failure)
{
    return run(sim_new(seed, knobs, trace, failure), NULL, total);
}

int sim_run_program(const struct sim_program *program, uint64_t seed, const struct sim_knobs *knobs, int trace,
                    struct sim_stats *total, char *failure, struct sim_observation *observations, uint32_t room,
                    uint32_t *count)
{
    struct sim *sim = sim_new(seed, knobs, trace, failure);
    sim_watch(sim, observations, room, count);
    return run(sim, program, total);
}

uint64_t sim_run_many(uint64_t first, uint64_t runs, const struct sim_knobs *knobs, struct sim_stats *total,
                      char *failure)
{
    for (uint64_t i = 0; i < runs; i++)
        if (sim_run(first + i, knobs, 0, total, failure) < 0)
            return i;
    return runs;
}
