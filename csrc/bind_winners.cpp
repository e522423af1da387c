// Competition of latents as seen from Python.

#include "bind.h"
#include "signals.h"
#include "winners.h"

namespace deltalens {

namespace {

using Indices = py::array_t<std::int64_t, py::array::c_style>;

Winners* winners(std::int64_t tokens, std::int64_t d_model, std::int64_t keep, int threads,
                 const std::string& level) {
    expect(tokens > 0 && d_model > 0 && keep > 0, "tokens, d_model and keep must be at least 1");
    return new Winners(chosen(level, false), tokens, d_model, keep, threads);
}

void set_tokens(Winners& held, std::int64_t first, const Floats& y) {
    expect(y.ndim() == 2 && y.shape(1) == held.depth(), "y must be [n, d_model]");
    expect(first >= 0 && first + y.shape(0) <= held.tokens(), "there are not that many tokens");
    held.set(first, y.shape(0), y.data());
}

void scan_rows(Winners& held, const py::array& enc, const Floats& scale, const Floats& bias,
               std::int64_t first) {
    const Rows rows = rows_of(enc, held.depth());
    expect(scale.size() == rows.n && bias.size() == rows.n, "scale and bias must be [n]");
    expect(first >= 0 && first + rows.n <= INT32_MAX, "latents must be below 2**31");
    const float *of_scale = scale.data(), *of_bias = bias.data();
    without_gil([&] { return held.scan(rows, of_scale, of_bias, first, interrupted); });
}

py::tuple take(Winners& held) {
    const auto tokens = static_cast<py::ssize_t>(held.tokens());
    const auto keep = static_cast<py::ssize_t>(held.keep());
    Floats values({tokens, keep});
    Indices latents({tokens, keep});
    float* values_to = values.mutable_data();
    std::int64_t* latents_to = latents.mutable_data();
    {
        const py::gil_scoped_release unlocked;
        held.take(values_to, latents_to);
    }
    return py::make_tuple(values, latents);
}

void check_places(const Indices& at, std::int64_t n) {
    expect(at.ndim() == 1, "places must have one dimension");
    const std::int64_t* from = at.data();
    expect(std::all_of(from, from + at.size(), [n](std::int64_t i) { return 0 <= i && i < n; }),
           "places must be rows");
}

Doubles dots(const py::array& a, const Indices& at_a, const py::array& b, const Indices& at_b,
             int threads, const std::string& level) {
    expect(a.ndim() == 2, "rows must be [n, d_model]");
    const std::int64_t depth = a.shape(1);
    const Rows of_a = rows_of(a, depth), of_b = rows_of(b, depth);
    check_places(at_a, of_a.n);
    check_places(at_b, of_b.n);
    expect(at_a.size() == at_b.size(), "there must be as many places in both");
    Doubles out(at_a.size());
    double* to = out.mutable_data();
    const std::int64_t *from_a = at_a.data(), *from_b = at_b.data();
    const Kernels& kernels = chosen(level, false);
    {
        const py::gil_scoped_release unlocked;
        pair_dots(kernels, of_a, from_a, of_b, from_b, depth, at_a.size(), threads, to);
    }
    return out;
}

}  // namespace

void bind_winners(py::module_& m) {
    py::class_<Winners>(m, "Winners",
                        "The keep largest p = scale (y_t . e_i) + bias of every token t over\n"
                        "latents i, in fp32; of equal ones those of smaller latents.")
        .def(py::init(&winners), py::arg("tokens"), py::arg("d_model"), py::arg("keep"),
             py::arg("threads"), py::arg("level"))
        .def("set", &set_tokens, py::arg("first"), py::arg("y").noconvert(),
             "Tokens first ... from y float32 [n, d_model].")
        .def("scan", &scan_rows, py::arg("enc"), py::arg("scale").noconvert(),
             py::arg("bias").noconvert(), py::arg("first"),
             "Latents first ... with rows e_i [n, d_model] and float32 [n]; in ascending order.")
        .def("take", &take,
             "(values float32, latents int64) [tokens, keep], the largest first, -inf and -1 where\n"
             "there were fewer; afterwards nothing has been scanned.");
    m.def("pair_dots", &dots, py::arg("a"), py::arg("at_a").noconvert(), py::arg("b"),
          py::arg("at_b").noconvert(), py::arg("threads"), py::arg("level"),
          "a[at_a] . b[at_b] of rows [n, d_model], float64 [pairs]; products are exact.");
}

}  // namespace deltalens
