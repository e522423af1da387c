#include "threads.h"

#include <atomic>
#include <system_error>
#include <thread>
#include <vector>

namespace deltalens {

bool on_threads(std::int64_t threads, const std::function<bool()>& poll,
                const std::function<void(const Stopped&)>& work) {
    std::atomic<bool> stop{false};
    std::vector<std::thread> others;
    for (std::int64_t i = 1; i < threads; ++i) {
        try {
            others.emplace_back(work, [&] { return stop.load(std::memory_order_relaxed); });
        } catch (const std::system_error&) {
            break;  // no more threads to be had; those there are do the work
        }
    }
    work([&] {
        if (!stop && poll()) {
            stop = true;
        }
        return stop.load();
    });
    for (std::thread& thread : others) {
        thread.join();
    }
    return !stop;
}

}  // namespace deltalens
