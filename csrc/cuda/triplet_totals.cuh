// SPDX-License-Identifier: BSD-3-Clause
// From the sums of each block, or of each anchor, to the loss and its statistics.
#pragma once

#include "triplet_state.cuh"

namespace flashmetric::cuda {

__device__ inline TripletSums from_lane(const TripletSums& sums, int mask, bool with_stats) {
  TripletSums other;
  other.total = from_lane(sums.total, mask);
  other.counted = from_lane(sums.counted, mask);
  other.active = from_lane(sums.active, mask);
  if (!with_stats) return other;
  other.ap = from_lane(sums.ap, mask);
  other.an = from_lane(sums.an, mask);
  other.norms = from_lane(sums.norms, mask);
  other.valid = __shfl_xor_sync(kAllLanes, sums.valid, mask);
  other.valid_active = __shfl_xor_sync(kAllLanes, sums.valid_active, mask);
  other.farthest = __shfl_xor_sync(kAllLanes, sums.farthest, mask);
  other.nearest = __shfl_xor_sync(kAllLanes, sums.nearest, mask);
  return other;
}

// The sum over the block, in a fixed tree; thread 0 has it.
template <int warps>
__device__ void sum_in_block(TripletSums& sums, TripletSums (&shared)[warps], bool with_stats) {
  static_assert(kWarp % warps == 0);
  // Not unrolled: what takes longest are instructions that come from memory.
  const auto add_lanes = [&](int lanes) {
#pragma unroll 1
    for (int mask = 1; mask < lanes; mask *= 2) {
      sums.add(from_lane(sums, mask, with_stats), with_stats);
    }
  };
  add_lanes(kWarp);
  if (lane_of() == 0) shared[warp_of()] = sums;
  __syncthreads();
  if (warp_of() == 0) {
    sums = shared[lane_of() % warps];
    add_lanes(warps);
  }
  __syncthreads();
}

__device__ inline void write_statistics(const TripletState& state, const TripletSums& sums) {
  const double some = sums.valid == 0 ? 1 : sums.valid;
  const int64_t rows = state.rows[0].n;
  const double stats[7] = {sums.valid,
                           sums.valid_active / some,
                           sums.ap.value() / some,
                           sums.an.value() / some,
                           sums.farthest,
                           sums.nearest,
                           sums.norms.value() / (rows == 0 ? 1 : static_cast<double>(rows))};
  for (int s = 0; s < 7; ++s) state.stats[s] = stats[s];
}

__device__ inline void write_loss(const TripletState& state, const TripletSums& sums) {
  if (state.totals != nullptr) {
    state.totals[0] = sums.total.value();
    state.totals[1] = sums.counted.value();
    state.totals[2] = sums.active.value();
  }
  if (state.stats != nullptr) write_statistics(state, sums);
  *state.scale = 1;
  if (state.reduction == Reduction::none) return;
  const double divisor = state.reduction == Reduction::sum           ? 1
                         : state.reduction == Reduction::mean_active ? sums.active.value()
                                                                     : sums.counted.value();
  const double loss = divisor == 0 ? 0 : sums.total.value() / divisor;
  *state.scale = divisor == 0 ? 0 : 1 / divisor;
  if (state.rows[0].dtype == DType::float64) {
    *static_cast<double*>(state.loss) = loss;
  } else {
    *static_cast<float*>(state.loss) = static_cast<float>(loss);
  }
}

// Of all blocks, and of the norms; thread 0 of the block that asks has them.
template <int warps>
__device__ TripletSums sums_of_blocks(const TripletState& state, TripletSums (&shared)[warps],
                                      int64_t blocks) {
  constexpr int threads = warps * kWarp;
  const bool with_stats = state.stats != nullptr;
  TripletSums own;
  for (int64_t block = threadIdx.x; block < blocks; block += threads) {
    own.add(state.block_sums[block], with_stats);
  }
  for (int64_t i = threadIdx.x; with_stats && i < state.rows[0].n; i += threads) {
    own.norms.add(state.rows[0].numbers.norm[i]);
  }
  sum_in_block(own, shared, with_stats);
  return own;
}

// The block that finishes last adds up the sums of all blocks. Returns whether this one has.
template <int warps>
__device__ bool finish_sums(const TripletState& state, TripletSums (&shared)[warps], int blocks) {
  __shared__ bool last;
  const auto t = static_cast<int>(threadIdx.x);
  if (t == 0) {
    __threadfence();
    last = atomicAdd(&state.tally->finished, 1) == blocks - 1;
  }
  __syncthreads();
  if (!last) return false;
  __threadfence();
  const TripletSums sums = sums_of_blocks(state, shared, blocks);
  if (t == 0) write_loss(state, sums);
  return true;
}

}  // namespace flashmetric::cuda
