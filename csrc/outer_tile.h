// The kernel of add_outer over a level's vector operations, included as tile.h is.

#pragma once

#include "outer.h"

namespace deltalens {

namespace {

template <class Ops>
struct OuterTile {
    static constexpr std::int64_t rows = Ops::rows, columns = 2 * Ops::lanes;
    using Vector = typename Ops::Vector;

    static void add(const double* a, const double* b, std::int64_t depth, double* c,
                    std::int64_t stride) {
        Vector left[rows], right[rows];
#pragma GCC unroll 16
        for (std::int64_t r = 0; r < rows; ++r) {
            left[r] = Ops::load(c + r * stride);
            right[r] = Ops::load(c + r * stride + Ops::lanes);
        }
        for (std::int64_t k = 0; k < depth; ++k, a += rows, b += columns) {
            const Vector b_left = Ops::load(b), b_right = Ops::load(b + Ops::lanes);
#pragma GCC unroll 16
            for (std::int64_t r = 0; r < rows; ++r) {
                const Vector number = Ops::broadcast(a + r);
                left[r] = Ops::multiply_add(number, b_left, left[r]);
                right[r] = Ops::multiply_add(number, b_right, right[r]);
            }
        }
#pragma GCC unroll 16
        for (std::int64_t r = 0; r < rows; ++r) {
            Ops::store(c + r * stride, left[r]);
            Ops::store(c + r * stride + Ops::lanes, right[r]);
        }
    }

    static constexpr OuterKernel kernel() { return {rows, columns, add}; }
};

}  // namespace

}  // namespace deltalens
