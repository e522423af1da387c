// Prints the rates, in operations a second, at which this machine multiplies and adds in registers:
// fp32 FMA of the widest vectors it has, then products of bf16 pairs (0 where it has none).
// Arguments: threads, seconds.

#include <immintrin.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

constexpr int chains = 12;  // independent sums: enough to hide the latency of two units
constexpr int steps = 4096;

#pragma GCC push_options
#pragma GCC target("avx2,fma")
float avx2_steps(float seed) {
    __m256 sums[chains], factor = _mm256_set1_ps(seed), other = _mm256_set1_ps(1e-6f);
    for (auto& sum : sums) sum = factor;
    for (int i = 0; i < steps; ++i) {
#pragma GCC unroll 12
        for (auto& sum : sums) sum = _mm256_fmadd_ps(sum, factor, other);
        asm volatile("" : "+x"(factor), "+x"(other));
    }
    for (int i = 1; i < chains; ++i) sums[0] = _mm256_add_ps(sums[0], sums[i]);
    return _mm256_cvtss_f32(sums[0]);
}
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f")
float avx512_steps(float seed) {
    __m512 sums[chains], factor = _mm512_set1_ps(seed), other = _mm512_set1_ps(1e-6f);
    for (auto& sum : sums) sum = factor;
    for (int i = 0; i < steps; ++i) {
#pragma GCC unroll 12
        for (auto& sum : sums) sum = _mm512_fmadd_ps(sum, factor, other);
        asm volatile("" : "+v"(factor), "+v"(other));
    }
    for (int i = 1; i < chains; ++i) sums[0] = _mm512_add_ps(sums[0], sums[i]);
    return _mm512_cvtss_f32(sums[0]);
}
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bf16")
float bf16_steps(float seed) {
    __m512 sums[chains], factor = _mm512_set1_ps(seed);
    __m512bh pairs = (__m512bh)factor;
    for (auto& sum : sums) sum = factor;
    for (int i = 0; i < steps; ++i) {
#pragma GCC unroll 12
        for (auto& sum : sums) sum = _mm512_dpbf16_ps(sum, pairs, pairs);
        asm volatile("" : "+v"(pairs));
    }
    for (int i = 1; i < chains; ++i) sums[0] = _mm512_add_ps(sums[0], sums[i]);
    return _mm512_cvtss_f32(sums[0]);
}
#pragma GCC pop_options

double rate(float (*run)(float), double operations, int threads, double seconds) {
    std::vector<double> rates(static_cast<std::size_t>(threads));
    std::vector<std::thread> workers;
    for (auto& found : rates) {
        workers.emplace_back([&found, run, operations, seconds] {
            using Clock = std::chrono::steady_clock;
            const auto start = Clock::now();
            volatile float sink = 0.0f;
            std::int64_t calls = 0;
            double taken = 0.0;
            do {
                for (int i = 0; i < 16; ++i, ++calls) sink = run(1e-3f);
                taken = std::chrono::duration<double>(Clock::now() - start).count();
            } while (taken < seconds);
            found = static_cast<double>(calls) * operations / taken;
        });
    }
    for (auto& worker : workers) worker.join();
    double total = 0.0;
    for (double found : rates) total += found;
    return total;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) return 2;
    const int threads = std::atoi(argv[1]);
    const double seconds = std::atof(argv[2]);
    const bool wide = __builtin_cpu_supports("avx512f");
    const double vectors = static_cast<double>(chains) * steps;
    const double fp32 = wide ? rate(avx512_steps, vectors * 32, threads, seconds)
                             : rate(avx2_steps, vectors * 16, threads, seconds);
    const double bf16 = wide && __builtin_cpu_supports("avx512bf16")
                            ? rate(bf16_steps, vectors * 64, threads, seconds)
                            : 0.0;
    std::printf("%.6g %.6g\n", fp32, bf16);
}
