// SPDX-License-Identifier: BSD-3-Clause
// What the block that judges a row shares, and its sums.
#pragma once

#include "dense_state.cuh"

namespace flashmetric::cuda {

// What the threads of a block share.
struct RowShared {
  double sums[kRowWarps][16];
  int32_t n_positive, n_negative;
  int32_t n_live;   // coefficients
  int32_t nan_row;  // of semi-hard rows: the first negative whose key is NaN
};

// A float64 sum of a thread loses nothing that float32 distances know.
struct PlainSum {
  double sum = 0;
  __device__ void add(double x) { sum += x; }
  __device__ operator ExactSum() const { return {sum, 0}; }
};

template <class H>
using ThreadSum = std::conditional_t<kWide<H>, ExactSum, PlainSum>;

// The sums over the block, in a fixed tree; all threads have them.
template <int n>
__device__ void sum_block(ExactSum (&own)[n], RowShared& shared) {
  static_assert(2 * n <= 16);
  bool some = false;
#pragma unroll
  for (int v = 0; v < n; ++v) some = some || own[v].sum != 0 || own[v].lost != 0;
  // Where most terms are 0, most warps have none.
  for (int mask = __any_sync(kAllLanes, some) ? 1 : kWarp; mask < kWarp; mask *= 2) {
#pragma unroll
    for (int v = 0; v < n; ++v) own[v].add(from_lane(own[v], mask));
  }
#pragma unroll
  for (int v = 0; v < n; ++v) {
    if (lane_of() == 0) shared.sums[warp_of()][2 * v] = own[v].sum;
    if (lane_of() == 0) shared.sums[warp_of()][2 * v + 1] = own[v].lost;
  }
  __syncthreads();
#pragma unroll
  for (int v = 0; v < n; ++v) {
    own[v] = {};
    for (const auto& of_warp : shared.sums) own[v].add({of_warp[2 * v], of_warp[2 * v + 1]});
  }
  __syncthreads();
}

// The largest over the block; NaN if one is.
__device__ inline double largest_in_block(double own, RowShared& shared) {
  for (int mask = 1; mask < kWarp; mask *= 2) {
    own = larger(own, __shfl_xor_sync(kAllLanes, own, mask));
  }
  if (lane_of() == 0) shared.sums[warp_of()][0] = own;
  __syncthreads();
  for (const auto& of_warp : shared.sums) own = larger(own, of_warp[0]);
  __syncthreads();
  return own;
}

}  // namespace flashmetric::cuda
