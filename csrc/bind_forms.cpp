// The two forms as seen from Python.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "forms.h"

namespace py = pybind11;

namespace deltalens {

namespace {

using Floats = py::array_t<float, py::array::c_style>;
using Doubles = py::array_t<double, py::array::c_style>;

const Kernels& chosen(const std::string& level, bool bf16_pairs) {
    const Kernels* kernels = kernels_of(level, bf16_pairs);
    if (kernels == nullptr) {
        throw py::value_error("level " + level + " does not multiply bf16 pairs");
    }
    return *kernels;
}

void expect(bool condition, const char* message) {
    if (!condition) {
        throw py::value_error(message);
    }
}

DType dtype_of(const py::array& rows) {
    const char kind = rows.dtype().kind();
    if (kind == 'f' && rows.itemsize() == 4) {
        return DType::f32;
    }
    expect(rows.itemsize() == 2 && (kind == 'f' || kind == 'u'),
           "rows must be float32, float16, or bfloat16 as uint16");
    return kind == 'f' ? DType::f16 : DType::bf16;
}

Rows rows_of(const py::array& rows, std::int64_t depth) {
    const DType dtype = dtype_of(rows);
    expect(rows.ndim() == 2 && rows.shape(1) == depth, "rows must be [n, d_model]");
    expect(depth == 1 || rows.size() == 0 || rows.strides(1) == rows.itemsize(),
           "numbers of a row must be adjacent");
    expect(rows.strides(0) % rows.itemsize() == 0, "rows must lie whole numbers apart");
    return {rows.data(), dtype, rows.shape(0), rows.strides(0) / rows.itemsize()};
}

// Whether Python wants to stop: its signal handlers run, and may have raised.
bool interrupted() {
    const py::gil_scoped_acquire locked;
    return PyErr_CheckSignals() != 0;
}

// Runs a scan without the GIL; what a signal handler raised goes on from here.
template <class Work>
void without_gil(const Work& work) {
    bool finished = false;
    {
        const py::gil_scoped_release unlocked;
        finished = work();
    }
    if (!finished) {
        throw py::error_already_set();
    }
}

void set_tokens(TokenForm& form, std::int64_t first, const Floats& x, const Floats& y,
                const Doubles& x_slopes, const Doubles& y_slopes) {
    expect(x.ndim() == 2 && y.ndim() == 2 && x.shape(1) == form.depth() &&
               y.shape(1) == form.depth(),
           "x and y must be [n, d_model]");
    const std::int64_t n = x.shape(0);
    expect(y.shape(0) == n && x_slopes.size() == n && y_slopes.size() == n,
           "x, y and their slopes must be of the same tokens");
    const std::int64_t end = first + n;
    expect(first >= 0 && end <= form.tokens() && first % form.lanes() == 0 &&
               (end == form.tokens() || n % form.lanes() == 0),
           "tokens must be set in whole panels");
    form.set(first, n, x.data(), y.data(), x_slopes.data(), y_slopes.data());
}

py::object scan_tokens(const TokenForm& form, const py::array& rows, int threads, bool slopes) {
    const Rows where = rows_of(rows, form.depth());
    Doubles sums(where.n), slope_sums(slopes ? where.n : 0);
    double* to = sums.mutable_data();
    double* slopes_to = slopes ? slope_sums.mutable_data() : nullptr;
    without_gil([&] { return form.scan(where, threads, interrupted, to, slopes_to); });
    return py::make_tuple(sums, slope_sums);
}

QuadraticForm* quadratic_form(const Floats& matrix, const std::string& level, bool bf16_pairs) {
    expect(matrix.ndim() == 2 && matrix.shape(0) == matrix.shape(1), "matrix must be square");
    return new QuadraticForm(chosen(level, bf16_pairs), matrix.shape(0), matrix.data());
}

Doubles scan_quadratic(const QuadraticForm& form, const py::array& rows, int threads) {
    const Rows where = rows_of(rows, form.depth());
    Doubles sums(where.n);
    double* to = sums.mutable_data();
    without_gil([&] { return form.scan(where, threads, interrupted, to); });
    return sums;
}

Doubles norms_of(const py::array& rows, const std::string& level, int threads) {
    expect(rows.ndim() == 2, "rows must be [n, d_model]");
    const Rows where = rows_of(rows, rows.shape(1));
    const Kernels& kernels = chosen(level, false);
    Doubles norms(where.n);
    double* to = norms.mutable_data();
    const py::gil_scoped_release unlocked;
    row_norms(kernels, where, rows.shape(1), threads, to);
    return norms;
}

}  // namespace

void bind_forms(py::module_& m) {
    m.def("levels", &available_levels,
          "Levels of vector instructions this machine can run, the fastest first.");

    m.def("row_norms", &norms_of, py::arg("rows"), py::arg("level"), py::arg("threads"),
          "Euclidean norms, float64 [n], of rows [n, d_model]: float32, float16, or bfloat16 as\n"
          "uint16.");

    py::class_<TokenForm>(m, "TokenForm",
                          "sum_t (x_t . d_i)(y_t . d_i): fp32 products, fp64 sums.\n\n"
                          "bf16_pairs: x and y hold bfloat16 numbers, and so must the rows.")
        .def(py::init([](std::int64_t tokens, std::int64_t d_model, const std::string& level,
                         bool bf16_pairs) {
                 expect(tokens > 0 && d_model > 0, "tokens and d_model must be at least 1");
                 return new TokenForm(chosen(level, bf16_pairs), tokens, d_model);
             }),
             py::arg("tokens"), py::arg("d_model"), py::arg("level"), py::arg("bf16_pairs"))
        .def("set", &set_tokens, py::arg("first"), py::arg("x").noconvert(),
             py::arg("y").noconvert(), py::arg("x_slopes").noconvert(),
             py::arg("y_slopes").noconvert(),
             "Tokens first ... from x, y float32 [n, d_model] and slopes float64 [n].")
        .def("scan", &scan_tokens, py::arg("rows"), py::arg("threads"), py::arg("slopes"),
             "(sums, slope sums) of rows [n, d_model], float64 [n] each; the second, empty unless\n"
             "asked for, is sum_t y_slope_t |x_t . d_i| + x_slope_t |y_t . d_i|.");

    py::class_<QuadraticForm>(m, "QuadraticForm",
                              "d_i . S d_i of symmetric float32 S: fp32 products, fp64 sums.\n\n"
                              "bf16_pairs: S holds bfloat16 numbers, and so must the rows.")
        .def(py::init(&quadratic_form), py::arg("matrix").noconvert(), py::arg("level"),
             py::arg("bf16_pairs"))
        .def("scan", &scan_quadratic, py::arg("rows"), py::arg("threads"),
             "float64 [n] for rows [n, d_model].");
}

}  // namespace deltalens
