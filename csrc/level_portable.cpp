#include <cmath>
#include <cstring>
#include <limits>

#include "tile.h"

namespace deltalens {

namespace {

float widened(std::uint16_t half) {
    const int exponent = (half >> 10) & 31;
    const int fraction = half & 1023;
    float magnitude = 0.0f;
    if (exponent == 31) {
        magnitude = fraction == 0 ? std::numeric_limits<float>::infinity()
                                  : std::numeric_limits<float>::quiet_NaN();
    } else if (exponent == 0) {
        magnitude = std::ldexp(static_cast<float>(fraction), -24);
    } else {
        magnitude = std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
    }
    return (half & 0x8000) != 0 ? -magnitude : magnitude;
}

struct Portable {
    static constexpr std::int64_t rows = 4, lanes = 4, numbers_per_unit = 1;
    struct Vector {
        float value[lanes];
    };

    static Vector zero() { return {}; }
    static Vector load(const float* from) {
        Vector result;
        std::memcpy(result.value, from, sizeof result.value);
        return result;
    }
    static Vector broadcast(const float* from) { return {{*from, *from, *from, *from}}; }
    static void prefetch(const float*) {}
    static Vector add(Vector a, Vector b) {
        for (std::int64_t j = 0; j < lanes; ++j) a.value[j] += b.value[j];
        return a;
    }
    static Vector multiply_add(Vector a, Vector b, Vector c) {
        for (std::int64_t j = 0; j < lanes; ++j) c.value[j] += a.value[j] * b.value[j];
        return c;
    }
    static void store(float* to, Vector from) { std::memcpy(to, from.value, sizeof from.value); }
    static Vector widen_f16(const std::uint16_t* from) {
        return {{widened(from[0]), widened(from[1]), widened(from[2]), widened(from[3])}};
    }
};

}  // namespace

const Kernels* portable_kernels() {
    static constexpr Kernels kernels = Tile<Portable>::kernels();
    return &kernels;
}

}  // namespace deltalens
