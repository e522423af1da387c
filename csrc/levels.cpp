#include <algorithm>
#include <stdexcept>

#include "kernels.h"

namespace deltalens {

namespace {

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
bool runs_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("f16c");
}
bool runs_avx512() { return runs_avx2() && __builtin_cpu_supports("avx512f"); }
bool runs_avx512_bf16() { return runs_avx512() && __builtin_cpu_supports("avx512bf16"); }
#else
bool runs_avx2() { return false; }
bool runs_avx512() { return false; }
bool runs_avx512_bf16() { return false; }
#endif

}  // namespace

std::vector<std::string> available_levels() {
    std::vector<std::string> levels;
    if (runs_avx512_bf16()) levels.emplace_back("avx512_bf16");
    if (runs_avx512()) levels.emplace_back("avx512");
    if (runs_avx2()) levels.emplace_back("avx2");
    levels.emplace_back("portable");
    return levels;
}

const Kernels* kernels_of(const std::string& level, bool bf16_pairs) {
    const std::vector<std::string> levels = available_levels();
    if (std::find(levels.begin(), levels.end(), level) == levels.end()) {
        throw std::invalid_argument("this machine has no level " + level);
    }
    if (bf16_pairs) {
        return level == "avx512_bf16" ? avx512_bf16_kernels() : nullptr;
    }
    if (level == "portable") {
        return portable_kernels();
    }
    return level == "avx2" ? avx2_kernels() : avx512_kernels();
}

}  // namespace deltalens
