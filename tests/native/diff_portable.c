/* Diffs as they are cut and applied on other processors than x86, for the unit tests. */
#define DIFF_X86 0
#define diff_bytes_max portable_diff_bytes_max
#define diff_encode portable_diff_encode
#define diff_apply portable_diff_apply
#define diff_apply_under portable_diff_apply_under
#define diff_valid portable_diff_valid
#define diff_next_run portable_diff_next_run
#include "protocol/page/diff.c"
