// Latents that compete for tokens: the largest of every token, kept as their products pass by.

#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "panels.h"
#include "scan.h"

namespace deltalens {

// The `keep` largest p_{t,i} = scale_i (y_t · e_i) + bias_i of each token t over latents i, in fp32;
// of equal ones those of smaller latents. NaN and -infinity win nothing.
class Winners {
  public:
    Winners(const Kernels& kernels, std::int64_t tokens, std::int64_t depth, std::int64_t keep,
            int threads);

    // Sets tokens first … first + n - 1 from rows y [n, depth].
    void set(std::int64_t first, std::int64_t n, const float* y);

    // Takes in latents first … with rows enc and numbers [enc.n]; they come in ascending order.
    // False when stopped.
    bool scan(const Rows& enc, const float* scale, const float* bias, std::int64_t first,
              const std::function<bool()>& poll);

    // values and latents [tokens, keep] in order, -infinity and -1 where there were fewer; then
    // nothing has been scanned.
    void take(float* values, std::int64_t* latents);

    std::int64_t tokens() const { return tokens_; }
    std::int64_t depth() const { return y_.depth(); }
    std::int64_t keep() const { return keep_; }

  private:
    struct Candidate {
        float value;
        std::int32_t latent;
        bool operator<(const Candidate& other) const {  // comes first
            return value != other.value ? value > other.value : latent < other.latent;
        }
    };

    void clear();
    void push(std::int64_t slot, float value, std::int64_t latent);
    void narrow(std::int64_t slot);

    const std::int64_t tokens_, keep_, room_;
    const int threads_;
    Panels y_;
    const std::int64_t blocks_;
    // A thread scans a range of the rows for a block of tokens, each range into slots of its own.
    const std::int64_t ranges_;
    std::vector<float> thresholds_;      // [ranges, padded tokens]
    std::vector<std::int32_t> counts_;   // as above
    std::vector<Candidate> candidates_;  // [ranges, padded tokens, room]
};

// out [n]: rows a[at_a[i]] · b[at_b[i]], products exact in fp64 and summed there.
void pair_dots(const Kernels& kernels, const Rows& a, const std::int64_t* at_a, const Rows& b,
               const std::int64_t* at_b, std::int64_t depth, std::int64_t n, int threads,
               double* out);

}  // namespace deltalens
