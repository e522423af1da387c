#include "outer.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

#include <immintrin.h>

#pragma GCC target("avx2,fma")

#include "outer_tile.h"

namespace deltalens {

namespace {

struct Avx2Doubles {
    using Vector = __m256d;
    static constexpr std::int64_t rows = 6, lanes = 4;

    static Vector load(const double* from) { return _mm256_loadu_pd(from); }
    static Vector broadcast(const double* from) { return _mm256_set1_pd(*from); }
    static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_pd(a, b, c); }
    static void store(double* to, Vector value) { _mm256_storeu_pd(to, value); }
};

}  // namespace

const OuterKernel* avx2_outer() {
    static constexpr OuterKernel kernel = OuterTile<Avx2Doubles>::kernel();
    return &kernel;
}

}  // namespace deltalens

#else

const deltalens::OuterKernel* deltalens::avx2_outer() { return nullptr; }

#endif
