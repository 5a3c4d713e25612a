// SPDX-License-Identifier: BSD-3-Clause
// What the threads of a warp or of a block do together, whatever it is about.
#pragma once

#include "keys.cuh"

namespace flashmetric::cuda {

constexpr int kWarp = 32;

// Of a thread: its place in the warp, and that of the warp in the block.
__device__ inline int lane_of() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ inline int warp_of() { return static_cast<int>(threadIdx.x) / kWarp; }

// The sum over the lanes up to this one. All lanes come.
template <class Number>
__device__ Number sum_through_lane(Number own) {
  for (int step = 1; step < kWarp; step *= 2) {
    const Number left = __shfl_up_sync(kAllLanes, own, step);
    if (lane_of() >= step) own += left;
  }
  return own;
}

// Sorts n things by a block: order(a, b) with a < b exchanges those at a and b if they are in the
// wrong order. Batcher's bitonic network with the first step of each merge mirrored: all steps
// bring the smaller to the front, so that what is missing behind the last counts as larger and
// never moves.
template <int threads, class Order>
__device__ void sort_in_block(int64_t n, const Order& order) {
  for (int64_t run = 2; run / 2 < n; run *= 2) {
    for (int64_t step = run / 2; step > 0; step /= 2) {
      // Both are powers of two: bits do what divisions by them would take long for.
      for (int64_t pair = threadIdx.x; (pair & -step) * 2 < n; pair += threads) {
        const int64_t low = (pair & -step) * 2 + (pair & (step - 1));
        const int64_t high = step == run / 2 ? low ^ (run - 1) : low + step;
        if (high < n) order(low, high);
      }
      __syncthreads();
    }
  }
}

}  // namespace flashmetric::cuda
