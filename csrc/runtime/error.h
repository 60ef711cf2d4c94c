/* error - why the last call of dsm.h on this thread failed. */
#pragma once

/* Remember the text for dsm_last_error of this thread; returns `error`. */
int error_set(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));
