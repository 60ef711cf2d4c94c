/* Why the owner's file is opened through /proc: it needs no name that a killed job would leave behind, no message, and no
 * order among the ranks.  What it asks of the system is that a process may look into another one of the same user; where
 * it may not (another namespace of processes, a hardened /proc), the board is not read and the peer is unknown.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "board.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CACHE_LINE_BYTES = 64, PATH_BYTES = 64 };

/* The state has its cache line to itself: it is read in loops. */
struct sheet {
    uint64_t name;              /* random: whatever else has the number of that process and file is told by it */
    unsigned char gap[CACHE_LINE_BYTES - sizeof(uint64_t)];
    _Atomic int32_t state;
};

struct board {
    struct sheet *mine;
    int file;
    int size;
    const struct sheet **peers; /* NULL: unknown */
};

static struct sheet *
map_sheet(int file, int protection)
{
    void *mapped = mmap(NULL, sizeof(struct sheet), protection, MAP_SHARED, file, 0);
    return mapped == MAP_FAILED ? NULL : mapped;
}

static int
make_sheet(struct board *board, struct board_card *card)
{
    int file = memfd_create("dsm-board", MFD_CLOEXEC);
    if (file < 0)
        return -1;
    if (ftruncate(file, sizeof(struct sheet)) != 0 || !(board->mine = map_sheet(file, PROT_READ | PROT_WRITE)) ||
        getrandom(&board->mine->name, sizeof board->mine->name, 0) != sizeof board->mine->name) {
        close(file);
        return -1;
    }
    atomic_store(&board->mine->state, BOARD_COMPUTES);
    *card = (struct board_card){.name = board->mine->name, .process = (int32_t)getpid(), .file = file};
    return file;
}

struct board *
board_open(struct board_card *card)
{
    struct board *board = calloc(1, sizeof *board);
    *card = (struct board_card){.process = -1, .file = -1};
    if (board)
        board->file = make_sheet(board, card);
    return board;
}

/* A file that is shorter than a sheet would end the reader with SIGBUS. */
static const struct sheet *
find_sheet(const struct board_card *card)
{
    char path[PATH_BYTES];
    struct stat status;
    if (card->process <= 0 || card->file < 0)
        return NULL;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)card->process, (int)card->file);
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file < 0)
        return NULL;
    bool fits = fstat(file, &status) == 0 && S_ISREG(status.st_mode) && status.st_size == sizeof(struct sheet);
    struct sheet *sheet = fits ? map_sheet(file, PROT_READ) : NULL;
    close(file);
    if (sheet && sheet->name != card->name) {
        munmap(sheet, sizeof *sheet);
        sheet = NULL;
    }
    return sheet;
}

int
board_connect(struct board *board, const struct board_card *all, int size)
{
    board->peers = calloc((size_t)size, sizeof *board->peers);
    if (!board->peers)
        return -ENOMEM;
    board->size = size;
    for (int peer = 0; peer < size; peer++)
        board->peers[peer] = find_sheet(&all[peer]);
    return 0;
}

void
board_close(struct board *board)
{
    if (!board)
        return;
    for (int peer = 0; peer < board->size; peer++)
        if (board->peers[peer])
            munmap((void *)(uintptr_t)board->peers[peer], sizeof(struct sheet));
    if (board->mine)
        munmap(board->mine, sizeof *board->mine);
    if (board->file >= 0)
        close(board->file);
    free(board->peers);
    free(board);
}

void
board_say(struct board *board, enum board_state state)
{
    struct sheet *mine = board->mine;
    if (mine && atomic_load_explicit(&mine->state, memory_order_relaxed) != (int32_t)state)
        atomic_store_explicit(&mine->state, (int32_t)state, memory_order_release);
}

enum board_state
board_read(const struct board *board, int peer)
{
    const struct sheet *sheet = board->peers ? board->peers[peer] : NULL;
    return sheet ? (enum board_state)atomic_load_explicit(&sheet->state, memory_order_relaxed) : BOARD_UNKNOWN;
}
