#include "outer_tile.h"

namespace deltalens {

namespace {

struct PortableDoubles {
    static constexpr std::int64_t rows = 4, lanes = 2;
    struct Vector {
        double value[lanes];
    };

    static Vector load(const double* from) { return {{from[0], from[1]}}; }
    static Vector broadcast(const double* from) { return {{*from, *from}}; }
    static Vector multiply_add(Vector a, Vector b, Vector c) {
        for (std::int64_t j = 0; j < lanes; ++j) c.value[j] += a.value[j] * b.value[j];
        return c;
    }
    static void store(double* to, Vector from) {
        for (std::int64_t j = 0; j < lanes; ++j) to[j] = from.value[j];
    }
};

}  // namespace

const OuterKernel* portable_outer() {
    static constexpr OuterKernel kernel = OuterTile<PortableDoubles>::kernel();
    return &kernel;
}

}  // namespace deltalens
