/* error - why the last call of dsm.h on this thread failed. */
#ifndef RUNTIME_ERROR_H
#define RUNTIME_ERROR_H

/* Remember the text for dsm_last_error of this thread; returns `error`. */
int error_set(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
