// The right-hand side of a scan, laid out once in the order the tiles read it.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels.h"

namespace deltalens {

// Panels of 2 * lanes columns, `depth` numbers deep, padded with zeros; each is contiguous,
// [units, 2 * lanes]. Of a lower triangular matrix a panel is held from its first column down.
class Panels {
  public:
    Panels(const Kernels& kernels, std::int64_t depth, std::int64_t panels, bool lower_triangular)
        : kernels_(kernels),
          depth_(depth),
          units_((depth + kernels.numbers_per_unit - 1) / kernels.numbers_per_unit),
          lower_triangular_(lower_triangular) {
        begin_.push_back(0);
        for (std::int64_t panel = 0; panel < panels; ++panel) {
            begin_.push_back(begin_.back() + (units_ - first_unit(panel)) * width());
        }
        storage_.resize(static_cast<std::size_t>(begin_.back()));
    }

    // Sets a panel to value(k, column of the panel). Pairs take the upper halves of the numbers,
    // which must be representable in bf16.
    template <class Value>
    void fill(std::int64_t panel, const Value& value) {
        float* to = storage_.data() + begin_[static_cast<std::size_t>(panel)];
        const auto padded = [&](std::int64_t k, std::int64_t column) {
            return k < depth_ ? value(k, column) : 0.0f;
        };
        for (std::int64_t unit = first_unit(panel); unit < units_; ++unit) {
            for (std::int64_t column = 0; column < width(); ++column, ++to) {
                *to = kernels_.numbers_per_unit == 1
                          ? padded(unit, column)
                          : pair(padded(2 * unit, column), padded(2 * unit + 1, column));
            }
        }
    }

    // Sets columns column … column + n - 1 of a panel to rows [n, depth]; pairs as above.
    void fill_columns(std::int64_t panel, std::int64_t column, const float* rows, std::int64_t n) {
        constexpr std::int64_t strip = 16;  // numbers of each row at a time, a cache line
        char* to = reinterpret_cast<char*>(storage_.data() +
                                           begin_[static_cast<std::size_t>(panel)]);
        const bool pairs = kernels_.numbers_per_unit == 2;
        for (std::int64_t first = 0; first < depth_; first += strip) {
            const std::int64_t last = std::min(first + strip, depth_);
            for (std::int64_t r = 0; r < n; ++r) {
                const float* row = rows + r * depth_;
                for (std::int64_t k = first; k < last; ++k) {
                    const char* from = reinterpret_cast<const char*>(row + k);
                    if (pairs) {  // on little-endian machines only
                        std::memcpy(to + ((k / 2) * width() + column + r) * 4 + k % 2 * 2,
                                    from + 2, 2);
                    } else {
                        std::memcpy(to + (k * width() + column + r) * 4, from, 4);
                    }
                }
            }
        }
    }

    const Kernels& kernels() const { return kernels_; }
    std::int64_t depth() const { return depth_; }
    std::int64_t units() const { return units_; }
    std::int64_t width() const { return 2 * kernels_.lanes; }
    std::int64_t count() const { return static_cast<std::int64_t>(begin_.size()) - 1; }

    std::int64_t first_unit(std::int64_t panel) const {
        return lower_triangular_ ? panel * width() / kernels_.numbers_per_unit : 0;
    }

    // Row `unit` of a panel, from its first unit on.
    const float* row(std::int64_t panel, std::int64_t unit) const {
        return storage_.data() + begin_[static_cast<std::size_t>(panel)] +
               (unit - first_unit(panel)) * width();
    }

  private:
    static float pair(float low, float high) {
        std::uint32_t low_bits, high_bits;
        std::memcpy(&low_bits, &low, sizeof low);
        std::memcpy(&high_bits, &high, sizeof high);
        const std::uint32_t bits = (high_bits & 0xffff0000u) | (low_bits >> 16);
        std::memcpy(&high, &bits, sizeof bits);
        return high;
    }

    const Kernels& kernels_;
    const std::int64_t depth_, units_;
    const bool lower_triangular_;
    std::vector<std::int64_t> begin_;
    std::vector<float> storage_;
};

}  // namespace deltalens
