/* exit - the one piece of the core that knows Python, for Python 3.11 (dsm/_exit.py).
 *
 * There sys.exit(3) sets an exception of which only the type and the 3 exist until somebody catches it.  Where nobody
 * does the interpreter takes the 3, and nobody can see it go by.  From 3.12 on the exception is made at once, as here.
 * The function object stays the same, since a program may have looked it up before dsm was there: only what it calls
 * changes.
 */
#pragma once

#include <Python.h>
#include <stdint.h>
#include <string.h>

static PyObject *exit_by_instance(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    if (count > 1)
        return PyErr_Format(PyExc_TypeError, "exit expected at most 1 argument, got %zd", count);
    PyObject *error = PyObject_CallFunctionObjArgs(PyExc_SystemExit, count ? arguments[0] : NULL, NULL);
    if (error)
        PyErr_SetObject(PyExc_SystemExit, error);
    Py_XDECREF(error);
    return NULL;
}

/* `function` is the address of the object sys.exit: a built-in function, whose first field is its PyMethodDef (the
 * layout of 3.11, which does not change any more). */
static void dsm_exit_by_instance(uintptr_t function)
{
    enum { FASTCALL = 0x80 }; /* METH_FASTCALL, which the headers keep from extensions for several versions */
    PyMethodDef *method = *(PyMethodDef **)(function + sizeof(PyObject));
    if (strcmp(method->ml_name, "exit") == 0 && method->ml_flags == FASTCALL)
        method->ml_meth = (PyCFunction)(void (*)(void))exit_by_instance;
}
