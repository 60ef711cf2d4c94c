/* board - a word that each rank keeps where the other ranks of its host can read it: does it look for messages itself?
 *
 * Who has asked a rank that computes rings at once, and need not find out by waiting; a rank that polls, or is about to
 * release a lock, is left in peace.  It is a hint: a state may be old when it is read, so nothing may depend on it but
 * when a bell is rung.
 */
#ifndef MACHINE_BOARD_H
#define MACHINE_BOARD_H

#include <stdint.h>

enum board_state {
    BOARD_UNKNOWN,      /* on another host, or nothing can be read of it */
    BOARD_COMPUTES,
    BOARD_HOLDS,        /* computes, and holds a lock: it will look when it releases it */
    BOARD_POLLS
};

struct board;

/* Where the board of a rank lies: plain bytes, exchanged by the caller with MPI. */
struct board_card {
    uint64_t name;
    int32_t process, file;
};

/* A board for this rank, which says BOARD_COMPUTES, with its card.  Where the system has no memory to share the others do
 * not know this rank.  NULL: no memory at all. */
struct board *board_open(struct board_card *card);

/* Look for the boards of all ranks of this host (size entries, in rank order).  0 or -errno; that some cannot be read is no
 * error. */
int board_connect(struct board *board, const struct board_card *all, int size);
void board_close(struct board *board);

void board_say(struct board *board, enum board_state state);
enum board_state board_read(const struct board *board, int peer);

#endif
