// SPDX-License-Identifier: BSD-3-Clause
// Chooses by whole rows of float64 keys, for anchors that tiles could not decide: too many
// near-ties, no negative beyond a positive, rows that they cannot rank.
//
// Algorithm: a block has an anchor and a share of the references; eight lanes a key. Mostly there
// are next to no such anchors: then many blocks share one, and the last of them to finish puts
// together what they have found.
#pragma once

#include "semihard_positives.cuh"

namespace flashmetric::cuda {

constexpr int kRowKeyThreads = 256;
constexpr int kRowKeyWarps = kRowKeyThreads / kWarp;

// Those that keys judge, and how many blocks share each.
struct RowKeyWork {
  const SemiHardState& state;
  bool all;
  int64_t anchors;
  int64_t splits = 1;

  __device__ explicit RowKeyWork(const SemiHardState& of)
      : state(of), all(of.tally->n_irregular > 0), anchors(all ? of.query.n : of.tally->n_by_keys) {
    constexpr int64_t least = kRowKeyThreads / 8;  // references: a key for each eight threads
    const int64_t most = (of.ref.n + least - 1) / least;
    if (anchors > 0) splits = gridDim.x / anchors;
    splits = splits < most ? splits : most;
    splits = splits > 1 ? splits : 1;
  }
  __device__ int64_t anchor(int64_t at) const { return all ? at : state.by_keys[at]; }
};

template <Keys keys>
__device__ RowBests bests_of_split(const AnchorPositives<keys, kWarp>& positives, int64_t begin,
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

// Of all threads, in the first warp.
__device__ inline void merge_block(RowBests& bests) {
  __shared__ RowBests of_warp[kRowKeyWarps][kMostPositives];
  bests.offer_lane(8);
  bests.offer_lane(16);
  if (lane_of() < 8) of_warp[warp_of()][lane_of()] = bests;
  __syncthreads();
  for (int w = 1; w < kRowKeyWarps && warp_of() == 0; ++w) bests.offer(of_warp[w][lane_of() % 8]);
  __syncthreads();
}

// Of all shares of anchor number `at`, in the warp of the block that has come last; the others are
// told that they have not. `item`: number of the share.
__device__ inline bool merge_shares(const RowKeyWork& work, int64_t at, int64_t item,
                                    RowBests& bests) {
  const SemiHardState& state = work.state;
  if (work.splits == 1) return true;
  if (lane_of() < 8) state.bests[item * kMostPositives + lane_of()] = bests;
  __threadfence();
  __syncwarp();
  const int before = lane_of() == 0 ? atomicAdd(state.shares_judged + at, 1) : 0;
  if (__shfl_sync(kAllLanes, before, 0) + 1 < work.splits) return false;
  __threadfence();
  for (int64_t split = lane_of() / 8; split < work.splits; split += kWarp / 8) {
    bests.offer(state.bests[(at * work.splits + split) * kMostPositives + lane_of() % 8]);
  }
  bests.offer_lane(8);
  bests.offer_lane(16);
  return true;
}

template <Keys keys>
__global__ void __launch_bounds__(kRowKeyThreads)
    judge_semihard_rows(const __grid_constant__ SemiHardState state, RowView<float> x,
                        RowView<float> r) {
  await_inputs();
  if (*state.crowded != 0) return;
  const RowKeyWork work(state);
  const int64_t share = (state.ref.n + work.splits - 1) / work.splits;
  for (int64_t item = blockIdx.x; item < work.anchors * work.splits; item += gridDim.x) {
    const int64_t at = item / work.splits;
    const int64_t i = work.anchor(at);
    if (!state.labels.query_takes_part(i)) continue;
    AnchorPositives<keys, kWarp> positives(state, x, r, i);
    positives.measure();
    const int64_t begin = item % work.splits * share;
    const int64_t end = begin + share < state.ref.n ? begin + share : state.ref.n;
    RowBests bests = bests_of_split(positives, begin, end);
    merge_block(bests);
    if (warp_of() == 0 && merge_shares(work, at, item, bests)) {
      positives.write_best(bests.beyond, bests.farthest);
    }
  }
}

}  // namespace flashmetric::cuda
