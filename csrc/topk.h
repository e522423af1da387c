// The k best of a stream of scores, in memory O(k).
//
// Order: score descending, latent ascending among equal scores (-0.0 equals 0.0).
// NaN never enters the ranking and is counted; +inf and -inf are ordinary values.

#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <mutex>
#include <vector>

namespace deltalens {

struct Entry {
    double score;
    std::int64_t latent;
};

inline bool ranks_before(const Entry& a, const Entry& b) {
    return a.score > b.score || (a.score == b.score && a.latent < b.latent);
}

// Every latent is pushed at most once, in tiles of any size and order. Calls on one object are
// serialised; to use several threads give each its own object and merge them.
class StreamingTopK {
  public:
    explicit StreamingTopK(std::size_t k);  // std::invalid_argument when k is 0

    // scores[j] belongs to latent first_latent + j. std::invalid_argument when a latent would be
    // negative or overflow.
    template <class Score>
    void push(const Score* scores, std::size_t n, std::int64_t first_latent);

    // As if everything pushed to other had been pushed here. std::invalid_argument when other
    // keeps fewer than k entries, or is this object.
    void merge(const StreamingTopK& other);

    std::vector<Entry> result();   // min(k, pushed) entries in rank order
    double threshold();            // score of the k-th entry, -inf while there are fewer
    std::size_t nan_count() const;

  private:
    template <class Score>
    void scan_block(const Score* scores, std::size_t n, std::int64_t first_latent);
    void admit(const Entry& entry);
    void keep_best();

    const std::size_t k_;
    const std::size_t capacity_;
    std::vector<Entry> entries_;  // the k best so far are always among these
    Entry cutoff_{-std::numeric_limits<double>::infinity(),
                  std::numeric_limits<std::int64_t>::max()};  // what it ranks before is out
    std::size_t nan_count_ = 0;
    mutable std::mutex mutex_;
};

extern template void StreamingTopK::push(const float*, std::size_t, std::int64_t);
extern template void StreamingTopK::push(const double*, std::size_t, std::int64_t);

}  // namespace deltalens
