#include "winners.h"

#include <algorithm>
#include <atomic>
#include <limits>

#include "products.h"
#include "threads.h"

namespace deltalens {

namespace {

constexpr std::int64_t most_row_panels = 8;  // products are about 112 KiB
constexpr std::int64_t least_room = 32;      // beyond the winners, before they are told apart
constexpr std::int64_t pairs_at_a_time = 256;

constexpr float nothing = -std::numeric_limits<float>::infinity();

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

std::int64_t blocks_of(const Panels& panels) {
    return ceil_div(panels.count(), block_columns / panels.width());
}

double dot(const float* a, const float* b, std::int64_t n) {
    constexpr std::int64_t lanes = 8;
    double sums[lanes] = {};
    std::int64_t k = 0;
    for (; k + lanes <= n; k += lanes) {
        for (std::int64_t j = 0; j < lanes; ++j) {
            sums[j] += static_cast<double>(a[k + j]) * static_cast<double>(b[k + j]);
        }
    }
    double total = 0.0;
    for (; k < n; ++k) {
        total += static_cast<double>(a[k]) * static_cast<double>(b[k]);
    }
    for (const double sum : sums) {
        total += sum;
    }
    return total;
}

// A row as fp32: where it lies, or widened into `buffer`.
const float* as_floats(const Kernels& kernels, const Rows& rows, std::int64_t row,
                       std::int64_t depth, std::vector<float>& buffer) {
    if (rows.dtype == DType::f32) {
        return static_cast<const float*>(rows.data) + row * rows.stride;
    }
    widen(kernels, rows, row, 0, depth, buffer.data());
    return buffer.data();
}

}  // namespace

Winners::Winners(const Kernels& kernels, std::int64_t tokens, std::int64_t depth,
                 std::int64_t keep, int threads)
    : tokens_(tokens),
      keep_(keep),
      room_(keep + std::max(keep, least_room)),
      threads_(std::max(threads, 1)),
      y_(kernels, depth, ceil_div(tokens, 2 * kernels.lanes), false),
      blocks_(blocks_of(y_)),
      ranges_(ceil_div(threads_, blocks_)),
      thresholds_(static_cast<std::size_t>(ranges_ * y_.count() * y_.width())),
      counts_(thresholds_.size()),
      candidates_(thresholds_.size() * static_cast<std::size_t>(room_)) {
    clear();
}

void Winners::clear() {
    const std::int64_t padded = y_.count() * y_.width();
    std::fill(counts_.begin(), counts_.end(), 0);
    for (std::int64_t range = 0; range < ranges_; ++range) {
        float* to = thresholds_.data() + range * padded;
        std::fill_n(to, tokens_, nothing);
        std::fill_n(to + tokens_, padded - tokens_, std::numeric_limits<float>::infinity());
    }
}

void Winners::set(std::int64_t first, std::int64_t n, const float* y) {
    for (std::int64_t done = 0; done < n;) {
        const std::int64_t column = first + done, at = column % y_.width();
        const std::int64_t some = std::min(n - done, y_.width() - at);
        y_.fill_columns(column / y_.width(), at, y + done * depth(), some);
        done += some;
    }
}

bool Winners::scan(const Rows& enc, const float* scale, const float* bias, std::int64_t first,
                   const std::function<bool()>& poll) {
    const Kernels& kernels = y_.kernels();
    const std::int64_t width = y_.width(), per_block = block_columns / width;
    const std::int64_t row_panels = shared_row_panels(kernels, enc.n, 1, most_row_panels);
    const auto score = [&](Products& products, std::int64_t begin, std::int64_t end,
                           std::int64_t panel, std::int64_t slot) {
        const std::int64_t panels = std::min(per_block, y_.count() - panel);
        const Block block = products.multiply(panel, panels, begin, end);
        std::vector<float> p(static_cast<std::size_t>(width));
        for (std::int64_t row = begin; row < end; ++row) {
            const float* u = block.of(row - begin);
            for (std::int64_t j = 0; j < panels; ++j, u += block.stride()) {
                const std::int64_t at = slot + j * width;
                const float* thresholds = thresholds_.data() + at;
                if (kernels.exceeds(u, scale[row], bias[row], thresholds, p.data())) {
                    for (std::int64_t i = 0; i < width; ++i) {
                        if (p[static_cast<std::size_t>(i)] > thresholds[i]) {
                            push(at + i, p[static_cast<std::size_t>(i)], first + row);
                        }
                    }
                }
            }
        }
    };
    std::atomic<std::int64_t> next{0};
    const std::int64_t pieces = ranges_ * blocks_, share = row_panels * kernels.rows;
    const auto work = [&](const Stopped& stopped) {
        Products products(y_, enc, row_panels);
        for (std::int64_t piece = next.fetch_add(1); piece < pieces; piece = next.fetch_add(1)) {
            const std::int64_t range = piece / blocks_, panel = piece % blocks_ * per_block;
            const std::int64_t slot = (range * y_.count() + panel) * width;
            const std::int64_t last = enc.n * (range + 1) / ranges_;
            for (std::int64_t row = enc.n * range / ranges_; row < last; row += share) {
                if (stopped()) {
                    return;
                }
                score(products, row, std::min(row + share, last), panel, slot);
            }
        }
    };
    return on_threads(std::min<std::int64_t>(threads_, pieces), poll, work);
}

void Winners::push(std::int64_t slot, float value, std::int64_t latent) {
    std::int32_t& count = counts_[static_cast<std::size_t>(slot)];
    candidates_[static_cast<std::size_t>(slot * room_ + count)] = {
        value, static_cast<std::int32_t>(latent)};
    if (++count == room_) {
        narrow(slot);
    }
}

void Winners::narrow(std::int64_t slot) {
    Candidate* from = candidates_.data() + slot * room_;
    std::nth_element(from, from + keep_ - 1, from + counts_[static_cast<std::size_t>(slot)]);
    counts_[static_cast<std::size_t>(slot)] = static_cast<std::int32_t>(keep_);
    // Later latents with as much are larger, and lose.
    thresholds_[static_cast<std::size_t>(slot)] = from[keep_ - 1].value;
}

void Winners::take(float* values, std::int64_t* latents) {
    const std::int64_t padded = y_.count() * y_.width();
    std::vector<Candidate> all;
    for (std::int64_t token = 0; token < tokens_; ++token, values += keep_, latents += keep_) {
        all.clear();
        for (std::int64_t slot = token; slot < ranges_ * padded; slot += padded) {
            const Candidate* from = candidates_.data() + slot * room_;
            all.insert(all.end(), from, from + counts_[static_cast<std::size_t>(slot)]);
        }
        const auto some = std::min(keep_, static_cast<std::int64_t>(all.size()));
        std::partial_sort(all.begin(), all.begin() + some, all.end());
        for (std::int64_t i = 0; i < keep_; ++i) {
            values[i] = i < some ? all[static_cast<std::size_t>(i)].value : nothing;
            latents[i] = i < some ? all[static_cast<std::size_t>(i)].latent : -1;
        }
    }
    clear();
}

void pair_dots(const Kernels& kernels, const Rows& a, const std::int64_t* at_a, const Rows& b,
               const std::int64_t* at_b, std::int64_t depth, std::int64_t n, int threads,
               double* out) {
    std::atomic<std::int64_t> next{0};
    const auto work = [&](const Stopped&) {
        std::vector<float> of_a(static_cast<std::size_t>(depth)), of_b(of_a.size());
        for (std::int64_t first = next.fetch_add(pairs_at_a_time); first < n;
             first = next.fetch_add(pairs_at_a_time)) {
            for (std::int64_t i = first; i < std::min(first + pairs_at_a_time, n); ++i) {
                out[i] = dot(as_floats(kernels, a, at_a[i], depth, of_a),
                             as_floats(kernels, b, at_b[i], depth, of_b), depth);
            }
        }
    };
    on_threads(std::min<std::int64_t>(threads, ceil_div(n, pairs_at_a_time)),
               [] { return false; }, work);
}

}  // namespace deltalens
