#include "runtime/print.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/runtime.h"

void print_text(const char *text)
{
    ssize_t written = write(STDERR_FILENO, text, strlen(text));
    (void)written;
}

void print_line(int rank, int size, const char *text)
{
    char line[1088];
    snprintf(line, sizeof line, "dsm: rank %d of %d: %s\n", rank, size, text);
    print_text(line);
}

void print_warning(const struct runtime *runtime, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    print_line(runtime->rank, runtime->size, text);
}
