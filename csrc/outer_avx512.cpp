#include "outer.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

#include <immintrin.h>

#pragma GCC target("avx512f,avx2,fma,prefer-vector-width=512")

#include "outer_tile.h"

namespace deltalens {

namespace {

struct Avx512Doubles {
    using Vector = __m512d;
    static constexpr std::int64_t rows = 14, lanes = 8;

    static Vector load(const double* from) { return _mm512_loadu_pd(from); }
    static Vector broadcast(const double* from) { return _mm512_set1_pd(*from); }
    static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm512_fmadd_pd(a, b, c); }
    static void store(double* to, Vector value) { _mm512_storeu_pd(to, value); }
};

}  // namespace

const OuterKernel* avx512_outer() {
    static constexpr OuterKernel kernel = OuterTile<Avx512Doubles>::kernel();
    return &kernel;
}

}  // namespace deltalens

#else

const deltalens::OuterKernel* deltalens::avx512_outer() { return nullptr; }

#endif
