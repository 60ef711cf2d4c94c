/* The driver that needs nothing but a C compiler: a seeded mutator over the seeds, without the guidance of coverage.  Input
 * n of a seed is the same whatever came before it, so a failure is replayed by its number.
 *
 *   fuzz --runs=N [--seed=S] [--first=N] [--kind=NAME]     inputs first, first + 1, ...
 *   fuzz --corpus=DIRECTORY                                write the seeds to DIRECTORY/KIND/
 *   fuzz --states                                          how many states are in the middle of what
 *   fuzz FILE...                                           run inputs from files
 */
#include "fuzz.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <sanitizer/common_interface_defs.h>

enum { LIMIT_S = 20, ALARM_PERIOD = 256, LATEST_BYTES = FUZZ_PREFIX_BYTES + FUZZ_MESSAGE_MAX };

const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "quarantine_size_mb=8:detect_leaks=0";
}

static struct {
    uint64_t seed, number;
    const char *kind, *file;
} current;

/* The sanitizers' and our own last words are followed by these. */
static void say_which(void)
{
    if (current.file)
        fprintf(stderr, "input: %s\n", current.file);
    else
        fprintf(stderr, "input: --seed=%llu --first=%llu --runs=1 --kind=%s\n", (unsigned long long)current.seed,
                (unsigned long long)current.number, current.kind);
}

/* The runtime of the sanitizer for undefined behaviour has a door of its own. */
void __ubsan_on_report(void);
void __ubsan_on_report(void)
{
    say_which();
}

/* ---- the mutator ------------------------------------------------------------------------------------------------- */

struct seeds {
    uint32_t states[FUZZ_STATES], count; /* that receive a message of the kind next */
};

static void find_seeds(struct seeds *seeds, int kind)
{
    uint8_t data[LATEST_BYTES];
    seeds->count = 0;
    for (uint32_t i = 0; i < FUZZ_STATES; i++) {
        size_t size = fuzz_seed(i, data, sizeof data);
        if (size && (kind == 0 || data[FUZZ_PREFIX_BYTES + 4] == kind))
            seeds->states[seeds->count++] = i;
    }
    if (seeds->count == 0)
        fuzz_fail("no state receives a message of kind %s", fuzz_kind_name(kind));
}

/* What numbers in messages are compared with. */
static uint64_t telling_value(struct fuzz_random *random, size_t size)
{
    static const uint64_t values[] = {0,
                                      1,
                                      2,
                                      3,
                                      4,
                                      5,
                                      6,
                                      7,
                                      8,
                                      15,
                                      16,
                                      17,
                                      63,
                                      64,
                                      65,
                                      256,
                                      1023,
                                      1024,
                                      0x7fffffff,
                                      0x80000000,
                                      0xfffffffe,
                                      0xffffffff,
                                      0x100000000,
                                      (uint64_t)1 << 60,
                                      (uint64_t)1 << 63,
                                      UINT64_MAX - 63,
                                      UINT64_MAX - 1,
                                      UINT64_MAX};
    switch (fuzz_random_below(random, 4)) {
    case 0: return fuzz_random_next(random);
    case 1: return size - fuzz_random_below(random, 64);
    default: return values[fuzz_random_below(random, sizeof values / sizeof values[0])];
    }
}

static size_t mutate_once(struct fuzz_random *random, uint8_t *data, size_t size, size_t room)
{
    size_t first = FUZZ_PREFIX_BYTES + sizeof(struct message_header), body = size - first;
    size_t at = first + (body ? fuzz_random_below(random, (uint32_t)body) : 0), rest = size - at;
    uint64_t value = telling_value(random, body);
    uint32_t bytes = fuzz_random_below(random, 48);
    switch (fuzz_random_below(random, 8)) {
    case 0: /* a field */
        at = first + (at - first) / 4 * 4;
        memcpy(data + at, &value, size - at < 4 ? size - at : 4);
        return size;
    case 1: memcpy(data + at, &value, rest < 8 ? rest : 8); return size;
    case 2: /* a bit */
        if (body)
            data[at] ^= (uint8_t)(1u << (value & 7));
        return size;
    case 3: return at; /* the end */
    case 4:            /* more */
        bytes = bytes < room - size ? bytes : (uint32_t)(room - size);
        memmove(data + at + bytes, data + at, rest);
        for (uint32_t i = 0; i < bytes; i++)
            data[at + i] = (uint8_t)fuzz_random_next(random);
        return size + bytes;
    case 5: /* less */
        bytes = bytes < rest ? bytes : (uint32_t)rest;
        memmove(data + at, data + at + bytes, rest - bytes);
        return size - bytes;
    case 6: /* a part of itself */
        bytes = bytes < rest ? bytes : (uint32_t)rest;
        memmove(data + first + (body ? value % (body - bytes + 1) : 0), data + at, bytes);
        return size;
    default: /* how often the body repeats something */
        memcpy(data + FUZZ_PREFIX_BYTES + offsetof(struct message_header, count), &value, sizeof(uint32_t));
        return size;
    }
}

