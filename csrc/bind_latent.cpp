// The latent form as seen from Python.

#include "bind.h"
#include "latent_form.h"
#include "signals.h"

namespace deltalens {

namespace {

constexpr std::int64_t numbers_per_gate = 7;
static_assert(sizeof(Gate) == numbers_per_gate * sizeof(double), "gates come as rows of doubles");

LatentForm* latent_form(std::int64_t tokens, std::int64_t d_model, const std::string& level,
                        const std::string& reduction) {
    expect(tokens > 0 && d_model > 0, "tokens and d_model must be at least 1");
    return new LatentForm(chosen(level, false), tokens, d_model, reduction_of(reduction));
}

void set_latent_tokens(LatentForm& form, std::int64_t first, const Floats& x, const Floats& y,
                       const Doubles& x_norms, const Doubles& y_norms) {
    expect(x.ndim() == 2 && y.ndim() == 2 && x.shape(1) == form.depth() &&
               y.shape(1) == form.depth(),
           "x and y must be [n, d_model]");
    const std::int64_t n = x.shape(0);
    expect(y.shape(0) == n && x_norms.size() == n && y_norms.size() == n,
           "x, y and their norms must be of the same tokens");
    expect(first >= 0 && first + n <= form.tokens(), "there are not that many tokens");
    form.set(first, n, x.data(), y.data(), x_norms.data(), y_norms.data());
}

py::object scan_latents(const LatentForm& form, const py::array& dec, const py::array& enc,
                        const Doubles& gates, const Doubles& thresholds, int threads,
                        bool bounds) {
    const Rows of_x = rows_of(dec, form.depth()), of_y = rows_of(enc, form.depth());
    expect(of_x.n == of_y.n, "both matrices must have a row per latent");
    expect(gates.ndim() == 2 && gates.shape(0) == of_x.n && gates.shape(1) == numbers_per_gate,
           "gates must be [n, 7]");
    expect(thresholds.size() == 0 || thresholds.size() == form.tokens(),
           "thresholds must be [tokens] or empty");
    Doubles totals(of_x.n), errors(bounds ? of_x.n : 0);
    double* to = totals.mutable_data();
    double* errors_to = bounds ? errors.mutable_data() : nullptr;
    const auto* opening = reinterpret_cast<const Gate*>(gates.data());
    const double* from = thresholds.size() == 0 ? nullptr : thresholds.data();
    without_gil([&] {
        return form.scan(of_x, of_y, opening, from, threads, interrupted, to, errors_to);
    });
    return py::make_tuple(totals, errors);
}

}  // namespace

void bind_latent(py::module_& m) {
    py::class_<LatentForm>(m, "LatentForm",
                           "Reductions over t of (x_t . d_i)(z_ti - mean_i): fp32 products, fp64\n"
                           "sums; z = max(p, 0) where u > cut and p > the token's threshold, 0\n"
                           "elsewhere, with u = y_t . e_i and p = scale u + bias.")
        .def(py::init(&latent_form), py::arg("tokens"), py::arg("d_model"), py::arg("level"),
             py::arg("reduction"))
        .def("set", &set_latent_tokens, py::arg("first"), py::arg("x").noconvert(),
             py::arg("y").noconvert(), py::arg("x_norms").noconvert(),
             py::arg("y_norms").noconvert(),
             "Tokens first ... from x, y float32 [n, d_model] and norms float64 [n].")
        .def("scan", &scan_latents, py::arg("dec"), py::arg("enc"), py::arg("gates").noconvert(),
             py::arg("thresholds").noconvert(), py::arg("threads"), py::arg("bounds"),
             "(totals, errors) of rows d_i and e_i [n, d_model], float64 [n] each. gates float64\n"
             "[n, 7]: scale, bias, cut, mean, slopes of the errors of x and u, which are the\n"
             "slope times the token's norm, and the relative rounding of sums; thresholds\n"
             "float64 [tokens] or empty. errors, empty unless bounds are asked for, bounds\n"
             "|total - exact|.");
}

}  // namespace deltalens
