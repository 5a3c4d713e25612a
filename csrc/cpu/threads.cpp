// SPDX-License-Identifier: BSD-3-Clause
#include "threads.h"

#include <atomic>

#if defined(FLASHMETRIC_OPENMP)
#include <omp.h>
#if !defined(_WIN32)
#include <pthread.h>
#endif
#endif

namespace flashmetric::cpu {

#if defined(FLASHMETRIC_OPENMP)

namespace {

// A problem of fewer multiply-adds than this runs serially: at about 50 per ns and thread it takes
// 20 us, where waking a sleeping worker costs 5 to 50 us.
constexpr double kSerialWork = 1 << 20;

std::atomic<bool> in_forked_child{false};

#if !defined(_WIN32)
[[maybe_unused]] const int registered =
    pthread_atfork(nullptr, nullptr, [] { in_forked_child.store(true); });
#endif

}  // namespace

int threads_for(double work, int requested) {
  if (work < kSerialWork || requested <= 1 || in_forked_child.load() || omp_in_parallel() != 0)
    return 1;
  return requested;
}

#else

int threads_for(double, int) { return 1; }

#endif

}  // namespace flashmetric::cpu
