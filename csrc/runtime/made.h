/* made - the locks, counters and flags that this rank has made.
 *
 * All ranks make the same things in the same order, so each numbers them by itself: to make one costs no message.
 * Whether all have made the same is seen at their next meeting, which compares sums (protocol/sync/ballot.h).  For the
 * error that follows where they have not, the calls since all agreed last are kept as a text.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { MADE_TEXT_BYTES = 512, MADE_CALL_BYTES = 128, MADE_TELL_BYTES = 4096 };

struct made {
    uint32_t locks, counters, flags; /* so far: the numbers of the next ones */
    uint64_t sum;                    /* of all the calls, in their order */
    char text[MADE_TEXT_BYTES];      /* the calls since all agreed: "Lock(), 3 x Event()"; the last of them: */
    char last[MADE_CALL_BYTES];
    uint32_t repeats;
    size_t last_at; /* where it begins in the text */
};

void made_add(struct made *made, const char *call);
/* All ranks have made the same. */
void made_agree(struct made *made);
/* The calls, then this one, which goes last. */
const char *made_tell(const struct made *made, const char *call, char text[MADE_TELL_BYTES]);
