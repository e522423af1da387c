#include "scan.h"

#include <algorithm>
#include <atomic>
#include <cmath>

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

void row_norms(const Kernels& kernels, const Rows& rows, std::int64_t depth, int threads,
               double* norms) {
    std::atomic<std::int64_t> next{0};
    const auto work = [&](const Stopped&) {
        float row[block_columns];
        for (std::int64_t r = next++; r < rows.n; r = next++) {
            double squares = 0.0;
            for (std::int64_t first = 0; first < depth; first += block_columns) {
                const std::int64_t n = std::min(block_columns, depth - first);
                widen(kernels, rows, r, first, n, row);
                std::fill(row + n, row + block_columns, 0.0f);
                squares += kernels.dot(row, 2 * kernels.lanes, block_columns / (2 * kernels.lanes),
                                       row);
            }
            norms[r] = std::sqrt(squares);
        }
    };
    on_threads(threads, [] { return false; }, work);
}

}  // namespace deltalens
