// SPDX-License-Identifier: BSD-3-Clause
// The two parallel loops of the kernels. Tasks are independent and their results do not depend on
// who runs them, so dynamic scheduling keeps the output deterministic.
#pragma once

#include <cstdint>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "simd.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// body(task, thread) for every task; thread < threads owns its share of any scratch.
template <class Body>
FM_INLINE void parallel_tasks(int threads, int64_t tasks, const Body& body) {
#if defined(_OPENMP)
  if (threads > 1 && tasks > 1) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int64_t task = 0; task < tasks; ++task) body(task, omp_get_thread_num());
    return;
  }
#endif
  for (int64_t task = 0; task < tasks; ++task) body(task, 0);
}

// body(begin, end, thread) over ranges of at most `grain` rows.
template <class Body>
FM_INLINE void parallel_ranges(int threads, int64_t rows, int64_t grain, const Body& body) {
  const int64_t ranges = (rows + grain - 1) / grain;
  parallel_tasks(threads, ranges, [&](int64_t range, int thread) {
    const int64_t begin = range * grain;
    body(begin, begin + grain < rows ? begin + grain : rows, thread);
  });
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
