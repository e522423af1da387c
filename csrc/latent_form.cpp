#include "latent_form.h"

#include <algorithm>
#include <atomic>
#include <limits>

#include "products.h"
#include "threads.h"

namespace deltalens {

namespace {

constexpr std::int64_t most_row_panels = 8;  // products of both matrices are about 224 KiB

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

}  // namespace

LatentForm::LatentForm(const Kernels& kernels, std::int64_t tokens, std::int64_t depth,
                       Reduction reduction)
    : tokens_(tokens),
      reduction_(reduction),
      x_(kernels, depth, ceil_div(tokens, 2 * kernels.lanes), false),
      y_(kernels, depth, ceil_div(tokens, 2 * kernels.lanes), false),
      x_norms_(static_cast<std::size_t>(x_.count() * x_.width())),
      y_norms_(x_norms_.size()) {}

void LatentForm::set(std::int64_t first, std::int64_t n, const float* x, const float* y,
                     const double* x_norms, const double* y_norms) {
    for (std::int64_t done = 0; done < n;) {
        const std::int64_t column = first + done;
        const std::int64_t some = std::min(n - done, width() - column % width());
        fill(column, some, x + done * depth(), y + done * depth(), x_norms + done,
             y_norms + done);
        done += some;
    }
    if (reduction_ == Reduction::max && n > 0 && first + n == tokens_) {
        // Only zeros would be seen by a maximum: the last token stands for them.
        const std::int64_t last = n - 1;
        for (std::int64_t column = tokens_; column < x_.count() * width(); ++column) {
            fill(column, 1, x + last * depth(), y + last * depth(), x_norms + last,
                 y_norms + last);
        }
    }
}

void LatentForm::fill(std::int64_t column, std::int64_t n, const float* x, const float* y,
                      const double* x_norms, const double* y_norms) {
    x_.fill_columns(column / width(), column % width(), x, n);
    y_.fill_columns(column / width(), column % width(), y, n);
    std::copy_n(x_norms, n, x_norms_.data() + column);
    std::copy_n(y_norms, n, y_norms_.data() + column);
}

bool LatentForm::scan(const Rows& dec, const Rows& enc, const Gate* gates,
                      const double* thresholds, int threads, const std::function<bool()>& poll,
                      double* totals, double* errors) const {
    const Kernels& kernels = x_.kernels();
    const bool max = reduction_ == Reduction::max;
    const auto reduce_latent = kernels.reduce_latent[static_cast<int>(reduction_)];
    std::fill_n(totals, dec.n, max ? -std::numeric_limits<double>::infinity() : 0.0);
    if (errors != nullptr) {
        std::fill_n(errors, dec.n, 0.0);
    }
    std::vector<double> padded;
    if (thresholds != nullptr) {
        padded.assign(thresholds, thresholds + tokens_);
        padded.resize(x_norms_.size(), thresholds[tokens_ - 1]);
    }
    const std::int64_t per_block = block_columns / width();
    const auto score = [&](Products& of_x, Products& of_y, std::int64_t first, std::int64_t last,
                           std::int64_t panel) {
        const std::int64_t panels = std::min(per_block, x_.count() - panel);
        const Block x = of_x.multiply(panel, panels, first, last);
        const Block u = of_y.multiply(panel, panels, first, last);
        const std::int64_t at = panel * width();
        const GateTokens tokens{thresholds == nullptr ? nullptr : padded.data() + at,
                                x_norms_.data() + at, y_norms_.data() + at};
        for (std::int64_t row = first; row < last; ++row) {
            const double value = reduce_latent(x.of(row - first), u.of(row - first), x.stride(),
                                               panels, gates[row], tokens,
                                               errors == nullptr ? nullptr : errors + row);
            if (!max) {
                totals[row] += value;
            } else if (value > totals[row] || value != value) {
                totals[row] = value;
            }
        }
    };
    const std::int64_t row_panels = shared_row_panels(kernels, dec.n, threads, most_row_panels);
    const std::int64_t share = row_panels * kernels.rows;
    std::atomic<std::int64_t> next{0};
    const auto work = [&](const Stopped& stopped) {
        Products of_x(x_, dec, row_panels), of_y(y_, enc, row_panels);
        for (std::int64_t first = next.fetch_add(share); first < dec.n;
             first = next.fetch_add(share)) {
            for (std::int64_t panel = 0; panel < x_.count(); panel += per_block) {
                if (stopped()) {
                    return;
                }
                score(of_x, of_y, first, std::min(first + share, dec.n), panel);
            }
        }
    };
    return on_threads(std::min<std::int64_t>(threads, ceil_div(dec.n, share)), poll, work);
}

}  // namespace deltalens
