/* Diffs as they are cut and applied on x86 processors with nothing beyond SSE2, for the unit tests. */
#ifdef __x86_64__
#define DIFF_X86 1
#endif
#define diff_bytes_max sse2_diff_bytes_max
#define diff_encode sse2_diff_encode
#define diff_apply sse2_diff_apply
#define diff_apply_under sse2_diff_apply_under
#define diff_valid sse2_diff_valid
#define diff_next_run sse2_diff_next_run
#include "protocol/page/diff.c"
