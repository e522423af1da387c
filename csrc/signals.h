// Long work without the GIL that Ctrl-C still stops.

#pragma once

#include <pybind11/pybind11.h>

namespace deltalens {

// Whether Python wants to stop: its signal handlers run, and may have raised.
inline bool interrupted() {
    const pybind11::gil_scoped_acquire locked;
    return PyErr_CheckSignals() != 0;
}

// Runs work, false when stopped, without the GIL; what a signal handler raised goes on from here.
template <class Work>
void without_gil(const Work& work) {
    bool finished = false;
    {
        const pybind11::gil_scoped_release unlocked;
        finished = work();
    }
    if (!finished) {
        throw pybind11::error_already_set();
    }
}

}  // namespace deltalens
