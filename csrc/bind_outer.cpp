// The sum of outer products as seen from Python.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "kernels.h"
#include "outer.h"
#include "signals.h"

namespace py = pybind11;

namespace deltalens {

namespace {

using Doubles = py::array_t<double, py::array::c_style>;

void add(Doubles& sum, const Doubles& x, const Doubles& y, const std::string& level, int threads) {
    if (sum.ndim() != 2 || x.ndim() != 2 || y.ndim() != 2 || sum.shape(0) != sum.shape(1) ||
        x.shape(1) != sum.shape(0) || y.shape(1) != sum.shape(0) || x.shape(0) != y.shape(0)) {
        throw py::value_error("sum must be [width, width], x and y [n, width]");
    }
    kernels_of(level, false);  // throws for a level that this machine lacks
    const OuterKernel& kernel = outer_kernel(level);
    double* to = sum.mutable_data();
    without_gil([&] {
        return add_outer(kernel, x.shape(0), x.shape(1), x.data(), y.data(), threads, interrupted,
                         to);
    });
}

}  // namespace

void bind_outer(py::module_& m) {
    m.def("add_outer", &add, py::arg("sum").noconvert(), py::arg("x").noconvert(),
          py::arg("y").noconvert(), py::arg("level"), py::arg("threads"),
          "sum [width, width] += sum_t x_t^T y_t of rows x, y [n, width], all float64, in place.");
}

}  // namespace deltalens
