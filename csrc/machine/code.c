/* Why by names: nothing else is common to a library of MPI, the ones that it copies with (UCX, libfabric, PMIx),
 * and the components that it loads by their paths. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "code.h"

#include <link.h>
#include <stddef.h>
#include <stdatomic.h>
#include <string.h>

static const char *const names[] = {
    "libmpi", "libopen-pal", "libopen-rte", "libpmix", "mca_", "libucp", "libuct", "libucs", "libfabric", "libpsm",
};

static bool is_mpi(const char *path)
{
    const char *slash = strrchr(path, '/'), *file = slash ? slash + 1 : path;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strncmp(file, names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

static bool holds(const struct dl_phdr_info *library, const ElfW(Phdr) * part, uintptr_t address)
{
    return part->p_type == PT_LOAD && address - (library->dlpi_addr + part->p_vaddr) < part->p_memsz;
}

struct search {
    struct code *code;
    unsigned found;
};

static int look(struct dl_phdr_info *library, size_t size, void *argument)
{
    (void)size;
    struct search *search = argument;
    bool mpi = library->dlpi_name && is_mpi(library->dlpi_name);
    for (unsigned i = 0; i < library->dlpi_phnum && search->found < CODE_RANGES_MAX; i++) {
        const ElfW(Phdr) *part = &library->dlpi_phdr[i];
        bool copies = !mpi && holds(library, part, (uintptr_t)memcpy);
        if (part->p_type != PT_LOAD || !(part->p_flags & PF_X) || !(mpi || copies))
            continue;
        uintptr_t from = library->dlpi_addr + part->p_vaddr;
        search->code->ranges[search->found++] =
            (struct code_range){.from = from, .end = from + part->p_memsz, .copies = copies};
    }
    return 0;
}

void code_find(struct code *code)
{
    struct search search = {.code = code};
    dl_iterate_phdr(look, &search);
    atomic_store_explicit(&code->count, search.found, memory_order_release);
}

static const struct code_range *range_of(const struct code *code, uintptr_t address)
{
    unsigned count = atomic_load_explicit(&code->count, memory_order_acquire);
    for (unsigned i = 0; i < count; i++)
        if (address - code->ranges[i].from < code->ranges[i].end - code->ranges[i].from)
            return &code->ranges[i];
    return NULL;
}

bool code_is_mpi(const struct code *code, uintptr_t pc, uintptr_t caller)
{
    const struct code_range *range = range_of(code, pc);
    if (range && range->copies)
        range = range_of(code, caller);
    return range && !range->copies;
}
