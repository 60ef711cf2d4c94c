/* futex - sleeping on a word of memory, also of another process that maps it. */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

/* Sleep while the word is `seen`, at most until this time of clock_now_ns.  It may return early. */
void futex_wait(_Atomic uint32_t *word, uint32_t seen, int64_t until_ns);
/* Wake up to `count` sleepers. */
void futex_wake(_Atomic uint32_t *word, int count);
