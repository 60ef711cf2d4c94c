/* Why the owner's files are opened through /proc: they need no name that a killed job would leave behind, no message,
 * and no order among the ranks.  What it asks of the system is that a process may look into another one of the same
 * user; where it may not (another namespace of processes, a hardened /proc), the board is not read and the peer is
 * unknown.
 *
 * Why the memory of others is read through its file and not mapped: the range is 16 TiB for each of them.
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

enum { CACHE_LINE_BYTES = 64, PROC_PATH_BYTES = 64 };

#define CANNOT_COPY UINT64_MAX

/* The state has its cache line to itself: it is read in loops. */
struct sheet {
    uint64_t name; /* random: whatever else has the number of that process and file is told by it */
    unsigned char gap[CACHE_LINE_BYTES - sizeof(uint64_t)];
    _Atomic int32_t state;
    unsigned char gap_behind[CACHE_LINE_BYTES - sizeof(int32_t)];
    _Atomic uint64_t taken[]; /* of each rank's messages; CANNOT_COPY */
};

struct board_peer {
    const struct sheet *sheet; /* NULL: unknown */
    int memory;                /* -1: it cannot be read */
};

struct board {
    struct sheet *mine;
    int file;
    int rank, size;
    struct board_peer *peers; /* NULL before they are connected */
};

static size_t sheet_bytes(const struct board *board)
{
    return sizeof(struct sheet) + (size_t)board->size * sizeof(uint64_t);
}

static struct sheet *map_sheet(const struct board *board, int file, int protection)
{
    void *mapped = mmap(NULL, sheet_bytes(board), protection, MAP_SHARED, file, 0);
    return mapped == MAP_FAILED ? NULL : mapped;
}

static int make_sheet(struct board *board, struct board_card *card)
{
    int file = memfd_create("dsm-board", MFD_CLOEXEC);
    if (file < 0)
        return -1;
    if (ftruncate(file, (off_t)sheet_bytes(board)) != 0 ||
        !(board->mine = map_sheet(board, file, PROT_READ | PROT_WRITE)) ||
        getrandom(&board->mine->name, sizeof board->mine->name, 0) != sizeof board->mine->name) {
        close(file);
        return -1;
    }
    atomic_store(&board->mine->state, BOARD_COMPUTES);
    for (int peer = 0; peer < board->size; peer++)
        atomic_store(&board->mine->taken[peer], CANNOT_COPY);
    card->name = board->mine->name;
    card->process = (int32_t)getpid();
    card->file = file;
    return file;
}

struct board *board_open(struct board_card *card, int rank, int size, int memory)
{
    struct board *board = calloc(1, sizeof *board);
    *card = (struct board_card){.process = -1, .file = -1, .memory = memory};
    if (!board)
        return NULL;
    board->rank = rank;
    board->size = size;
    board->file = make_sheet(board, card);
    return board;
}

/* -1: it cannot be read, or is no file. */
static int open_file(const struct board_card *card, int number)
{
    char path[PROC_PATH_BYTES];
    struct stat status;
    if (card->process <= 0 || number < 0)
        return -1;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)card->process, number);
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file >= 0 && (fstat(file, &status) != 0 || !S_ISREG(status.st_mode))) {
        close(file);
        return -1;
    }
    return file;
}

/* A file that is shorter than a sheet would end the reader with SIGBUS. */
static const struct sheet *find_sheet(const struct board *board, const struct board_card *card)
{
    int file = open_file(card, card->file);
    if (file < 0)
        return NULL;
    bool fits = lseek(file, 0, SEEK_END) == (off_t)sheet_bytes(board);
    struct sheet *sheet = fits ? map_sheet(board, file, PROT_READ) : NULL;
    close(file);
    if (sheet && sheet->name != card->name) {
        munmap(sheet, sheet_bytes(board));
        sheet = NULL;
    }
    return sheet;
}

int board_connect(struct board *board, const struct board_card *all)
{
    board->peers = calloc((size_t)board->size, sizeof *board->peers);
    if (!board->peers)
        return -ENOMEM;
    for (int rank = 0; rank < board->size; rank++) {
        struct board_peer *peer = &board->peers[rank];
        peer->sheet = find_sheet(board, &all[rank]);
        peer->memory = peer->sheet ? open_file(&all[rank], all[rank].memory) : -1;
        if (peer->memory >= 0 && board->mine)
            atomic_store(&board->mine->taken[rank], 0);
    }
    return 0;
}

void board_close(struct board *board)
{
    if (!board)
        return;
    for (int rank = 0; board->peers && rank < board->size; rank++) {
        if (board->peers[rank].sheet)
            munmap((void *)(uintptr_t)board->peers[rank].sheet, sheet_bytes(board));
        if (board->peers[rank].memory >= 0)
            close(board->peers[rank].memory);
    }
    if (board->mine)
        munmap(board->mine, sheet_bytes(board));
    if (board->file >= 0)
        close(board->file);
    free(board->peers);
    free(board);
}

void board_say(struct board *board, enum board_state state)
{
    struct sheet *mine = board->mine;
    if (mine && atomic_load_explicit(&mine->state, memory_order_relaxed) != (int32_t)state)
        atomic_store_explicit(&mine->state, (int32_t)state, memory_order_release);
}

static const struct sheet *sheet_of(const struct board *board, int peer)
{
    return board->peers ? board->peers[peer].sheet : NULL;
}

enum board_state board_read(const struct board *board, int peer)
{
    const struct sheet *sheet = sheet_of(board, peer);
    return sheet ? (enum board_state)atomic_load_explicit(&sheet->state, memory_order_relaxed) : BOARD_UNKNOWN;
}

bool board_copied_by(const struct board *board, int peer)
{
    return sheet_of(board, peer) && board_taken(board, peer) != CANNOT_COPY;
}

int board_copy(const struct board *board, int peer, uint64_t offset, void *to, uint64_t bytes)
{
    unsigned char *at = to;
    while (bytes > 0) {
        ssize_t got = pread(board->peers[peer].memory, at, bytes, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? -errno : -ENODATA;
        at += got;
        offset += (uint64_t)got;
        bytes -= (uint64_t)got;
    }
    return 0;
}

void board_took(struct board *board, int peer)
{
    atomic_fetch_add_explicit(&board->mine->taken[peer], 1, memory_order_release);
}

uint64_t board_taken(const struct board *board, int peer)
{
    return atomic_load_explicit(&board->peers[peer].sheet->taken[board->rank], memory_order_acquire);
}
