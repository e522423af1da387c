// Decoder rows through packed panels: a tiled product whose results are reduced before they leave
// the cache.

#pragma once

#include <cstdint>
#include <functional>

#include "panels.h"

namespace deltalens {

// Decoder rows where they lie: n rows of `depth` numbers, `stride` numbers apart.
struct Rows {
    const void* data;
    DType dtype;
    std::int64_t n;
    std::int64_t stride;
};

// The products of a few rows with one block of panels, [row panels, panels, rows, 2 * lanes].
struct Block {
    const Kernels& kernels;
    std::int64_t first_panel, panels;
    const float* products;

    // The products of a row; its panels are `stride()` apart.
    const float* of(std::int64_t row) const {
        const std::int64_t width = 2 * kernels.lanes;
        return products + row / kernels.rows * panels * stride() + row % kernels.rows * width;
    }
    std::int64_t stride() const { return kernels.rows * 2 * kernels.lanes; }
};

struct Scan {
    const Panels& panels;
    Rows rows;
    int threads;
    // Called for each row and each block of panels in ascending order. Rows come from all threads.
    std::function<void(const Block&, std::int64_t row, std::int64_t row_in_block)> reduce;
    // Called between blocks by the calling thread; true stops the scan.
    std::function<bool()> poll;

    // Every row's arithmetic depends on nothing but the row and the panels. False when stopped.
    bool run() const;
};

// Euclidean norms [rows.n], in fp64.
void row_norms(const Kernels& kernels, const Rows& rows, std::int64_t depth, int threads,
               double* norms);

// Products [rows.n] of the rows with a vector [depth], exact in fp32 factors, summed in fp64.
void row_dots(const Kernels& kernels, const Rows& rows, std::int64_t depth, const float* vector,
              int threads, double* dots);

// Numbers first … first + n - 1 of a row as fp32.
void widen(const Kernels& kernels, const Rows& rows, std::int64_t row, std::int64_t first,
           std::int64_t n, float* out);

}  // namespace deltalens