static size_t make_input(const struct seeds *seeds, int kind, uint64_t seed, uint64_t number, uint8_t *data,
                         size_t room)
{
    struct fuzz_random random = {.state = seed * 0x2545f4914f6cdd1du + number};
    fuzz_random_next(&random);
    size_t size = fuzz_seed(seeds->states[fuzz_random_below(&random, seeds->count)], data, room);
    data[3] = (uint8_t)fuzz_random_next(&random);
    if (fuzz_random_below(&random, 4) == 0) { /* another state is surprised by it */
        uint32_t state = fuzz_random_below(&random, FUZZ_STATES);
        data[0] = (uint8_t)state;
        data[1] = (uint8_t)(state >> 8);
    }
    if (fuzz_random_below(&random, 16) == 0)
        data[2] = (uint8_t)fuzz_random_next(&random);
    for (uint32_t i = fuzz_random_below(&random, 5); i > 0; i--)
        size = mutate_once(&random, data, size, room);
    if (fuzz_random_below(&random, 64))
        fuzz_repair(data, size, kind);
    else
        data[FUZZ_PREFIX_BYTES + fuzz_random_below(&random, sizeof(struct message_header))] ^=
            (uint8_t)(1 + number % 255);
    return size;
}

static void run_many(uint64_t runs, uint64_t first, uint64_t seed, int only_kind)
{
    static struct seeds seeds[MESSAGE_KINDS];
    for (int kind = 1; kind < MESSAGE_KINDS; kind++)
        find_seeds(&seeds[kind], kind);
    current.seed = seed;
    current.kind = fuzz_kind_name(only_kind);
    for (uint64_t n = first; n < first + runs; n++) {
        int kind = only_kind ? only_kind : 1 + (int)(n % (MESSAGE_KINDS - 1));
        uint8_t data[LATEST_BYTES];
        current.number = n;
        if (n % ALARM_PERIOD == 0)
            alarm(LIMIT_S); /* a loop without an end is a failure */
        size_t size = make_input(&seeds[kind], kind, seed, n, data, sizeof data);
        uint8_t *exact = malloc(size);
        if (!exact)
            abort();
        memcpy(exact, data, size);
        LLVMFuzzerTestOneInput(exact, size);
        free(exact);
    }
    alarm(0);
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static void write_corpus(const char *directory)
{
    uint8_t data[LATEST_BYTES];
    char path[1024];
    uint32_t written = 0;
    if (mkdir(directory, 0777) != 0 && errno != EEXIST)
        fuzz_fail("cannot make %s: %s", directory, strerror(errno));
    for (uint32_t i = 0; i < FUZZ_STATES; i++) {
        size_t size = fuzz_seed(i, data, sizeof data);
        if (!size)
            continue;
        const char *kind = fuzz_kind_name(data[FUZZ_PREFIX_BYTES + 4]);
        snprintf(path, sizeof path, "%s/%s", directory, kind);
        if (mkdir(path, 0777) != 0 && errno != EEXIST)
            fuzz_fail("cannot make %s: %s", path, strerror(errno));
        snprintf(path, sizeof path, "%s/%s/state-%04u", directory, kind, i);
        FILE *file = fopen(path, "wb");
        if (!file || fwrite(data, 1, size, file) != size || fclose(file) != 0)
            fuzz_fail("cannot write %s", path);
        written++;
    }
    printf("%u seeds in %s\n", written, directory);
}

static void run_file(const char *path)
{
    uint8_t data[LATEST_BYTES];
    FILE *file = fopen(path, "rb");
    if (!file)
        fuzz_fail("cannot read %s", path);
    size_t size = fread(data, 1, sizeof data, file);
    fclose(file);
    current.file = path;
    LLVMFuzzerTestOneInput(data, size);
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int main(int count, char **texts)
{
    uint64_t runs = 0, first = 0, seed = 1;
    int kind = 0;
    fuzz_on_failure = say_which;
    __sanitizer_set_death_callback(say_which);
    for (int i = 1; i < count; i++) {
        const char *text = texts[i], *value = strchr(text, '=');
        if (strncmp(text, "--runs=", 7) == 0)
            runs = strtoull(value + 1, NULL, 0);
        else if (strncmp(text, "--first=", 8) == 0)
            first = strtoull(value + 1, NULL, 0);
        else if (strncmp(text, "--seed=", 7) == 0)
            seed = strtoull(value + 1, NULL, 0);
        else if (strncmp(text, "--kind=", 7) == 0)
            kind = fuzz_kind_of(value + 1);
        else if (strncmp(text, "--corpus=", 9) == 0)
            write_corpus(value + 1);
        else if (strcmp(text, "--states") == 0)
            for (int what = 0; fuzz_census_name(what); what++)
                printf("  %-28s %4u\n", fuzz_census_name(what), fuzz_census(what));
        else if (text[0] == '-')
            fuzz_fail("no such argument: %s (see tests/native/fuzz_main.c)", text);
        else
            run_file(text);
    }
    fuzz_states_make();
    double start_s = now_s();
    if (runs) {
        run_many(runs, first, seed, kind);
        fuzz_print_counts();
        printf("  %.1f s of processor time\n", now_s() - start_s);
    }
    return 0;
}
