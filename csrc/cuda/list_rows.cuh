// SPDX-License-Identifier: BSD-3-Clause
// Lists the triplets that a rule makes of each anchor's row of float64 keys, a chunk of anchors at
// a time: keys of whole rows -> a block an anchor applies the rule and counts -> where the triplets
// of each anchor begin -> a block an anchor writes them.
//
// Numerics: keys decide, and nothing else: those of key_rows.cuh.
#pragma once

#include "list_rules.cuh"

namespace flashmetric::cuda {

// Applies the rule, and counts the triplets of each positive and of each anchor.
template <class Policy>
__global__ void __launch_bounds__(kListThreads)
    count_triplets(const __grid_constant__ ListState state) {
  __shared__ ListShared shared;
  AnchorView anchor(state, blockIdx.x);
  split_sides(anchor, shared);
  BlockRule<Policy>::prepare(anchor, shared);
  const int64_t begin = anchor.range.begin[kPositive];
  const int64_t end = anchor.range.end[kPositive];
  int64_t* const before = state.before + anchor.own(0);
  for (int64_t p = begin + warp_of(); p < end; p += kListWarps) {
    int64_t count = 0;
    BlockRule<Policy>::each(
        anchor, p, [&](bool has, int64_t) { count += __popc(__ballot_sync(kAllLanes, has)); });
    if (lane_of() == 0) before[p - begin] = count;
  }
  __syncthreads();
  const int64_t all = sums_before(before, end - begin, shared);
  if (threadIdx.x != 0) return;
  state.ranges[anchor.at] = anchor.range;
  state.listed[anchor.at] = all;
}

// One block: from how many triplets an anchor has to how many come before them, of all chunks.
__global__ void __launch_bounds__(kListThreads)
    place_triplets(const __grid_constant__ ListState state) {
  __shared__ ListShared shared;
  const int64_t before = state.first == 0 ? 0 : *state.problem.total;
  const int64_t all = sums_before(state.listed, state.anchors, shared);
  for (int64_t a = threadIdx.x; a < state.anchors; a += kListThreads) state.listed[a] += before;
  __syncthreads();
  if (threadIdx.x == 0) *state.problem.total = before + all;
}

template <class Policy>
__global__ void __launch_bounds__(kListThreads)
    write_triplets(const __grid_constant__ ListState state) {
  AnchorView anchor(state, blockIdx.x);
  anchor.range = state.ranges[anchor.at];
  const ListProblem& problem = state.problem;
  const int64_t begin = anchor.range.begin[kPositive];
  const unsigned below = (1U << lane_of()) - 1;
  for (int64_t p = begin + warp_of(); p < anchor.range.end[kPositive]; p += kListWarps) {
    int64_t to = state.listed[anchor.at] + state.before[anchor.own(p - begin)];
    BlockRule<Policy>::each(anchor, p, [&](bool has, int64_t n) {
      const unsigned lanes = __ballot_sync(kAllLanes, has);
      const int64_t t = to + __popc(lanes & below);
      to += __popc(lanes);
      if (!has || t >= problem.capacity) return;
      problem.out[0][t] = anchor.anchor();
      problem.out[1][t] = anchor.row(kPositive, p);
      problem.out[2][t] = n < 0 ? -1 : anchor.row(kNegative, n);
    });
  }
}

}  // namespace flashmetric::cuda
