// The kernels over a level's vector operations. Included by each level's file after it has chosen
// its instructions; everything is local to that file, so that no function compiled for one level is
// ever linked into another.

#pragma once

#include <cmath>
#include <cstring>
#include <limits>

#include "kernels.h"

namespace deltalens {

namespace {

template <class Ops>
struct Tile {
    static constexpr std::int64_t rows = Ops::rows;
    static constexpr std::int64_t lanes = Ops::lanes;
    static constexpr std::int64_t width = 2 * lanes;
    using Vector = typename Ops::Vector;

    static void multiply(const float* a, const float* b, std::int64_t depth, bool add, float* c) {
        Vector left[rows], right[rows];
#pragma GCC unroll 16
        for (std::int64_t r = 0; r < rows; ++r) {
            left[r] = right[r] = Ops::zero();
        }
        for (std::int64_t k = 0; k < depth; ++k, b += width) {
            // Where the panel goes on, for the next slab.
            Ops::prefetch(b + block_depth * width);
            Ops::prefetch(b + block_depth * width + lanes);
            const Vector b_left = Ops::load(b), b_right = Ops::load(b + lanes);
#pragma GCC unroll 16
            for (std::int64_t r = 0; r < rows; ++r) {
                const Vector unit = Ops::broadcast(a + r * block_depth + k);
                left[r] = Ops::multiply_add(unit, b_left, left[r]);
                right[r] = Ops::multiply_add(unit, b_right, right[r]);
            }
        }
#pragma GCC unroll 16
        for (std::int64_t r = 0; r < rows; ++r, c += width) {
            Ops::store(c, add ? Ops::add(Ops::load(c), left[r]) : left[r]);
            Ops::store(c + lanes, add ? Ops::add(Ops::load(c + lanes), right[r]) : right[r]);
        }
    }

    static void widen_f16(const std::uint16_t* in, std::int64_t n, float* out) {
        for (; n >= lanes; n -= lanes, in += lanes, out += lanes) {
            Ops::store(out, Ops::widen_f16(in));
        }
        if (n > 0) {
            std::uint16_t rest[lanes] = {};
            float wide[lanes];
            for (std::int64_t i = 0; i < n; ++i) rest[i] = in[i];
            Ops::store(wide, Ops::widen_f16(rest));
            for (std::int64_t i = 0; i < n; ++i) out[i] = wide[i];
        }
    }

    static void widen_bf16(const std::uint16_t* in, std::int64_t n, float* out) {
        for (std::int64_t i = 0; i < n; ++i) {
            const std::uint32_t bits = static_cast<std::uint32_t>(in[i]) << 16;
            std::memcpy(out + i, &bits, sizeof bits);
        }
    }

    template <Reduction reduction>
    static double reduce_products(const float* c, std::int64_t stride, std::int64_t panels,
                                  const double* slopes, double& sloped) {
        double products[lanes], errors[lanes] = {};
        for (double& product : products) {
            product = reduction == Reduction::max ? -std::numeric_limits<double>::infinity() : 0.0;
        }
        for (std::int64_t p = 0; p < panels; ++p, c += stride) {
            for (std::int64_t j = 0; j < lanes; ++j) {
                include<reduction>(products[j], static_cast<double>(c[j]) *
                                                    static_cast<double>(c[j + lanes]));
            }
            if (slopes != nullptr) {
                for (std::int64_t j = 0; j < lanes; ++j) {
                    include<reduction>(errors[j],
                                       static_cast<double>(std::fabs(c[j])) * slopes[j] +
                                           static_cast<double>(std::fabs(c[j + lanes])) *
                                               slopes[j + lanes]);
                }
                slopes += width;
            }
        }
        constexpr Reduction over_lanes = reduction == Reduction::max ? reduction : Reduction::sum;
        for (std::int64_t j = 0; j < lanes; ++j) {
            include<over_lanes>(sloped, errors[j]);
        }
        double total = products[0];
        for (std::int64_t j = 1; j < lanes; ++j) {
            include<over_lanes>(total, products[j]);
        }
        return total;
    }

