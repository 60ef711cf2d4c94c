/* print - lines to standard error, by write(2): without malloc and safe in a signal handler. */
#pragma once

struct runtime;

void print_text(const char *text);
/* "dsm: rank R of N: TEXT", and a line's end. */
void print_line(int rank, int size, const char *text);
void print_warning(const struct runtime *runtime, const char *format, ...) __attribute__((format(printf, 2, 3)));
