// SPDX-License-Identifier: BSD-3-Clause
// What a block does together with the row of an anchor: splits it into sides, finds the best of a
// side, sorts a side, adds up what comes before each. All of its threads must come along.
//
// Every result has one value: bests are those of a total order, and sums of integers are exact.
#pragma once

#include "list_state.cuh"

namespace flashmetric::cuda {

struct ListShared {
  int64_t of_warp[2][kListWarps];
  BestPair best[kListWarps];
  double of_thread[kListThreads];
};

// Replaces numbers by the sums of those before each; returns the sum of all.
__device__ inline int64_t sums_before(int64_t* numbers, int64_t n, ListShared& shared) {
  const int lane = lane_of();
  const int warp = warp_of();
  int64_t before = 0;
  for (int64_t first = 0; first < n; first += kListThreads) {
    const int64_t at = first + threadIdx.x;
    const int64_t own = at < n ? numbers[at] : 0;
    const int64_t through = sum_through_lane(own);
    if (lane == kWarp - 1) shared.of_warp[0][warp] = through;
    __syncthreads();
    int64_t below = 0;
    int64_t all = 0;
    for (int w = 0; w < kListWarps; ++w) {
      below += w < warp ? shared.of_warp[0][w] : 0;
      all += shared.of_warp[0][w];
    }
    if (at < n) numbers[at] = before + below + through - own;
    before += all;
    __syncthreads();
  }
  return before;
}

// Writes the rows of both sides, ascending; the ranges become all of them.
__device__ inline void split_sides(AnchorView& anchor, ListShared& shared) {
  const LabelView& labels = anchor.state.ranking.labels;
  anchor.range = {};
  if (!labels.query_takes_part(anchor.anchor())) return;
  const int lane = lane_of();
  const int warp = warp_of();
  int64_t n[2] = {0, 0};
  for (int64_t first = 0; first < anchor.n_ref(); first += kListThreads) {
    const int64_t j = first + threadIdx.x;
    const Role own = j < anchor.n_ref() ? labels.role(anchor.anchor(), j) : kNeither;
    unsigned lanes[2];
#pragma unroll
    for (int role = 0; role < 2; ++role) {
      lanes[role] = __ballot_sync(kAllLanes, own == role);
      if (lane == 0) shared.of_warp[role][warp] = __popc(lanes[role]);
    }
    __syncthreads();
#pragma unroll
    for (int role = 0; role < 2; ++role) {
      int64_t at = n[role] + __popc(lanes[role] & ((1U << lane) - 1));
      for (int w = 0; w < kListWarps; ++w) {
        at += w < warp ? shared.of_warp[role][w] : 0;
        n[role] += shared.of_warp[role][w];
      }
      if (own == role) anchor.state.rows[anchor.place(role, at)] = static_cast<int32_t>(j);
    }
    __syncthreads();
  }
  for (int role = 0; role < 2; ++role) anchor.range.end[role] = static_cast<int32_t>(n[role]);
}

// The best of the warp, in each lane.
__device__ inline void merge_lanes(BestPair& best) {
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) best.offer_lane(lanes);
}

// Position of the nearest or the farthest of those of a side that are allowed; -1 if none is.
template <class Allowed>
__device__ int64_t best_of_side(const AnchorView& anchor, int role, Seek seek,
                                const Allowed& allowed, ListShared& shared) {
  BestPair best{0, -1};
  for (int64_t at = threadIdx.x; at < anchor.n(role); at += kListThreads) {
    const double key = anchor.key(role, at);
    if (allowed(key)) best.offer(seek == Seek::farthest ? -key : key, at);
  }
  merge_lanes(best);
  if (threadIdx.x % kWarp == 0) shared.best[threadIdx.x / kWarp] = best;
  __syncthreads();
  for (int w = 0; w < kListWarps; ++w) best.offer(shared.best[w].key, shared.best[w].row);
  __syncthreads();
  return best.row;
}

__device__ inline int64_t nearest_of(const AnchorView& anchor, int role, ListShared& shared) {
  return best_of_side(anchor, role, Seek::nearest, [](double) { return true; }, shared);
}
__device__ inline int64_t farthest_of(const AnchorView& anchor, int role, ListShared& shared) {
  return best_of_side(anchor, role, Seek::farthest, [](double) { return true; }, shared);
}

// NaN first, then ascending, equals by position.
__device__ inline bool comes_before(const AnchorView& anchor, int32_t a, int32_t b) {
  const double key_a = anchor.key(kNegative, a);
  const double key_b = anchor.key(kNegative, b);
  const bool nan_a = key_a != key_a;
  const bool nan_b = key_b != key_b;
  if (nan_a != nan_b) return nan_a;
  return nan_a || key_a == key_b ? a < b : key_a < key_b;
}

__device__ inline void sort_negatives(const AnchorView& anchor) {
  const int64_t n = anchor.n(kNegative);
  for (int64_t k = threadIdx.x; k < n; k += kListThreads)
    anchor.sorted(k) = static_cast<int32_t>(k);
  __syncthreads();
  sort_in_block<kListThreads>(n, [&](int64_t low, int64_t high) {
    const int32_t a = anchor.sorted(low);
    const int32_t b = anchor.sorted(high);
    if (!comes_before(anchor, b, a)) return;
    anchor.sorted(low) = b;
    anchor.sorted(high) = a;
  });
}

}  // namespace flashmetric::cuda
