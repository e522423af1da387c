// The two forms of the attribution of decoder rows d_i, each over panels packed once.

#pragma once

#include <functional>
#include <string>
#include <vector>

#include "scan.h"

namespace deltalens {

// Reductions over tokens of (x_t · d_i)(y_t · d_i) for token rows x_t, y_t [depth], in fp64 from
// fp32 products.
class TokenForm {
  public:
    // offsets: where segments of tokens begin, and where the last ends. Each starts a panel.
    TokenForm(const Kernels& kernels, std::vector<std::int64_t> offsets, std::int64_t depth,
              Reduction reduction);

    // Sets tokens first … first + n - 1 from rows x, y [n, depth] and their slopes [n].
    void set(std::int64_t first, std::int64_t n, const float* x, const float* y,
             const double* x_slopes, const double* y_slopes);

    // totals [rows.n], and unless null sloped [rows.n]: the sum, or for a maximum the maximum, of
    // y_slope_t |x_t·d_i| + x_slope_t |y_t·d_i|. False when stopped.
    bool scan(const Rows& rows, int threads, const std::function<bool()>& poll, double* totals,
              double* sloped) const;

    // Mean and sum of squared deviations [rows.n] of the totals of segments. False when stopped.
    bool statistics(const Rows& rows, int threads, const std::function<bool()>& poll,
                    double* means, double* spreads) const;

    std::int64_t tokens() const { return first_tokens_.back(); }
    std::int64_t depth() const { return panels_.depth(); }

  private:
    void set_panel(std::int64_t panel, std::int64_t first, std::int64_t n, const float* x,
                   const float* y, const double* x_slopes, const double* y_slopes);

    const Reduction reduction_;
    std::vector<std::int64_t> first_tokens_;  // [panels + 1]
    std::vector<std::int64_t> segments_;      // [panels], which one each panel belongs to
    Panels panels_;               // a panel: x of up to `lanes` tokens, then y of the same tokens
    std::vector<double> slopes_;  // [panels, 2 * lanes], what |x| and |y| are multiplied with
};

// d_iᵀ S d_i for symmetric S [depth, depth] of which only the lower triangle is read.
class QuadraticForm {
  public:
    QuadraticForm(const Kernels& kernels, std::int64_t depth, const float* matrix);

    // False when stopped.
    bool scan(const Rows& rows, int threads, const std::function<bool()>& poll,
              double* sums) const;

    std::int64_t depth() const { return panels_.depth(); }

  private:
    Panels panels_;  // S below the diagonal twice, its diagonal once, above it zero
};

}  // namespace deltalens
