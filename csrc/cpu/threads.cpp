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

std::atomic<bool> in_forked_child{false};

#if !defined(_WIN32)
[[maybe_unused]] const int registered =
    pthread_atfork(nullptr, nullptr, [] { in_forked_child.store(true); });
#endif

}  // namespace

int usable_threads(int requested) {
  if (requested <= 1 || in_forked_child.load() || omp_in_parallel() != 0) return 1;
  return requested;
}

#else

int usable_threads(int) { return 1; }

#endif

}  // namespace flashmetric::cpu
