// SPDX-License-Identifier: BSD-3-Clause
// Computes the gradient of a row from the pairs that touch it, by a warp.
//
// Why so: a row's gradient is gathered by the one warp that owns the row, in the order of its
// pairs, so no float is ever added atomically. The lists of pairs come in any order; a warp sorts
// its own. Rows with more pairs than fit a list are hubs: gather_hubs.cuh has them, and the kernel.
#pragma once

#include "gradient_row.cuh"

namespace flashmetric::cuda {

constexpr int kGatherThreads = 256;
constexpr int kGatherWarps = kGatherThreads / kWarp;

// A touch by number, and what is at its other end.
template <class T>
struct Touches {
  const TripletState& state;
  const RowSets<T>& sets;
  double scale;

  // Without what depends on the whole pair.
  __device__ TouchedPair<T> pair_of(const KeyForm& key, int64_t touch) const {
    const int pair = static_cast<int>(touch / 2 % kPairs);
    const int64_t t = touch / 2 / kPairs;
    const double coefficient = state.coefficient[pair][t];
    const int role = other_role(touch);
    const int64_t j = state.row_of(role, t);
    const RowView<T>& others = sets.of[role];
    return {others.row(j), others.numbers.mapping(key, j),
            key.scaled ? others.numbers.clamped_norm(j) : 1.0, coefficient * scale};
  }
  __device__ int other_role(int64_t touch) const {
    return role_of(static_cast<int>(touch / 2 % kPairs), touch % 2 == 0 ? 1 : 0);
  }
  __device__ void complete(const GradientRow<T>& row, int64_t touch, TouchedPair<T>& pair) const {
    const int role = other_role(touch);
    row.complete(pair, sets.of[role], state.row_of(role, touch / 2 / kPairs), touch % 2 == 0);
  }
};

// Whether a pair touches row i because it is that of the triplet with the same number.
__device__ inline bool touches_own_number(const TripletState& state, int set, int64_t i, int code) {
  const int role = role_of(code / 2, code % 2);
  return i < state.n && state.first_role[role] == set && state.index[role] == nullptr &&
         state.coefficient[code / 2][i] != 0;
}

// The touches of row i in ascending order, in shared memory; returns how many. Those of the
// triplets with its number need no list.
__device__ inline int sorted_touches(const TripletState& state, int set, int64_t i, int listed,
                                     uint32_t* unsorted, uint32_t* sorted) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const uint32_t* from = state.touches[set].touch + i * kTouches;
  for (int at = lane; at < listed; at += kWarp) unsorted[at] = from[at];
  const bool implied = lane < 2 * kPairs && touches_own_number(state, set, i, lane);
  const unsigned lanes = __ballot_sync(kAllLanes, implied);
  const unsigned below = lanes & ((1U << lane) - 1);
  if (implied) unsorted[listed + __popc(below)] = static_cast<uint32_t>(i * kPairs * 2 + lane);
  const int count = listed + __popc(lanes);
  __syncwarp();
  for (int at = lane; at < count; at += kWarp) {
    const uint32_t own = unsorted[at];
    int rank = 0;
    for (int other = 0; other < count; ++other) rank += unsorted[other] < own;
    sorted[rank] = own;
  }
  __syncwarp();
  return count;
}

template <class T>
struct GatherShared {
  uint32_t unsorted[kMostTouches];
  uint32_t sorted[kMostTouches];
  alignas(16) char pairs[kMostTouches * sizeof(TouchedPair<T>)];
};

// What the directions need to know of whole pairs.
template <class T>
__device__ __noinline__ void complete_pairs(const Touches<T>& touches, const GradientRow<T>& row,
                                            const uint32_t* sorted, TouchedPair<T>* pairs,
                                            int count) {
  if (row.key.of_products() && !row.key.relative) return;
  for (int at = 0; at < count; ++at) {
    TouchedPair<T> pair = pairs[at];
    touches.complete(row, sorted[at], pair);
    __syncwarp();
    if (threadIdx.x % kWarp == 0) pairs[at] = pair;
  }
  __syncwarp();
}

// The gradient of row i, by a warp.
template <class T, Steps steps>
__device__ void gather_row(const TripletState& state, const RowSets<T>& sets, int set, int64_t i,
                           GatherShared<T>& shared) {
  using Out = typename GradientType<T>::type;
  const int32_t listed = state.touches[set].count[i];
  if (listed > kTouches) return;  // a hub
  auto* const pairs = reinterpret_cast<TouchedPair<T>*>(shared.pairs);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const Touches<T> touches{state, sets, *state.scale};
  const GradientRow<T> row(state.key, sets.of[set], i, state.dim);
  const int count = sorted_touches(state, set, i, listed, shared.unsorted, shared.sorted);
  for (int at = lane; at < count; at += kWarp) {
    pairs[at] = touches.pair_of(row.key, shared.sorted[at]);
  }
  __syncwarp();
  if constexpr (steps == Steps::any) complete_pairs(touches, row, shared.sorted, pairs, count);
  double sum[kLaneFeatures];
  AlongRow<T> share;
  for (int64_t slice = 0; row.key.scaled && count > 0 && slice < state.dim;
       slice += kSliceFeatures) {
    row.template add_all<steps>(pairs, count, slice, sum);
    row.add_along(slice, sum, share);
  }
  const double along = share.in_warp().value();
  auto* const out = static_cast<Out*>(state.grad[set]) + i * state.dim;
  for (int64_t slice = 0; slice < state.dim; slice += kSliceFeatures) {
    row.template add_all<steps>(pairs, count, slice, sum);
#pragma unroll
    for (int f = 0; f < kLaneFeatures; ++f) {
      const int64_t k = slice + f * kWarp + lane;
      // A NaN row that nobody chose must not come near its norm: its 0 would become NaN.
      if (k < state.dim) {
        out[k] = static_cast<Out>(count == 0 ? 0.0 : row.through_norm(sum[f], along, k));
      }
    }
  }
}

}  // namespace flashmetric::cuda