    template <Reduction reduction>
    static double reduce_latent(const float* x, const float* u, std::int64_t stride,
                                std::int64_t panels, const Gate& gate, const GateTokens& tokens,
                                double* error) {
        double totals[width], errors[width] = {};
        for (double& total : totals) {
            total = reduction == Reduction::max ? -std::numeric_limits<double>::infinity() : 0.0;
        }
        double open[width], thresholds[width];
        for (double& threshold : thresholds) {
            threshold = -std::numeric_limits<double>::infinity();
        }
        for (std::int64_t p = 0; p < panels; ++p, x += stride, u += stride) {
            if (tokens.thresholds != nullptr) {
                std::memcpy(thresholds, tokens.thresholds + p * width, sizeof thresholds);
            }
            activate(u, gate, thresholds, open);
            for (std::int64_t j = 0; j < width; ++j) {
                include<reduction>(totals[j],
                                   static_cast<double>(x[j]) * (open[j] - gate.mean));
            }
            if (error != nullptr) {
                add_errors(x, u, gate, thresholds, open, tokens.x_norms + p * width,
                           tokens.u_norms + p * width, errors);
            }
        }
        if (error != nullptr) {
            *error += sum(errors);
        }
        constexpr Reduction over_lanes = reduction == Reduction::max ? reduction : Reduction::sum;
        double total = totals[0];
        for (std::int64_t j = 1; j < width; ++j) {
            include<over_lanes>(total, totals[j]);
        }
        return total;
    }

    // z of one panel.
    static void activate(const float* u, const Gate& gate, const double* thresholds, double* z) {
        for (std::int64_t j = 0; j < width; ++j) {
            const double product = u[j], p = gate.scale * product + gate.bias;
            const bool passes = (product > gate.cut) & (p > thresholds[j]) & (p > 0.0);
            z[j] = passes ? p : 0.0;
        }
    }

    // (|x| + e_x)·e_z + |z − mean|·e_x + rounding, where an open latent's z is off by e_p, a closed
    // one's by nothing, and both by all of it where rounding may have decided which it is.
    static void add_errors(const float* x, const float* u, const Gate& gate,
                           const double* thresholds, const double* z, const double* x_norms,
                           const double* u_norms, double* errors) {
        for (std::int64_t j = 0; j < width; ++j) {
            const double product = u[j], p = gate.scale * product + gate.bias;
            const double e_u = gate.u_slope * u_norms[j], e_x = gate.x_slope * x_norms[j];
            const double e_p =
                gate.scale * e_u + 0x1p-50 * (std::fabs(p) + std::fabs(gate.bias));
            const bool unsure =
                (std::fabs(product - gate.cut) <= e_u) | (std::fabs(p - thresholds[j]) <= e_p);
            const bool open =
                unsure | ((product > gate.cut) & (p > thresholds[j]) & (p > -e_p));
            const double positive = p > 0.0 ? p : 0.0;
            const double e_z = open ? e_p + (unsure ? positive : 0.0) : 0.0;
            const double size = std::fabs(static_cast<double>(x[j]));
            errors[j] += (size + e_x) * e_z +
                         std::fabs(z[j] - gate.mean) * (e_x + gate.rounding * size);
        }
    }

    template <Reduction reduction>
    static void include(double& total, double value) {
        if (reduction == Reduction::max) {
            total = ((value > total) | (value != value)) ? value : total;
        } else if (reduction == Reduction::abs) {
            total += std::fabs(value);
        } else if (reduction == Reduction::positive) {
            total += value < 0.0 ? 0.0 : value;
        } else {
            total += value;
        }
    }

    static bool exceeds(const float* u, float scale, float bias, const float* thresholds,
                        float* p) {
        unsigned any = 0;
        for (std::int64_t j = 0; j < width; ++j) {
            p[j] = scale * u[j] + bias;
            any |= static_cast<unsigned>(p[j] > thresholds[j]);
        }
        return any != 0;
    }

    static double dot(const float* c, std::int64_t stride, std::int64_t panels, const float* row) {
        double products[width] = {};
        for (std::int64_t p = 0; p < panels; ++p, c += stride, row += width) {
            for (std::int64_t j = 0; j < width; ++j) {
                products[j] += static_cast<double>(c[j]) * static_cast<double>(row[j]);
            }
        }
        return sum(products);
    }

    template <std::size_t n>
    static double sum(const double (&values)[n]) {
        double total = 0.0;
        for (const double value : values) {
            total += value;
        }
        return total;
    }

    static constexpr Kernels kernels() {
        return {rows,
                lanes,
                Ops::numbers_per_unit,
                multiply,
                widen_bf16,
                widen_f16,
                {reduce_products<Reduction::sum>, reduce_products<Reduction::abs>,
                 reduce_products<Reduction::positive>, reduce_products<Reduction::max>},
                {reduce_latent<Reduction::sum>, reduce_latent<Reduction::abs>,
                 reduce_latent<Reduction::positive>, reduce_latent<Reduction::max>},
                exceeds,
                dot};
    }
};

}  // namespace

}  // namespace deltalens
