// SPDX-License-Identifier: BSD-3-Clause
// The loss of the triplets that were chosen for each anchor, as many for each: those that do not
// exist count nothing.
#pragma once

#include "semihard_state.cuh"
#include "triplet_terms.cuh"
#include "triplet_totals.cuh"

namespace flashmetric::cuda {

// The sum over the triplets of an anchor, in all their lanes.
__device__ inline double anchor_sum(double value) {
  for (int mask = 1; mask < kMostPositives; mask *= 2) {
    value += __shfl_xor_sync(kAllLanes, value, mask);
  }
  return value;
}

// Like evaluate_triplets; the first statistic counts anchors, of the others' triplets.
__global__ void __launch_bounds__(kTripletThreads)
    evaluate_semihard(const __grid_constant__ TripletState state, int32_t* n_valid) {
  await_inputs();
  __shared__ TripletSums shared[kTripletThreads / kWarp];
  if (state.is_elsewhere()) return;
  TripletSums sums;
  Term term;
  const int64_t t = int64_t{blockIdx.x} * kTripletThreads + threadIdx.x;
  if (t < state.n) {
    const TripletRows rows(state, t);
    term = evaluate(state, t, rows, StoredKeys(state, t));
    count_term(state, t, term, sums);
    if (state.reduction == Reduction::none) multiply_by_cotangent(state, t, term);
#pragma unroll
    for (int pair = 0; pair < kPairs; ++pair) state.coefficient[pair][t] = term.coefficient[pair];
    touch_rows(state, t, rows, term);
  }
  const double value = anchor_sum(term.value);
  const bool leads = threadIdx.x % kMostPositives == 0;
  if (state.reduction == Reduction::none && leads && t < state.n) {
    keep_value(state, state.anchor_of(t), value);
  }
  const unsigned valid = __ballot_sync(kAllLanes, (term.flags & kValid) != 0);
  const unsigned of_anchor = valid >> lane_of() & ((1U << kMostPositives) - 1);
  const int anchors = __syncthreads_count(leads && of_anchor != 0);
  if (threadIdx.x == 0) atomicAdd(n_valid, anchors);
  sum_in_block(sums, shared, state.stats != nullptr);
  if (threadIdx.x == 0) state.block_sums[blockIdx.x] = sums;
  const bool last = finish_sums(state, shared, static_cast<int>(gridDim.x));
  if (last && threadIdx.x == 0 && state.stats != nullptr) {
    state.stats[0] = static_cast<double>(atomicAdd(n_valid, 0));
  }
}

}  // namespace flashmetric::cuda
