#include "kernels.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

#include <immintrin.h>

#include <cmath>
#include <cstring>

#pragma GCC target("avx2,fma,f16c")

#include "tile.h"

namespace deltalens {

namespace {

struct Avx2 {
    using Vector = __m256;
    static constexpr std::int64_t rows = 6, lanes = 8, numbers_per_unit = 1;

    static Vector zero() { return _mm256_setzero_ps(); }
    static Vector load(const float* from) { return _mm256_loadu_ps(from); }
    static Vector broadcast(const float* from) { return _mm256_set1_ps(*from); }
    static void prefetch(const float* at) { _mm_prefetch(at, _MM_HINT_T1); }
    static Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
    static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
    static void store(float* to, Vector value) { _mm256_storeu_ps(to, value); }
    static Vector widen_f16(const std::uint16_t* from) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    }
};

}  // namespace

const Kernels* avx2_kernels() {
    static constexpr Kernels kernels = Tile<Avx2>::kernels();
    return &kernels;
}

}  // namespace deltalens

#else

const deltalens::Kernels* deltalens::avx2_kernels() { return nullptr; }

#endif
