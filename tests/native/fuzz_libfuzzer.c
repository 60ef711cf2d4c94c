/* What libFuzzer needs beside the target: its mutator must not waste its time on headers that are refused at the door. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t size_max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t size_max, unsigned seed);
int LLVMFuzzerInitialize(int *count, char ***texts);
const char *__asan_default_options(void);

static int the_kind;

const char *__asan_default_options(void)
{
    return "quarantine_size_mb=8:detect_leaks=0";
}

/* DSM_FUZZ_KIND names the kind of message; without it, any. */
int LLVMFuzzerInitialize(int *count, char ***texts)
{
    (void)count, (void)texts;
    const char *kind = getenv("DSM_FUZZ_KIND");
    the_kind = kind ? fuzz_kind_of(kind) : 0;
    fuzz_states_make();
    atexit(fuzz_print_counts);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t size_max, unsigned seed)
{
    struct fuzz_random random = {.state = seed};
    size_t head = FUZZ_PREFIX_BYTES + sizeof(struct message_header);
    if (size < head || fuzz_random_below(&random, 64) == 0) {
        size_t empty = fuzz_seed(seed, data, size_max);
        size = empty ? empty : size;
    }
    uint32_t where = fuzz_random_below(&random, 8);
    if (size < head || where == 0) {
        size = LLVMFuzzerMutate(data, size, size_max);
    } else if (where == 1) {
        LLVMFuzzerMutate(data, FUZZ_PREFIX_BYTES, FUZZ_PREFIX_BYTES);
    } else if (where == 2) {
        LLVMFuzzerMutate(data + FUZZ_PREFIX_BYTES + offsetof(struct message_header, count), 4, 4);
    } else {
        size = head + LLVMFuzzerMutate(data + head, size - head, size_max - head);
    }
    if (fuzz_random_below(&random, 256))
        fuzz_repair(data, size, the_kind);
    return size;
}
