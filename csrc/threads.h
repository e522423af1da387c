// Work shared by a few threads for the duration of one call.

#pragma once

#include <cstdint>
#include <functional>

namespace deltalens {

using Stopped = std::function<bool()>;

// Runs work on the calling thread and on up to threads - 1 others, and returns when all are done:
// work takes shares until there are none or `stopped` says so. Only the calling thread's `stopped`
// calls poll, whose first true stops all. False when stopped.
bool on_threads(std::int64_t threads, const std::function<bool()>& poll,
                const std::function<void(const Stopped&)>& work);

}  // namespace deltalens
