// Attribution through a latent's own activation: two matrices, a row of each per latent.

#pragma once

#include <functional>
#include <vector>

#include "panels.h"
#include "scan.h"

namespace deltalens {

// Reductions over tokens of (x_t · d_i)(z_{t,i} − mean_i), where z depends on u = y_t · e_i as Gate
// says, for token rows x_t, y_t [depth]; in fp64 from fp32 products.
class LatentForm {
  public:
    LatentForm(const Kernels& kernels, std::int64_t tokens, std::int64_t depth,
               Reduction reduction);

    // Sets tokens first … first + n - 1 from rows x, y [n, depth] and norms [n].
    void set(std::int64_t first, std::int64_t n, const float* x, const float* y,
             const double* x_norms, const double* y_norms);

    // totals [n], and unless null errors [n], of latents i = 0 … n - 1 with rows dec, enc and
    // gates[i]; thresholds [tokens] or null. False when stopped.
    bool scan(const Rows& dec, const Rows& enc, const Gate* gates, const double* thresholds,
              int threads, const std::function<bool()>& poll, double* totals,
              double* errors) const;

    std::int64_t tokens() const { return tokens_; }
    std::int64_t depth() const { return x_.depth(); }

  private:
    std::int64_t width() const { return x_.width(); }
    void fill(std::int64_t column, std::int64_t n, const float* x, const float* y,
              const double* x_norms, const double* y_norms);

    const std::int64_t tokens_;
    const Reduction reduction_;
    Panels x_, y_;  // a panel: 2 * lanes tokens
    std::vector<double> x_norms_, y_norms_;  // [panels, 2 * lanes]
};

}  // namespace deltalens
