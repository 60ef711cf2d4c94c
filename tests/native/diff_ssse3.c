/* Diffs as they are cut and applied on x86 processors with SSSE3 and without AVX-512, for the unit tests. */
#ifdef __x86_64__
#define DIFF_X86 2
#endif
#define diff_bytes_max ssse3_diff_bytes_max
#define diff_encode ssse3_diff_encode
#define diff_apply ssse3_diff_apply
#define diff_apply_under ssse3_diff_apply_under
#define diff_valid ssse3_diff_valid
#define diff_next_run ssse3_diff_next_run
#include "protocol/page/diff.c"
