/* sim - run random programs on simulated nodes.
 *
 *   sim [--seed=S] [--runs=N] [--seconds=T] [--failures=F] [--trace] [--quiet] [--KNOB=VALUE ...]
 *
 * Runs the seeds S, S + 1, ... until F have failed (1 if not said).  A failure prints its seed and makes the status 1;
 * `sim --seed=S --trace` with the same knobs replays it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sim.h"

#ifndef SIM_COMMIT
#define SIM_COMMIT "unknown"
#endif

struct arguments {
    uint64_t seed, runs, failures;
    double seconds;
    int trace, quiet;
    struct sim_knobs knobs;
};

static int usage(const char *argument)
{
    fprintf(stderr,
            "sim: what is %s?\n"
            "usage: sim [--seed=S] [--runs=N] [--seconds=T] [--failures=F] [--trace] [--quiet] [--KNOB=VALUE ...]\n"
            "knobs:",
            argument);
    for (int i = 0; sim_knob_name(i); i++)
        fprintf(stderr, " %s", sim_knob_name(i));
    fputc('\n', stderr);
    return 2;
}

static int parse(int count, char **texts, struct arguments *arguments)
{
    *arguments = (struct arguments){.runs = 1, .failures = 1};
    sim_knobs_default(&arguments->knobs);
    for (int i = 1; i < count; i++) {
        char name[32] = "";
        const char *text = texts[i], *value = strchr(text, '=');
        if (strncmp(text, "--", 2) != 0 || strlen(text) < 3)
            return usage(text);
        snprintf(name, sizeof name, "%.*s", (int)(value ? value - text - 2 : 31), text + 2);
        value = value ? value + 1 : i + 1 < count && texts[i + 1][0] != '-' ? texts[++i] : "";
        if (strcmp(name, "seed") == 0)
            arguments->seed = strtoull(value, NULL, 0);
        else if (strcmp(name, "runs") == 0)
            arguments->runs = strtoull(value, NULL, 0);
        else if (strcmp(name, "failures") == 0)
            arguments->failures = strtoull(value, NULL, 0);
        else if (strcmp(name, "seconds") == 0)
            arguments->seconds = strtod(value, NULL);
        else if (strcmp(name, "trace") == 0)
            arguments->trace = 1;
        else if (strcmp(name, "quiet") == 0)
            arguments->quiet = 1;
        else if (sim_knob_set(&arguments->knobs, name, strtoll(value, NULL, 0)))
            return usage(text);
    }
    return 0;
}

static double now(void)
{
    struct timespec time;
    timespec_get(&time, TIME_UTC);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void print_stats(const struct sim_stats *stats, double seconds)
{
    static const char *const kinds[32] = {"",        "fetch",     "reply",   "push",       "acquire",
                                          "pass",    "grant",     "busy",    "withdraw",   "withdrawn",
                                          "arrive",  "depart",    "add",     "sum",        "request_collection",
                                          "collect", "roll_call", "absent",  "held",       "forward",
                                          "await",   "set",       "publish", "unsubscribe"};
#define SHOW(name) printf("  %-26s %14llu\n", #name, (unsigned long long)stats->name)
    SHOW(programs);
    SHOW(steps);
    SHOW(deliveries);
    SHOW(overtaken);
    SHOW(messages);
    SHOW(message_bytes);
    SHOW(node_runs);
    SHOW(reads);
    SHOW(writes);
    SHOW(peeks);
    SHOW(bystander_accesses);
    SHOW(tears);
    SHOW(lagging_reads);
    SHOW(lagging_writes);
    SHOW(faults_read);
    SHOW(faults_write);
    SHOW(faults_local);
    SHOW(fetches);
    SHOW(fetch_requests);
    SHOW(pages_received);
    SHOW(diffs_received);
    SHOW(diffs_made);
    SHOW(twins_made);
    SHOW(intervals_closed);
    SHOW(notices_received);
    SHOW(invalidations);
    SHOW(collections);
    SHOW(cuts);
    SHOW(lock_acquires);
    SHOW(lock_acquires_local);
    SHOW(lock_grants);
    SHOW(pages_readahead);
    SHOW(pages_refetched);
    SHOW(refetch_waits);
    SHOW(probes);
    SHOW(probes_unused);
    SHOW(pushes_sent);
    SHOW(pushes_used);
    SHOW(pushes_unused);
    SHOW(pages_preopened);
    SHOW(pages_preopened_unused);
    SHOW(copies_given_up);
    SHOW(deferred);
    SHOW(tries);
    SHOW(tries_of_free_locks);
    SHOW(tries_refused);
    SHOW(acquires_cancelled);
    SHOW(counter_adds);
    SHOW(flag_sets);
    SHOW(flag_waits);
    SHOW(flag_waits_ended);
    SHOW(flag_waits_unasked);
    SHOW(programs_detected);
    SHOW(stretches);
    SHOW(racy_bytes);
    SHOW(pages_raced);
    SHOW(pins_read);
    SHOW(pins_write);
    SHOW(pins_waited);
    SHOW(meetings);
    SHOW(disagreements);
    SHOW(refusals);
    SHOW(allocations);
    SHOW(allocations_without_space);
    SHOW(frees);
    SHOW(addresses_reused);
    SHOW(prefetches);
    SHOW(bulk_sent);
    SHOW(bulk_bytes);
    SHOW(bulk_in_place);
    SHOW(bulk_late);
    SHOW(requests_deferred);
    SHOW(protects);
    SHOW(protects_failed);
    SHOW(checks);
    SHOW(damages);
    SHOW(programs_damaged);
    SHOW(damages_noticed);
    SHOW(pool_bytes_max);
#undef SHOW
    for (int kind = 1; kind < 32 && kinds[kind]; kind++)
        printf("  messages: %-16s %14llu\n", kinds[kind], (unsigned long long)stats->kind_messages[kind]);
    double cpu_s = (double)clock() / CLOCKS_PER_SEC;
    printf("  %.1f s, %.1f s of processor time, %.0f programs a minute of it\n", seconds, cpu_s,
           60 * (double)stats->programs / cpu_s);
}

int main(int count, char **texts)
{
    static char failure[SIM_FAILURE_BYTES];
    static struct sim_stats stats;
    struct arguments arguments;
    int status = parse(count, texts, &arguments);
    if (status)
        return status;
    double start = now();
    uint64_t i = 0, failed = 0;
    for (; arguments.seconds > 0 ? now() - start < arguments.seconds : i < arguments.runs; i++)
        if (sim_run(arguments.seed + i, &arguments.knobs, arguments.trace, &stats, failure) < 0) {
            printf("FAILED after %llu programs, commit %s: %s\n", (unsigned long long)i, SIM_COMMIT, failure);
            fflush(stdout);
            if (++failed >= arguments.failures)
                break;
        }
    if (!arguments.quiet && (!failed || arguments.failures > 1))
        print_stats(&stats, now() - start);
    return failed > 0;
}
