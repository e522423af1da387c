// A sum of outer products of token rows, in fp64: what the cross moment is made of.

#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace deltalens {

// A tile of the sum is `rows` by `columns`.
struct OuterKernel {
    std::int64_t rows, columns;

    // c [rows, columns], lines `stride` apart, += aᵀ b for a [depth, rows], b [depth, columns].
    void (*add)(const double* a, const double* b, std::int64_t depth, double* c,
                std::int64_t stride);
};

// The kernel of a level that this machine has.
const OuterKernel& outer_kernel(const std::string& level);

const OuterKernel* portable_outer();
const OuterKernel* avx2_outer();  // null where the compiler cannot make them
const OuterKernel* avx512_outer();

// sum [width, width] += Σ_t x_tᵀ y_t for rows x_t, y_t [n, width]. Every element adds its tokens in
// their order, in blocks of tokens, whatever the number of threads. False when stopped.
bool add_outer(const OuterKernel& kernel, std::int64_t n, std::int64_t width, const double* x,
               const double* y, int threads, const std::function<bool()>& poll, double* sum);

}  // namespace deltalens
