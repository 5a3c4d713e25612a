// SPDX-License-Identifier: BSD-3-Clause
// Lists the triplets that a rule makes of each anchor's row of float64 keys, a chunk of anchors at
// a time: keys of whole rows -> a block an anchor applies the rule and counts -> where the triplets
// of each anchor begin -> a block an anchor writes them.
//
// Numerics: keys decide, and nothing else: those of reduce_keys.cuh.
#pragma once

#include "list_rules.cuh"
#include "reduce_keys.cuh"

namespace flashmetric::cuda {

// Keys of the anchors of the chunk with all references, by tiles; and their values, where wanted.
template <Form form>
__global__ void __launch_bounds__(kKeyThreads)
    write_key_rows(const __grid_constant__ MineState state, KeyRows rows) {
  __shared__ KeyStage x_stage;
  __shared__ KeyStage r_stage;
  const int64_t tiles = (state.ref.n + kKeyTile - 1) / kKeyTile;
  const int64_t i = blockIdx.x / tiles * kKeyTile;  // in the chunk
  const int64_t j = blockIdx.x % tiles * kKeyTile;
  const int loaded = static_cast<int>(threadIdx.x) / 8;
  KeySums<form> sums;
  sum_tile(state, i + loaded < rows.anchors ? rows.first + i + loaded : -1,
           j + loaded < state.ref.n ? j + loaded : -1, x_stage, r_stage, sums);
#pragma unroll
  for (int a = 0; a < 2; ++a) {
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      const int64_t row = i + threadIdx.x / 16 + 16 * a;
      const int64_t ref = j + threadIdx.x % 16 + 16 * b;
      if (row >= rows.anchors || ref >= state.ref.n) continue;
      const double key = finished_key(state.key, sums.key(a, b), state.query.numbers,
                                      rows.first + row, state.ref.numbers, ref);
      rows.key[row * state.ref.n + ref] = key;
      if (rows.distance != nullptr) rows.distance[row * state.ref.n + ref] = state.key.value(key);
    }
  }
}

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
