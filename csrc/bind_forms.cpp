// The two forms as seen from Python.

#include <pybind11/stl.h>

#include <algorithm>
#include <utility>

#include "bind.h"
#include "forms.h"
#include "signals.h"

namespace py = pybind11;

namespace deltalens {

namespace {

TokenForm* token_form(std::vector<std::int64_t> offsets, std::int64_t d_model,
                      const std::string& level, bool bf16_pairs, const std::string& reduction) {
    expect(d_model > 0, "d_model must be at least 1");
    expect(offsets.size() > 1 && offsets.front() == 0 &&
               std::adjacent_find(offsets.begin(), offsets.end(), std::greater_equal<>()) ==
                   offsets.end(),
           "offsets must rise from 0 to the number of tokens");
    return new TokenForm(chosen(level, bf16_pairs), std::move(offsets), d_model,
                         reduction_of(reduction));
}

void set_tokens(TokenForm& form, std::int64_t first, const Floats& x, const Floats& y,
                const Doubles& x_slopes, const Doubles& y_slopes) {
    expect(x.ndim() == 2 && y.ndim() == 2 && x.shape(1) == form.depth() &&
               y.shape(1) == form.depth(),
           "x and y must be [n, d_model]");
    const std::int64_t n = x.shape(0);
    expect(y.shape(0) == n && x_slopes.size() == n && y_slopes.size() == n,
           "x, y and their slopes must be of the same tokens");
    expect(first >= 0 && first + n <= form.tokens(), "there are not that many tokens");
    form.set(first, n, x.data(), y.data(), x_slopes.data(), y_slopes.data());
}

py::object scan_tokens(const TokenForm& form, const py::array& rows, int threads, bool slopes) {
    const Rows where = rows_of(rows, form.depth());
    Doubles totals(where.n), sloped(slopes ? where.n : 0);
    double* to = totals.mutable_data();
    double* sloped_to = slopes ? sloped.mutable_data() : nullptr;
    without_gil([&] { return form.scan(where, threads, interrupted, to, sloped_to); });
    return py::make_tuple(totals, sloped);
}

py::object token_statistics(const TokenForm& form, const py::array& rows, int threads) {
    const Rows where = rows_of(rows, form.depth());
    Doubles means(where.n), spreads(where.n);
    double *means_to = means.mutable_data(), *spreads_to = spreads.mutable_data();
    without_gil([&] { return form.statistics(where, threads, interrupted, means_to, spreads_to); });
    return py::make_tuple(means, spreads);
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

Doubles dots_of(const py::array& rows, const Floats& vector, const std::string& level,
                int threads) {
    expect(vector.ndim() == 1 && vector.size() > 0, "vector must be [d_model]");
    const Rows where = rows_of(rows, vector.shape(0));
    const Kernels& kernels = chosen(level, false);
    const float* with = vector.data();
    Doubles dots(where.n);
    double* to = dots.mutable_data();
    const py::gil_scoped_release unlocked;
    row_dots(kernels, where, vector.shape(0), with, threads, to);
    return dots;
}

}  // namespace

void bind_forms(py::module_& m) {
    m.def("levels", &available_levels,
          "Levels of vector instructions this machine can run, the fastest first.");

    m.def("row_norms", &norms_of, py::arg("rows"), py::arg("level"), py::arg("threads"),
          "Euclidean norms, float64 [n], of rows [n, d_model]: float32, float16, or bfloat16 as\n"
          "uint16.");

    m.def("row_dots", &dots_of, py::arg("rows"), py::arg("vector").noconvert(), py::arg("level"),
          py::arg("threads"), "float64 [n]: products of rows [n, d_model] with float32 [d_model].");

    py::class_<TokenForm>(m, "TokenForm",
                          "Reductions over t of (x_t . d_i)(y_t . d_i): fp32 products, fp64 sums.\n"
                          "\n"
                          "offsets [segments + 1] rise from 0 to the number of tokens;\n"
                          "reduction: sum, abs, positive or max; bf16_pairs: x and y hold\n"
                          "bfloat16 numbers, and so must the rows.")
        .def(py::init(&token_form), py::arg("offsets"), py::arg("d_model"), py::arg("level"),
             py::arg("bf16_pairs"), py::arg("reduction"))
        .def("set", &set_tokens, py::arg("first"), py::arg("x").noconvert(),
             py::arg("y").noconvert(), py::arg("x_slopes").noconvert(),
             py::arg("y_slopes").noconvert(),
             "Tokens first ... from x, y float32 [n, d_model] and slopes float64 [n].")
        .def("scan", &scan_tokens, py::arg("rows"), py::arg("threads"), py::arg("slopes"),
             "(totals, sloped) of rows [n, d_model], float64 [n] each; the second, empty unless\n"
             "asked for, is the sum, or with max the maximum, of y_slope_t |x_t . d_i| +\n"
             "x_slope_t |y_t . d_i|.")
        .def("statistics", &token_statistics, py::arg("rows"), py::arg("threads"),
             "(mean, sum of squared deviations) over segments of their totals, float64 [n] each.");

    py::class_<QuadraticForm>(m, "QuadraticForm",
                              "d_i . S d_i of symmetric float32 S: fp32 products, fp64 sums.\n\n"
                              "bf16_pairs: S holds bfloat16 numbers, and so must the rows.")
        .def(py::init(&quadratic_form), py::arg("matrix").noconvert(), py::arg("level"),
             py::arg("bf16_pairs"))
        .def("scan", &scan_quadratic, py::arg("rows"), py::arg("threads"),
             "float64 [n] for rows [n, d_model].");
}

}  // namespace deltalens
