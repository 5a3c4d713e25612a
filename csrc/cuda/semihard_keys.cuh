// SPDX-License-Identifier: BSD-3-Clause
// Chooses by whole rows of float64 keys, for anchors that tiles could not decide: too many
// near-ties, no negative beyond a positive, rows that they cannot rank.
//
// Algorithm: a block has an anchor and a split of the references; eight lanes a key. What the
// splits have found is put together by a kernel of its own.
#pragma once

#include "semihard_positives.cuh"

namespace flashmetric::cuda {

constexpr int kRowKeyThreads = 256;
constexpr int kRowKeyWarps = kRowKeyThreads / kWarp;

// Anchor number `at` of those that keys judge; -1: none.
__device__ inline int64_t anchor_by_keys(const SemiHardState& state, int64_t at) {
  if (state.tally->n_irregular == 0) {
    return at < state.tally->n_by_keys ? state.by_keys[at] : -1;
  }
  return at < state.query.n ? at : -1;
}

template <Keys keys>
__device__ RowBests bests_of_split(const AnchorPositives<keys>& positives, int64_t begin,
                                   int64_t end) {
  const SemiHardState& state = positives.state;
  RowBests bests;
  for (int64_t first = begin; first < end; first += kRowKeyThreads / 8) {
    const int64_t j = first + threadIdx.x / 8;
    const double key = positives.key_of(j < end ? j : begin);
    if (j >= end || state.labels.role(positives.i, j) != kNegative) continue;
    // A NaN is beyond everything.
    if (positives.exists() && (key > positives.key || key != key)) bests.beyond.offer(key, j);
    bests.farthest.offer(-key, j);
  }
  return bests;
}

template <Keys keys>
__global__ void __launch_bounds__(kRowKeyThreads)
    judge_semihard_rows(const __grid_constant__ SemiHardState state, RowView<float> x,
                        RowView<float> r) {
  await_inputs();
  __shared__ RowBests of_warp[kRowKeyWarps][kMostPositives];
  if (*state.crowded != 0) return;
  const int64_t share = (state.ref.n + gridDim.y - 1) / gridDim.y;
  const int64_t begin = share * blockIdx.y;
  const int64_t end = begin + share < state.ref.n ? begin + share : state.ref.n;
  for (int64_t at = blockIdx.x;; at += gridDim.x) {
    const int64_t i = anchor_by_keys(state, at);
    if (i < 0) return;
    if (!state.labels.query_takes_part(i)) continue;
    const AnchorPositives<keys> positives(state, x, r, i);
    RowBests bests = bests_of_split(positives, begin, end);
    bests.offer_lane(8);
    bests.offer_lane(16);
    if (lane_of() < 8) of_warp[warp_of()][lane_of()] = bests;
    __syncthreads();
    if (threadIdx.x < 8) {
      for (int w = 1; w < kRowKeyWarps; ++w) bests.offer(of_warp[w][threadIdx.x]);
      state.bests[(blockIdx.y * state.query.n + i) * kMostPositives + threadIdx.x] = bests;
    }
    __syncthreads();
  }
}

// A warp an anchor.
template <Keys keys>
__global__ void __launch_bounds__(kRowKeyThreads)
    settle_semihard_rows(const __grid_constant__ SemiHardState state, RowView<float> x,
                         RowView<float> r) {
  await_inputs();
  if (*state.crowded != 0) return;
  const int64_t warps = int64_t{gridDim.x} * kRowKeyWarps;
  for (int64_t at = int64_t{blockIdx.x} * kRowKeyWarps + warp_of();; at += warps) {
    const int64_t i = anchor_by_keys(state, at);
    if (i < 0) return;
    if (!state.labels.query_takes_part(i)) continue;
    const AnchorPositives<keys> positives(state, x, r, i);
    RowBests bests;
    for (int split = 0; split < state.key_splits; ++split) {
      bests.offer(state.bests[(split * state.query.n + i) * kMostPositives + positives.own()]);
    }
    positives.write_best(bests.beyond, bests.farthest);
  }
}

}  // namespace flashmetric::cuda
