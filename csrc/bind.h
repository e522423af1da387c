// What bindings of the forms share: arrays as the kernels read them.

#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

#include "scan.h"

namespace deltalens {

namespace py = pybind11;

using Floats = py::array_t<float, py::array::c_style>;
using Doubles = py::array_t<double, py::array::c_style>;

inline const Kernels& chosen(const std::string& level, bool bf16_pairs) {
    const Kernels* kernels = kernels_of(level, bf16_pairs);
    if (kernels == nullptr) {
        throw py::value_error("level " + level + " does not multiply bf16 pairs");
    }
    return *kernels;
}

inline void expect(bool condition, const char* message) {
    if (!condition) {
        throw py::value_error(message);
    }
}

inline DType dtype_of(const py::array& rows) {
    const char kind = rows.dtype().kind();
    if (kind == 'f' && rows.itemsize() == 4) {
        return DType::f32;
    }
    expect(rows.itemsize() == 2 && (kind == 'f' || kind == 'u'),
           "rows must be float32, float16, or bfloat16 as uint16");
    return kind == 'f' ? DType::f16 : DType::bf16;
}

inline Rows rows_of(const py::array& rows, std::int64_t depth) {
    const DType dtype = dtype_of(rows);
    expect(rows.ndim() == 2 && rows.shape(1) == depth, "rows must be [n, d_model]");
    expect(depth == 1 || rows.size() == 0 || rows.strides(1) == rows.itemsize(),
           "numbers of a row must be adjacent");
    expect(rows.strides(0) % rows.itemsize() == 0, "rows must lie whole numbers apart");
    return {rows.data(), dtype, rows.shape(0), rows.strides(0) / rows.itemsize()};
}

inline constexpr std::pair<const char*, Reduction> reductions[] = {{"sum", Reduction::sum},
                                                            {"abs", Reduction::abs},
                                                            {"positive", Reduction::positive},
                                                            {"max", Reduction::max}};

inline Reduction reduction_of(const std::string& name) {
    const auto* found = std::find_if(std::begin(reductions), std::end(reductions),
                                     [&](const auto& known) { return name == known.first; });
    expect(found != std::end(reductions), "reduction must be sum, abs, positive or max");
    return found->second;
}

}  // namespace deltalens
