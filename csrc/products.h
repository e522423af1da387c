// A few rows times a block of panels, in one thread's buffers.

#pragma once

#include <vector>

#include "scan.h"

namespace deltalens {

class Products {
  public:
    Products(const Panels& panels, const Rows& rows, std::int64_t row_panels);

    // Rows first … last - 1, at most row_panels tiles of them, times the panels first_panel …
    // first_panel + panels - 1; valid until the next call.
    Block multiply(std::int64_t first_panel, std::int64_t panels, std::int64_t first,
                   std::int64_t last);

  private:
    void multiply_tile(std::int64_t panel, std::int64_t unit, std::int64_t end, bool add,
                       float* c) const;
    void load(std::int64_t first, std::int64_t last, std::int64_t unit, std::int64_t end);

    const Panels& panels_;
    const Rows rows_;
    const Kernels& kernels_;
    std::vector<float> tile_;      // [rows, block_depth]
    std::vector<float> products_;  // [row panels, panels, rows, 2 * lanes]
};

// Tiles of rows that a thread takes at a time: no more than `most`, and fewer where that leaves
// threads without work.
std::int64_t shared_row_panels(const Kernels& kernels, std::int64_t rows, int threads,
                               std::int64_t most);

}  // namespace deltalens
