#include "outer.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "threads.h"

namespace deltalens {

namespace {

constexpr std::int64_t block_tokens = 384;  // a panel of y is 48 KiB then

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Columns first … first + count - 1 of rows [n, width] as [n, count], zeros beyond the last column.
void pack(const double* rows, std::int64_t n, std::int64_t width, std::int64_t first,
          std::int64_t count, double* to) {
    const std::int64_t held = std::min(count, width - first);
    for (std::int64_t t = 0; t < n; ++t, to += count) {
        std::memcpy(to, rows + t * width + first, static_cast<std::size_t>(held) * sizeof(double));
        std::fill(to + held, to + count, 0.0);
    }
}

// One block of tokens: panels of y, shared by the threads, times the panels of x each takes.
class Block {
  public:
    Block(const OuterKernel& kernel, std::int64_t tokens, std::int64_t width, double* sum)
        : kernel_(kernel),
          width_(width),
          y_panels_(ceil_div(width, kernel.columns)),
          sum_(sum),
          y_(static_cast<std::size_t>(y_panels_ * kernel.columns * tokens)) {}

    bool add(std::int64_t n, const double* x, const double* y, int threads,
             const std::function<bool()>& poll) {
        std::atomic<std::int64_t> next_y{0}, next_x{0};
        const auto pack_y = [&](const Stopped&) {
            for (std::int64_t j = next_y++; j < y_panels_; j = next_y++) {
                pack(y, n, width_, j * kernel_.columns, kernel_.columns, y_panel(j, n));
            }
        };
        const auto multiply = [&](const Stopped& stopped) {
            std::vector<double> panel(static_cast<std::size_t>(n * kernel_.rows));
            for (std::int64_t i = next_x++; i * kernel_.rows < width_ && !stopped(); i = next_x++) {
                pack(x, n, width_, i * kernel_.rows, kernel_.rows, panel.data());
                add_rows(i * kernel_.rows, n, panel.data());
            }
        };
        return on_threads(threads, poll, pack_y) && on_threads(threads, poll, multiply);
    }

  private:
    double* y_panel(std::int64_t j, std::int64_t n) { return y_.data() + j * kernel_.columns * n; }

    void add_rows(std::int64_t first, std::int64_t n, const double* x) {
        for (std::int64_t j = 0; j < y_panels_; ++j) {
            const std::int64_t column = j * kernel_.columns;
            const std::int64_t rows = std::min(kernel_.rows, width_ - first);
            const std::int64_t columns = std::min(kernel_.columns, width_ - column);
            double* c = sum_ + first * width_ + column;
            if (rows == kernel_.rows && columns == kernel_.columns) {
                kernel_.add(x, y_panel(j, n), n, c, width_);
            } else {
                add_edge(x, y_panel(j, n), n, rows, columns, c);
            }
        }
    }

    // A tile that reaches beyond the last row or column, by way of a whole one.
    void add_edge(const double* x, const double* y, std::int64_t n, std::int64_t rows,
                  std::int64_t columns, double* c) {
        std::vector<double> tile(static_cast<std::size_t>(kernel_.rows * kernel_.columns));
        const auto bytes = static_cast<std::size_t>(columns) * sizeof(double);
        for (std::int64_t r = 0; r < rows; ++r) {
            std::memcpy(tile.data() + r * kernel_.columns, c + r * width_, bytes);
        }
        kernel_.add(x, y, n, tile.data(), kernel_.columns);
        for (std::int64_t r = 0; r < rows; ++r) {
            std::memcpy(c + r * width_, tile.data() + r * kernel_.columns, bytes);
        }
    }

    const OuterKernel& kernel_;
    const std::int64_t width_, y_panels_;
    double* sum_;
    std::vector<double> y_;
};

}  // namespace

const OuterKernel& outer_kernel(const std::string& level) {
    if (level == "portable") {
        return *portable_outer();
    }
    return level == "avx2" ? *avx2_outer() : *avx512_outer();
}

bool add_outer(const OuterKernel& kernel, std::int64_t n, std::int64_t width, const double* x,
               const double* y, int threads, const std::function<bool()>& poll, double* sum) {
    Block block(kernel, std::min(n, block_tokens), width, sum);
    for (std::int64_t first = 0; first < n; first += block_tokens) {
        const std::int64_t offset = first * width;
        if (!block.add(std::min(block_tokens, n - first), x + offset, y + offset, threads, poll)) {
            return false;
        }
    }
    return true;
}

}  // namespace deltalens
