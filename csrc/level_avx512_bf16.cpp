#include "kernels.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

#include <immintrin.h>

#include <cmath>
#include <cstring>

#pragma GCC target("avx512bf16,avx512f,avx2,fma,f16c,prefer-vector-width=512")

#include "tile.h"

namespace deltalens {

namespace {

struct Avx512Bf16 {
    using Vector = __m512;
    static constexpr std::int64_t rows = 14, lanes = 16, numbers_per_unit = 2;

    static Vector zero() { return _mm512_setzero_ps(); }
    static Vector load(const float* from) { return _mm512_loadu_ps(from); }
    static Vector broadcast(const float* from) { return _mm512_set1_ps(*from); }
    static void prefetch(const float* at) { _mm_prefetch(at, _MM_HINT_T1); }
    static Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
    static Vector multiply_add(Vector a, Vector b, Vector c) {
        return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b);
    }
    static void store(float* to, Vector value) { _mm512_storeu_ps(to, value); }
    static Vector widen_f16(const std::uint16_t* from) {
        // The masked form: some compilers warn of the plain one's undefined operand.
        return _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    }
};

}  // namespace

const Kernels* avx512_bf16_kernels() {
    static constexpr Kernels kernels = Tile<Avx512Bf16>::kernels();
    return &kernels;
}

}  // namespace deltalens

#else

const deltalens::Kernels* deltalens::avx512_bf16_kernels() { return nullptr; }

#endif
