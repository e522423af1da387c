// The two forms of the attribution of decoder rows d_i, each over panels packed once.

#pragma once

#include <functional>
#include <string>
#include <vector>

#include "scan.h"

namespace deltalens {

// Σ_t (x_t · d_i)(y_t · d_i) for token rows x_t, y_t [depth], in fp64 from fp32 products.
class TokenForm {
  public:
    TokenForm(const Kernels& kernels, std::int64_t tokens, std::int64_t depth);

    // Sets tokens first … first + n - 1 from rows x, y [n, depth] and their slopes [n]; first must
    // be a multiple of lanes, and n too unless these are the last.
    void set(std::int64_t first, std::int64_t n, const float* x, const float* y,
             const double* x_slopes, const double* y_slopes);

    // sums [rows.n], and unless null slope_sums [rows.n]: Σ_t y_slope_t |x_t·d_i| +
    // x_slope_t |y_t·d_i|. False when stopped.
    bool scan(const Rows& rows, int threads, const std::function<bool()>& poll, double* sums,
              double* slope_sums) const;

    std::int64_t lanes() const { return panels_.kernels().lanes; }
    std::int64_t tokens() const { return tokens_; }
    std::int64_t depth() const { return panels_.depth(); }

  private:
    const std::int64_t tokens_;
    Panels panels_;               // a panel: x of `lanes` tokens, then y of the same tokens
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
