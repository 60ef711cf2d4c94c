#include "runtime/error.h"

#include <stdarg.h>
#include <stdio.h>

#include "dsm.h"

static _Thread_local char error_text[2048];

int error_set(int error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error_text, sizeof error_text, format, arguments);
    va_end(arguments);
    return error;
}

const char *dsm_last_error(void)
{
    return error_text;
}

const char *dsm_error_name(int error)
{
    switch (error) {
    case DSM_OK: return "DSM_OK";
    case DSM_AGAIN: return "DSM_AGAIN";
    case DSM_E_ARGUMENT: return "DSM_E_ARGUMENT";
    case DSM_E_STATE: return "DSM_E_STATE";
    case DSM_E_VIEWS: return "DSM_E_VIEWS";
    case DSM_E_MEMORY: return "DSM_E_MEMORY";
    case DSM_E_ENVIRONMENT: return "DSM_E_ENVIRONMENT";
    case DSM_E_MEETING: return "DSM_E_MEETING";
    case DSM_E_OVERFLOW: return "DSM_E_OVERFLOW";
    case DSM_E_MADE: return "DSM_E_MADE";
    }
    return "unknown error";
}
