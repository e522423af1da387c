#include "products.h"

#include <algorithm>
#include <cstring>

namespace deltalens {

namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

const void* address(const Rows& rows, std::int64_t row, std::int64_t first) {
    const std::int64_t offset = row * rows.stride + first;
    if (rows.dtype == DType::f32) {
        return static_cast<const float*>(rows.data) + offset;
    }
    return static_cast<const std::uint16_t*>(rows.data) + offset;
}

}  // namespace

Products::Products(const Panels& panels, const Rows& rows, std::int64_t row_panels)
    : panels_(panels),
      rows_(rows),
      kernels_(panels.kernels()),
      tile_(static_cast<std::size_t>(kernels_.rows * block_depth)),
      products_(static_cast<std::size_t>(row_panels * kernels_.rows * block_columns)) {}

Block Products::multiply(std::int64_t first_panel, std::int64_t panels, std::int64_t first,
                         std::int64_t last) {
    const Block block{kernels_, first_panel, panels, products_.data()};
    const std::int64_t top = panels_.first_unit(first_panel) / block_depth * block_depth;
    for (std::int64_t unit = top; unit < panels_.units(); unit += block_depth) {
        const std::int64_t end = std::min(unit + block_depth, panels_.units());
        float* c = products_.data();
        for (std::int64_t row = first; row < last; row += kernels_.rows) {
            load(row, std::min(row + kernels_.rows, last), unit, end);
            for (std::int64_t j = 0; j < panels; ++j, c += block.stride()) {
                multiply_tile(first_panel + j, unit, end, unit > top, c);
            }
        }
    }
    return block;
}

void Products::multiply_tile(std::int64_t panel, std::int64_t unit, std::int64_t end, bool add,
                             float* c) const {
    const std::int64_t begin = std::max(unit, panels_.first_unit(panel));
    kernels_.multiply(tile_.data() + (begin - unit), panels_.row(panel, begin), end - begin, add,
                      c);
}

// Units unit … end - 1 of rows first … last - 1 into tile_.
void Products::load(std::int64_t first, std::int64_t last, std::int64_t unit, std::int64_t end) {
    const std::int64_t per_unit = kernels_.numbers_per_unit;
    const std::int64_t numbers = std::min(end * per_unit, panels_.depth()) - unit * per_unit;
    for (std::int64_t row = first; row < last; ++row) {
        float* to = tile_.data() + (row - first) * block_depth;
        if (per_unit == 1) {
            widen(kernels_, rows_, row, unit, numbers, to);
        } else {
            to[end - unit - 1] = 0.0f;
            std::memcpy(to, address(rows_, row, 2 * unit),
                        static_cast<std::size_t>(numbers) * sizeof(std::uint16_t));
        }
    }
}

std::int64_t shared_row_panels(const Kernels& kernels, std::int64_t rows, int threads,
                               std::int64_t most) {
    return std::clamp<std::int64_t>(ceil_div(ceil_div(rows, kernels.rows), 4 * threads), 1, most);
}

void widen(const Kernels& kernels, const Rows& rows, std::int64_t row, std::int64_t first,
           std::int64_t n, float* out) {
    const void* from = address(rows, row, first);
    if (rows.dtype == DType::f32) {
        std::memcpy(out, from, static_cast<std::size_t>(n) * sizeof(float));
    } else if (rows.dtype == DType::bf16) {
        kernels.widen_bf16(static_cast<const std::uint16_t*>(from), n, out);
    } else {
        kernels.widen_f16(static_cast<const std::uint16_t*>(from), n, out);
    }
}

}  // namespace deltalens
