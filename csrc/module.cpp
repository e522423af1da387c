// deltalens._cpu: the CPU kernels as seen from Python. Arrays come and go as NumPy arrays, so the
// extension is tied to no version of torch; a torch CPU tensor passes without a copy as .numpy().

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "topk.h"

namespace py = pybind11;

namespace deltalens {
void bind_forms(py::module_& m);
void bind_latent(py::module_& m);
void bind_outer(py::module_& m);
void bind_winners(py::module_& m);
}

namespace {

using deltalens::StreamingTopK;

template <class Score>
void push(StreamingTopK& topk, const py::array_t<Score, py::array::c_style>& scores,
          std::int64_t first_latent) {
    if (scores.ndim() != 1) {
        throw py::value_error("scores must have one dimension");
    }
    const Score* data = scores.data();
    const auto n = static_cast<std::size_t>(scores.size());
    const py::gil_scoped_release unlocked;
    topk.push(data, n, first_latent);
}

py::tuple result(StreamingTopK& topk) {
    std::vector<deltalens::Entry> ranked;
    {
        const py::gil_scoped_release unlocked;
        ranked = topk.result();
    }
    const auto n = static_cast<py::ssize_t>(ranked.size());
    py::array_t<double> scores(n);
    py::array_t<std::int64_t> latents(n);
    for (py::ssize_t i = 0; i < n; ++i) {
        scores.mutable_at(i) = ranked[static_cast<std::size_t>(i)].score;
        latents.mutable_at(i) = ranked[static_cast<std::size_t>(i)].latent;
    }
    return py::make_tuple(scores, latents);
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
    m.doc() = "CPU kernels of deltalens.";

    const auto scores = py::arg("scores").noconvert();
    const auto first_latent = py::arg("first_latent");
    const auto no_gil = py::call_guard<py::gil_scoped_release>();
    py::class_<StreamingTopK>(
        m, "StreamingTopK",
        "The k best of a stream of scores: score descending, latent ascending among equals.\n\n"
        "Every latent is pushed at most once, in tiles of any size and order. NaN is counted and\n"
        "never ranked; +inf and -inf are ordinary values.")
        .def(py::init<std::size_t>(), py::arg("k"))
        .def("push", &push<float>, scores, first_latent,
             "scores [n], float32 or float64, contiguous, of latents first_latent + 0 … n - 1.")
        .def("push", &push<double>, scores, first_latent)
        .def("merge", &StreamingTopK::merge, py::arg("other"), no_gil,
             "As if everything pushed to other, which keeps at least k, had been pushed here.")
        .def("result", &result, "(scores float64, latents int64) of the min(k, pushed) best.")
        .def_property_readonly("threshold", py::cpp_function(&StreamingTopK::threshold, no_gil),
                               "Score of the k-th best, -inf while there are fewer than k.")
        .def_property_readonly("nan_count", &StreamingTopK::nan_count,
                               "How many NaN scores were pushed.");
    deltalens::bind_forms(m);
    deltalens::bind_latent(m);
    deltalens::bind_outer(m);
    deltalens::bind_winners(m);
}
