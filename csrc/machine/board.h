/* board - what a rank shows to the other ranks of its host: words that they read, and the memory of its arrays.
 *
 * The state says whether the rank looks for messages itself.  A sender rings a rank that computes at once; it leaves a
 * rank alone that polls, or is about to release a lock.  The state may be old when it is read: only the time of a bell
 * may depend on it.
 *
 * A message may offer bytes of the sender's memory (offers.h).  The receiver copies them, and counts on its own board
 * how many such messages of each rank it is done with, so that they need no answer.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum board_state {
    BOARD_UNKNOWN, /* on another host, or nothing can be read of it */
    BOARD_COMPUTES,
    BOARD_HOLDS, /* computes, and holds a lock: it will look when it releases it */
    BOARD_POLLS
};

struct board;

/* Where the board of a rank lies: plain bytes, exchanged by the caller with MPI. */
struct board_card {
    uint64_t name;
    int32_t process, file, memory;
};

/* A board for one of `size` ranks, which shows BOARD_COMPUTES, with its card.  The others may read the file `memory`
 * (-1: none).  Where the system has no memory to share the others do not know this rank.  NULL: no memory at all. */
struct board *board_open(struct board_card *card, int rank, int size, int memory);

/* Look for the boards of all ranks of this host (in rank order).  0 or -errno; that some cannot be read is no error. */
int board_connect(struct board *board, const struct board_card *all);
void board_close(struct board *board);

void board_say(struct board *board, enum board_state state);
enum board_state board_read(const struct board *board, int peer);

/* The peer can copy from this rank's memory. */
bool board_copied_by(const struct board *board, int peer);
/* Copy from the memory of a peer that board_copied_by holds for, there.  0 or -errno. */
int board_copy(const struct board *board, int peer, uint64_t offset, void *to, uint64_t bytes);
/* This rank has copied the parts of one more message of the peer; */
void board_took(struct board *board, int peer);
/* of how many messages of this rank the peer has. */
uint64_t board_taken(const struct board *board, int peer);
