// The Python module adgan_fast._C, in the limited API: empty, since the operators register themselves with torch's
// dispatcher when the library is loaded. It makes the file an importable extension that one build serves all
// CPython versions from 3.10 on with.
#include <Python.h>

static PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT, "_C", "Compiled CPU kernels; see adgan_fast.ops.", 0, nullptr, nullptr, nullptr, nullptr,
    nullptr};

PyMODINIT_FUNC PyInit__C(void) { return PyModuleDef_Init(&module_definition); }
