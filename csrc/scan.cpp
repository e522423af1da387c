#include "scan.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "threads.h"

namespace deltalens {

namespace {

constexpr std::int64_t most_row_panels = 16;  // their products of a block are about 224 KiB

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

const void* address(const Rows& rows, std::int64_t row, std::int64_t first) {
    const std::int64_t offset = row * rows.stride + first;
    if (rows.dtype == DType::f32) {
        return static_cast<const float*>(rows.data) + offset;
    }
    return static_cast<const std::uint16_t*>(rows.data) + offset;
}

// One thread's share of a scan, with its buffers.
class Worker {
  public:
    Worker(const Scan& scan, std::int64_t row_panels)
        : scan_(scan),
          panels_(scan.panels),
          kernels_(scan.panels.kernels()),
          row_panels_(row_panels),
          rows_(static_cast<std::size_t>(kernels_.rows * block_depth)),
          products_(static_cast<std::size_t>(row_panels * kernels_.rows * block_columns)) {}

    // Rows first … of at most row_panels tiles. False when stopped.
    bool run(std::int64_t first, std::int64_t last, const Stopped& stopped) {
        const std::int64_t per_block = block_columns / panels_.width();
        for (std::int64_t panel = 0; panel < panels_.count(); panel += per_block) {
            if (stopped()) {
                return false;
            }
            const Block block{kernels_, panel, std::min(per_block, panels_.count() - panel),
                              products_.data()};
            multiply(block, first, last);
            for (std::int64_t row = first; row < last; ++row) {
                scan_.reduce(block, row, row - first);
            }
        }
        return true;
    }

  private:
    void multiply(const Block& block, std::int64_t first, std::int64_t last) {
        const std::int64_t top = panels_.first_unit(block.first_panel) / block_depth * block_depth;
        for (std::int64_t unit = top; unit < panels_.units(); unit += block_depth) {
            const std::int64_t end = std::min(unit + block_depth, panels_.units());
            float* c = products_.data();
            for (std::int64_t row = first; row < last; row += kernels_.rows) {
                load(row, std::min(row + kernels_.rows, last), unit, end);
                for (std::int64_t j = 0; j < block.panels; ++j, c += block.stride()) {
                    multiply_tile(block.first_panel + j, unit, end, unit > top, c);
                }
            }
        }
    }

    void multiply_tile(std::int64_t panel, std::int64_t unit, std::int64_t end, bool add,
                       float* c) const {
        const std::int64_t begin = std::max(unit, panels_.first_unit(panel));
        kernels_.multiply(rows_.data() + (begin - unit), panels_.row(panel, begin), end - begin,
                          add, c);
    }

    // Units unit … end - 1 of rows first … last - 1 into rows_ [rows, block_depth].
    void load(std::int64_t first, std::int64_t last, std::int64_t unit, std::int64_t end) {
        const std::int64_t per_unit = kernels_.numbers_per_unit;
        const std::int64_t numbers = std::min(end * per_unit, panels_.depth()) - unit * per_unit;
        for (std::int64_t row = first; row < last; ++row) {
            float* to = rows_.data() + (row - first) * block_depth;
            if (per_unit == 1) {
                widen(kernels_, scan_.rows, row, unit, numbers, to);
            } else {
                to[end - unit - 1] = 0.0f;
                std::memcpy(to, address(scan_.rows, row, 2 * unit),
                            static_cast<std::size_t>(numbers) * sizeof(std::uint16_t));
            }
        }
    }

    const Scan& scan_;
    const Panels& panels_;
    const Kernels& kernels_;
    const std::int64_t row_panels_;
    std::vector<float> rows_;
    std::vector<float> products_;
};

}  // namespace

void widen(const Kernels& kernels, const Rows& rows, std::int64_t row, std::int64_t first,
           std::int64_t n, float* out) {
    const void* from = address(rows, row, first);
    if (rows.dtype == DType::f32) {
        std::memcpy(out, from, static_cast<std::size_t>(n) * sizeof(float));
    } else if (rows.dtype == DType::bf16) {
        kernels.widen_bf16(static_cast<const std::uint16_t*>(from), n, out);
    } else {
        kernels.widen_f16(static_cast<const std::uint16_t*>(from), n, out);
    }
}

bool Scan::run() const {
    const std::int64_t tiles = ceil_div(rows.n, panels.kernels().rows);
    const std::int64_t row_panels =
        std::clamp<std::int64_t>(ceil_div(tiles, 4 * threads), 1, most_row_panels);
    const std::int64_t share = row_panels * panels.kernels().rows;
    std::atomic<std::int64_t> next{0};
    const auto work = [&](const Stopped& stopped) {
        Worker worker(*this, row_panels);
        std::int64_t first = next.fetch_add(share);
        while (first < rows.n && worker.run(first, std::min(first + share, rows.n), stopped)) {
            first = next.fetch_add(share);
        }
    };
    return on_threads(std::min<std::int64_t>(threads, ceil_div(rows.n, share)), poll, work);
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
