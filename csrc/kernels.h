// What the scans need of one level of vector instructions, as a table of functions.
//
// Matrix products run over units of four bytes: one fp32 number, or two consecutive bf16 numbers
// where the level multiplies those in pairs. A tile is `rows` decoder rows by 2 * `lanes` columns.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace deltalens {

enum class DType { f32, bf16, f16 };

constexpr std::int64_t block_depth = 256;    // units a tile sums before the sum is added to others
constexpr std::int64_t block_columns = 256;  // columns multiplied before their products are reduced

// How the products x_t·y_t of a row are put together over tokens.
enum class Reduction { sum, abs, positive, max };

// What opens a latent, and how its products err: by slope · a token's norm.
struct Gate {
    double scale, bias, cut, mean;
    double x_slope, u_slope;
    double rounding;  // relative, of adding up terms
};

// What the terms of a latent need of each token of a block of panels, [panels, 2 * lanes] each.
struct GateTokens {
    const double* thresholds;  // of the latent's group; null for none
    const double *x_norms, *u_norms;
};

struct Kernels {
    std::int64_t rows;
    std::int64_t lanes;
    std::int64_t numbers_per_unit;  // 1: fp32; 2: pairs of bf16

    // c [rows, 2 * lanes] = a · b, or += with `add`; a [rows, block_depth] of which the first
    // `depth` units count, b [depth, 2 * lanes].
    void (*multiply)(const float* a, const float* b, std::int64_t depth, bool add, float* c);

    // out[i] = in[i] as fp32, n numbers.
    void (*widen_bf16)(const std::uint16_t* in, std::int64_t n, float* out);
    void (*widen_f16)(const std::uint16_t* in, std::int64_t n, float* out);

    // For each Reduction, with x the first and y the second half of each of `panels` rows of
    // 2 * lanes numbers, `stride` apart: the reduction of x·y, and, unless slopes is null, that of
    // slopes·|x| + slopes·|y| (slopes [panels, 2 * lanes]): its maximum for max, otherwise its sum.
    // Products of fp32 numbers are exact in fp64. NaN stays NaN.
    using Reduce = double (*)(const float* c, std::int64_t stride, std::int64_t panels,
                              const double* slopes, double& sloped);
    Reduce reduce_products[4];

    // For each Reduction of a latent's terms x·(z − mean), x and u `panels` rows of 2 * lanes
    // numbers, `stride` apart: with p = scale·u + bias, z is max(p, 0) where u > cut and p exceeds
    // the token's threshold, 0 elsewhere. Unless error is null, a bound on what the errors of x, u
    // and p do to the terms is added to it.
    using ReduceLatent = double (*)(const float* x, const float* u, std::int64_t stride,
                                    std::int64_t panels, const Gate& gate,
                                    const GateTokens& tokens, double* error);
    ReduceLatent reduce_latent[4];

    // p [2 * lanes] = scale·u + bias of one panel, and whether any exceeds its threshold.
    bool (*exceeds)(const float* u, float scale, float bias, const float* thresholds, float* p);

    // Σ c·row over the same layout; row [panels, 2 * lanes].
    double (*dot)(const float* c, std::int64_t stride, std::int64_t panels, const float* row);
};

// Levels this machine can run, the fastest first: of avx512_bf16, avx512, avx2, portable.
std::vector<std::string> available_levels();

// The kernels of an available level, std::invalid_argument for any other. Null when products of
// bf16 pairs are asked for and the level has none.
const Kernels* kernels_of(const std::string& level, bool bf16_pairs);

const Kernels* portable_kernels();
const Kernels* avx2_kernels();         // null where the compiler cannot make them, as below
const Kernels* avx512_kernels();
const Kernels* avx512_bf16_kernels();  // of pairs

}  // namespace deltalens
