#include "forms.h"

#include <algorithm>

namespace deltalens {

namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

}  // namespace

TokenForm::TokenForm(const Kernels& kernels, std::int64_t tokens, std::int64_t depth)
    : tokens_(tokens),
      panels_(kernels, depth, ceil_div(tokens, kernels.lanes), false),
      slopes_(static_cast<std::size_t>(panels_.count() * panels_.width())) {}

void TokenForm::set(std::int64_t first, std::int64_t n, const float* x, const float* y,
                    const double* x_slopes, const double* y_slopes) {
    const std::int64_t lanes = this->lanes();
    for (std::int64_t start = 0; start < n; start += lanes) {
        const std::int64_t panel = (first + start) / lanes;
        panels_.fill(panel, [&](std::int64_t k, std::int64_t column) {
            const std::int64_t t = start + column % lanes;
            return t < n ? (column < lanes ? x : y)[t * depth() + k] : 0.0f;
        });
        double* slopes = slopes_.data() + panel * panels_.width();
        for (std::int64_t j = 0; j < std::min(lanes, n - start); ++j) {
            slopes[j] = y_slopes[start + j];
            slopes[j + lanes] = x_slopes[start + j];
        }
    }
}

bool TokenForm::scan(const Rows& rows, int threads, const std::function<bool()>& poll,
                     double* sums, double* slope_sums) const {
    std::fill_n(sums, rows.n, 0.0);
    if (slope_sums != nullptr) {
        std::fill_n(slope_sums, rows.n, 0.0);
    }
    const auto reduce = [&](const Block& block, std::int64_t row, std::int64_t row_in_block) {
        double unused = 0.0;
        sums[row] += block.kernels.sum_products(
            block.of(row_in_block), block.stride(), block.panels,
            slope_sums == nullptr ? nullptr : slopes_.data() + block.first_panel * panels_.width(),
            slope_sums == nullptr ? unused : slope_sums[row]);
    };
    return Scan{panels_, rows, threads, reduce, poll}.run();
}

QuadraticForm::QuadraticForm(const Kernels& kernels, std::int64_t depth, const float* matrix)
    : panels_(kernels, depth, ceil_div(depth, 2 * kernels.lanes), true) {
    for (std::int64_t panel = 0; panel < panels_.count(); ++panel) {
        panels_.fill(panel, [&](std::int64_t k, std::int64_t column) {
            const std::int64_t j = panel * panels_.width() + column;
            return j > k ? 0.0f : (j < k ? 2.0f : 1.0f) * matrix[k * depth + j];
        });
    }
}

bool QuadraticForm::scan(const Rows& rows, int threads, const std::function<bool()>& poll,
                         double* sums) const {
    std::fill_n(sums, rows.n, 0.0);
    const auto reduce = [&](const Block& block, std::int64_t row, std::int64_t row_in_block) {
        float columns[block_columns] = {};
        const std::int64_t first = block.first_panel * panels_.width();
        widen(block.kernels, rows, row, first, std::min(block_columns, depth() - first), columns);
        sums[row] += block.kernels.dot(block.of(row_in_block), block.stride(), block.panels,
                                       columns);
    };
    return Scan{panels_, rows, threads, reduce, poll}.run();
}

}  // namespace deltalens
