#include "topk.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace deltalens {

namespace {

constexpr std::size_t block_size = 512;
constexpr std::size_t least_slack = 1024;

// The largest Score not above value, so that "below the floor" implies "below value".
template <class Score>
Score floor_as(double value) {
    const Score rounded = static_cast<Score>(value);
    return rounded > value ? std::nextafter(rounded, -std::numeric_limits<Score>::infinity())
                           : rounded;
}

// Written without a branch so that compilers turn it into vector compares; NaN counts as reaching.
template <class Score>
bool any_reaches(const Score* scores, std::size_t n, Score floor) {
    int reached = 0;
    for (std::size_t j = 0; j < n; ++j) {
        reached |= !(scores[j] < floor);
    }
    return reached != 0;
}

}  // namespace

StreamingTopK::StreamingTopK(std::size_t k) : k_(k), capacity_(k + std::max(k, least_slack)) {
    if (k == 0) {
        throw std::invalid_argument("k must be at least 1");
    }
}

template <class Score>
void StreamingTopK::push(const Score* scores, std::size_t n, std::int64_t first_latent) {
    constexpr auto end_of_latents = std::numeric_limits<std::int64_t>::max();
    if (first_latent < 0 || n > static_cast<std::size_t>(end_of_latents - first_latent)) {
        throw std::invalid_argument("latents must lie in 0 ... 2^63 - 2");
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    for (std::size_t begin = 0; begin < n; begin += block_size) {
        const std::size_t size = std::min(block_size, n - begin);
        if (any_reaches(scores + begin, size, floor_as<Score>(cutoff_.score))) {
            scan_block(scores + begin, size, first_latent + static_cast<std::int64_t>(begin));
        }
    }
}

template <class Score>
void StreamingTopK::scan_block(const Score* scores, std::size_t n, std::int64_t first_latent) {
    for (std::size_t j = 0; j < n; ++j) {
        if (std::isnan(scores[j])) {
            ++nan_count_;
        } else {
            admit({static_cast<double>(scores[j]), first_latent + static_cast<std::int64_t>(j)});
        }
    }
}

void StreamingTopK::admit(const Entry& entry) {
    if (!ranks_before(entry, cutoff_)) {
        return;
    }
    entries_.push_back(entry);
    if (entries_.size() >= capacity_) {
        keep_best();
    }
}

void StreamingTopK::keep_best() {
    if (entries_.size() < k_) {
        return;
    }
    const auto kth = entries_.begin() + static_cast<std::ptrdiff_t>(k_ - 1);
    std::nth_element(entries_.begin(), kth, entries_.end(), ranks_before);
    cutoff_ = *kth;
    entries_.resize(k_);
}

void StreamingTopK::merge(const StreamingTopK& other) {
    if (&other == this || other.k_ < k_) {
        throw std::invalid_argument("only another ranking of at least the same k can be merged");
    }
    const std::scoped_lock lock(mutex_, other.mutex_);
    for (const Entry& entry : other.entries_) {
        admit(entry);
    }
    nan_count_ += other.nan_count_;
}

std::vector<Entry> StreamingTopK::result() {
    const std::lock_guard<std::mutex> lock(mutex_);
    keep_best();
    std::vector<Entry> ranked = entries_;
    std::sort(ranked.begin(), ranked.end(), ranks_before);
    return ranked;
}

double StreamingTopK::threshold() {
    const std::lock_guard<std::mutex> lock(mutex_);
    keep_best();
    return cutoff_.score;
}

std::size_t StreamingTopK::nan_count() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return nan_count_;
}

template void StreamingTopK::push(const float*, std::size_t, std::int64_t);
template void StreamingTopK::push(const double*, std::size_t, std::int64_t);

}  // namespace deltalens
