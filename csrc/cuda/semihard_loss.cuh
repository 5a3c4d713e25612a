// SPDX-License-Identifier: BSD-3-Clause
// The loss of the triplets that were chosen for each anchor, as many for each: those that do not
// exist count nothing.
#pragma once

#include "semihard_state.cuh"
#include "triplet_terms.cuh"
#include "triplet_totals.cuh"

namespace flashmetric::cuda {

// Threads of an anchor: mostly there are no more positives, and a second look finds none.
constexpr int kAnchorLanes = 4;
static_assert(kMostPositives % kAnchorLanes == 0);

// What a thread has of an anchor.
struct AnchorShare {
  double value = 0;
  bool valid = false;

  __device__ void add_lanes() {
    for (int mask = 1; mask < kAnchorLanes; mask *= 2) {
      value += __shfl_xor_sync(kAllLanes, value, mask);
    }
    const unsigned lanes = __ballot_sync(kAllLanes, valid);
    valid = (lanes >> lane_of() & ((1U << kAnchorLanes) - 1)) != 0;  // in the first of them
  }
};

__device__ inline void evaluate_one(const TripletState& state, int64_t t, AnchorShare& share,
                                    TripletSums& sums) {
  const TripletRows rows(state, t);
  Term term = evaluate(state, t, rows, StoredKeys(state, t));
  count_term(state, t, term, sums);
  if (state.reduction == Reduction::none) multiply_by_cotangent(state, t, term);
#pragma unroll
  for (int pair = 0; pair < kPairs; ++pair) state.coefficient[pair][t] = term.coefficient[pair];
  touch_rows(state, t, rows, term);
  share.value += term.value;
  share.valid |= (term.flags & kValid) != 0;
}

// Like evaluate_triplets; the first statistic counts anchors, of the others' triplets.
__global__ void __launch_bounds__(kTripletThreads)
    evaluate_semihard(const __grid_constant__ TripletState state, int32_t* n_valid) {
  await_inputs();
  __shared__ TripletSums shared[kTripletThreads / kWarp];
  if (state.is_elsewhere()) return;
  TripletSums sums;
  AnchorShare share;
  const int64_t thread = int64_t{blockIdx.x} * kTripletThreads + threadIdx.x;
  const int64_t first = thread / kAnchorLanes * kMostPositives + thread % kAnchorLanes;
#pragma unroll 1
  for (int more = 0; more < kMostPositives && first < state.n; more += kAnchorLanes) {
    evaluate_one(state, first + more, share, sums);
  }
  share.add_lanes();
  const bool leads = threadIdx.x % kAnchorLanes == 0;
  if (state.reduction == Reduction::none && leads && first < state.n) {
    keep_value(state, state.anchor_of(first), share.value);
  }
  const int anchors = __syncthreads_count(leads && share.valid);
  if (threadIdx.x == 0) atomicAdd(n_valid, anchors);
  sum_in_block(sums, shared, state.stats != nullptr);
  if (threadIdx.x == 0) state.block_sums[blockIdx.x] = sums;
  const bool last = finish_sums(state, shared, static_cast<int>(gridDim.x));
  if (last && threadIdx.x == 0 && state.stats != nullptr) {
    state.stats[0] = static_cast<double>(atomicAdd(n_valid, 0));
  }
}

}  // namespace flashmetric::cuda
