#include "scan.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "products.h"
#include "threads.h"

namespace deltalens {

namespace {

constexpr std::int64_t most_row_panels = 16;  // their products of a block are about 224 KiB

// Rows first … last - 1 of a scan. False when stopped.
bool run_rows(const Scan& scan, Products& products, std::int64_t first, std::int64_t last,
              const Stopped& stopped) {
    const Panels& panels = scan.panels;
    const std::int64_t per_block = block_columns / panels.width();
    for (std::int64_t panel = 0; panel < panels.count(); panel += per_block) {
        if (stopped()) {
            return false;
        }
        const Block block = products.multiply(
            panel, std::min(per_block, panels.count() - panel), first, last);
        for (std::int64_t row = first; row < last; ++row) {
            scan.reduce(block, row, row - first);
        }
    }
    return true;
}

}  // namespace

bool Scan::run() const {
    const Kernels& kernels = panels.kernels();
    const std::int64_t row_panels = shared_row_panels(kernels, rows.n, threads, most_row_panels);
    const std::int64_t share = row_panels * kernels.rows;
    std::atomic<std::int64_t> next{0};
    const auto work = [&](const Stopped& stopped) {
        Products products(panels, rows, row_panels);
        std::int64_t first = next.fetch_add(share);
        while (first < rows.n &&
               run_rows(*this, products, first, std::min(first + share, rows.n), stopped)) {
            first = next.fetch_add(share);
        }
    };
    return on_threads(std::min<std::int64_t>(threads, (rows.n + share - 1) / share), poll, work);
}

namespace {

// take(row, first, block) of each block_columns numbers of each row, as fp32 padded with zeros.
template <class Take>
void each_block(const Kernels& kernels, const Rows& rows, std::int64_t depth, int threads,
                const Take& take) {
    std::atomic<std::int64_t> next{0};
    const auto work = [&](const Stopped&) {
        float block[block_columns];
        for (std::int64_t r = next++; r < rows.n; r = next++) {
            for (std::int64_t first = 0; first < depth; first += block_columns) {
                const std::int64_t n = std::min(block_columns, depth - first);
                widen(kernels, rows, r, first, n, block);
                std::fill(block + n, block + block_columns, 0.0f);
                take(r, first, block);
            }
        }
    };
    on_threads(threads, [] { return false; }, work);
}

double dot(const Kernels& kernels, const float* a, const float* b) {
    return kernels.dot(a, 2 * kernels.lanes, block_columns / (2 * kernels.lanes), b);
}

}  // namespace

void row_norms(const Kernels& kernels, const Rows& rows, std::int64_t depth, int threads,
               double* norms) {
    std::fill_n(norms, rows.n, 0.0);
    each_block(kernels, rows, depth, threads,
               [&](std::int64_t row, std::int64_t, const float* block) {
                   norms[row] += dot(kernels, block, block);
               });
    std::transform(norms, norms + rows.n, norms, [](double squares) { return std::sqrt(squares); });
}

void row_dots(const Kernels& kernels, const Rows& rows, std::int64_t depth, const float* vector,
              int threads, double* dots) {
    const std::int64_t blocks = (depth + block_columns - 1) / block_columns;
    std::vector<float> padded(static_cast<std::size_t>(blocks * block_columns));
    std::copy_n(vector, depth, padded.data());
    std::fill_n(dots, rows.n, 0.0);
    each_block(kernels, rows, depth, threads,
               [&](std::int64_t row, std::int64_t first, const float* block) {
                   dots[row] += dot(kernels, padded.data() + first, block);
               });
}

}  // namespace deltalens
