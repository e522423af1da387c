#include "forms.h"

#include <algorithm>
#include <limits>

namespace deltalens {

namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// The first token of every panel of at most `lanes` tokens, and the number of tokens.
std::vector<std::int64_t> cut(const std::vector<std::int64_t>& offsets, std::int64_t lanes) {
    std::vector<std::int64_t> tokens;
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
        for (std::int64_t t = offsets[s]; t < offsets[s + 1]; t += lanes) {
            tokens.push_back(t);
        }
    }
    tokens.push_back(offsets.back());
    return tokens;
}

std::vector<std::int64_t> segments_of(const std::vector<std::int64_t>& offsets,
                                      std::int64_t lanes) {
    std::vector<std::int64_t> segments;
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
        segments.insert(segments.end(),
                        static_cast<std::size_t>(ceil_div(offsets[s + 1] - offsets[s], lanes)),
                        static_cast<std::int64_t>(s));
    }
    return segments;
}

}  // namespace

TokenForm::TokenForm(const Kernels& kernels, std::vector<std::int64_t> offsets,
                     std::int64_t depth, Reduction reduction)
    : reduction_(reduction),
      first_tokens_(cut(offsets, kernels.lanes)),
      segments_(segments_of(offsets, kernels.lanes)),
      panels_(kernels, depth, static_cast<std::int64_t>(segments_.size()), false),
      slopes_(static_cast<std::size_t>(panels_.count() * panels_.width())) {}

void TokenForm::set(std::int64_t first, std::int64_t n, const float* x, const float* y,
                    const double* x_slopes, const double* y_slopes) {
    const auto after = std::upper_bound(first_tokens_.begin(), first_tokens_.end(), first);
    for (std::int64_t panel = after - first_tokens_.begin() - 1;
         panel < panels_.count() && first_tokens_[static_cast<std::size_t>(panel)] < first + n;
         ++panel) {
        set_panel(panel, first, n, x, y, x_slopes, y_slopes);
    }
}

void TokenForm::set_panel(std::int64_t panel, std::int64_t first, std::int64_t n, const float* x,
                          const float* y, const double* x_slopes, const double* y_slopes) {
    const std::int64_t begin = first_tokens_[static_cast<std::size_t>(panel)];
    const std::int64_t end = first_tokens_[static_cast<std::size_t>(panel) + 1];
    const std::int64_t from = std::max(begin, first), to = std::min(end, first + n);
    const std::int64_t lanes = panels_.kernels().lanes, column = from - begin;
    const auto fill = [&](std::int64_t at, std::int64_t token, std::int64_t count) {
        panels_.fill_columns(panel, at, x + (token - first) * depth(), count);
        panels_.fill_columns(panel, at + lanes, y + (token - first) * depth(), count);
    };
    fill(column, from, to - from);
    double* slopes = slopes_.data() + panel * panels_.width() + column;
    std::copy(y_slopes + (from - first), y_slopes + (to - first), slopes);
    std::copy(x_slopes + (from - first), x_slopes + (to - first), slopes + lanes);
    if (reduction_ == Reduction::max && to == end) {
        // Only zeros would be seen by a maximum: the last token stands for them.
        for (std::int64_t at = end - begin; at < lanes; ++at) {
            fill(at, end - 1, 1);
        }
    }
}

bool TokenForm::scan(const Rows& rows, int threads, const std::function<bool()>& poll,
                     double* totals, double* sloped) const {
    const bool max = reduction_ == Reduction::max;
    std::fill_n(totals, rows.n, max ? -std::numeric_limits<double>::infinity() : 0.0);
    if (sloped != nullptr) {
        std::fill_n(sloped, rows.n, 0.0);
    }
    const auto reduce = [&](const Block& block, std::int64_t row, std::int64_t row_in_block) {
        double unused = 0.0;
        const double value = block.kernels.reduce_products[static_cast<int>(reduction_)](
            block.of(row_in_block), block.stride(), block.panels,
            sloped == nullptr ? nullptr : slopes_.data() + block.first_panel * panels_.width(),
            sloped == nullptr ? unused : sloped[row]);
        if (!max) {
            totals[row] += value;
        } else if (value > totals[row] || value != value) {
            totals[row] = value;
        }
    };
    return Scan{panels_, rows, threads, reduce, poll}.run();
}

bool TokenForm::statistics(const Rows& rows, int threads, const std::function<bool()>& poll,
                           double* means, double* spreads) const {
    std::fill_n(means, rows.n, 0.0);
    std::fill_n(spreads, rows.n, 0.0);
    std::vector<double> open(static_cast<std::size_t>(rows.n));  // totals of unfinished segments
    const auto reduce = [&](const Block& block, std::int64_t row, std::int64_t row_in_block) {
        const float* products = block.of(row_in_block);
        double& total = open[static_cast<std::size_t>(row)];
        const std::int64_t end = block.first_panel + block.panels;
        for (std::int64_t panel = block.first_panel; panel < end;) {
            const auto begin = segments_.begin() + panel;
            const std::int64_t segment = *begin;
            const auto last = std::upper_bound(begin, segments_.begin() + end, segment);
            const std::int64_t run = last - begin;
            double unused = 0.0;
            total += block.kernels.reduce_products[static_cast<int>(reduction_)](
                products, block.stride(), run, nullptr, unused);
            panel += run;
            products += run * block.stride();
            if (last == segments_.end() || *last != segment) {
                // B. P. Welford, 1962.
                const double delta = total - means[row];
                means[row] += delta / static_cast<double>(segment + 1);
                spreads[row] += delta * (total - means[row]);
                total = 0.0;
            }
        }
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
