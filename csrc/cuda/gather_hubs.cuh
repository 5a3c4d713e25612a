// SPDX-License-Identifier: BSD-3-Clause
// Computes the gradient of one set of rows: a warp a row; and a block for a hub, a row that more
// pairs touch than a list of gather.cuh holds. Blocks for hubs come first, since they take longest.
//
// Algorithm: the block of a hub collects the touches from the list and from what did not fit, sorts
// them, and gives each warp its share; of a hub with more than kHubTouches each warp looks through
// its share of all triplets instead. Then it adds up their sums, in a fixed order.
#pragma once

#include "gather.cuh"

namespace flashmetric::cuda {

template <class T>
struct HubShared {
  uint32_t unsorted[kHubTouches];
  uint32_t sorted[kHubTouches];
  ExactSum along[kGatherWarps];
  int count;
  GatherShared<T> of_warp[kGatherWarps];
};

// The touches of row i, ascending.
template <class T>
__device__ void sort_hub(const TripletState& state, int set, int64_t i, HubShared<T>& shared) {
  const TouchLists& lists = state.touches[set];
  const auto thread = static_cast<int>(threadIdx.x);
  if (thread == 0) shared.count = kTouches;
  static_assert(kTouches <= kGatherThreads);
  if (thread < kTouches) shared.unsorted[thread] = lists.touch[i * kTouches + thread];
  __syncthreads();
  const int32_t overflows = state.tally->n_overflow[set];
  const bool few = overflows <= kFewOverflows;
  for (int32_t at = thread; few && at < overflows; at += kGatherThreads) {
    const Overflow more = lists.overflow[at];
    if (more.row == i) shared.unsorted[atomicAdd(&shared.count, 1)] = more.touch;
  }
  for (int32_t at = few || thread > 0 ? 0 : lists.last[i]; at != 0;) {
    const Overflow more = lists.overflow[at - 1];
    shared.unsorted[atomicAdd(&shared.count, 1)] = more.touch;
    at = more.before;
  }
  if (thread < 2 * kPairs && touches_own_number(state, set, i, thread)) {
    shared.unsorted[atomicAdd(&shared.count, 1)] = static_cast<uint32_t>(i * kPairs * 2 + thread);
  }
  __syncthreads();
  const int count = shared.count;
  for (int at = thread; at < count; at += kGatherThreads) {
    const uint32_t own = shared.unsorted[at];
    int rank = 0;
    for (int other = 0; other < count; ++other) rank += shared.unsorted[other] < own;
    shared.sorted[rank] = own;
  }
  __syncthreads();
}

// The share of one warp in the sum.
template <class T, Steps steps>
struct HubShare {
  const Touches<T>& touches;
  const GradientRow<T>& row;
  GatherShared<T>& shared;
  double* sums;  // [dim]
  int count = 0;

  __device__ void reset() {
    for (int64_t k = threadIdx.x % kWarp; k < row.dim; k += kWarp) sums[k] = 0;
  }

  // Adds the pairs of shared.sorted.
  __device__ void flush() {
    auto* const pairs = reinterpret_cast<TouchedPair<T>*>(shared.pairs);
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    __syncwarp();
    for (int at = lane; at < count; at += kWarp) {
      pairs[at] = touches.pair_of(row.key, shared.sorted[at]);
    }
    __syncwarp();
    if constexpr (steps == Steps::any) complete_pairs(touches, row, shared.sorted, pairs, count);
    for (int64_t slice = 0; slice < row.dim; slice += kSliceFeatures) {
      double sum[kLaneFeatures];
      row.template add_all<steps>(pairs, count, slice, sum);
#pragma unroll
      for (int f = 0; f < kLaneFeatures; ++f) {
        const int64_t k = slice + f * kWarp + lane;
        if (k < row.dim) sums[k] += sum[f];
      }
    }
    __syncwarp();
    count = 0;
  }

  __device__ void add_sorted(const uint32_t* sorted, int begin, int end) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    for (int first = begin; first < end; first += kMostTouches) {
      count = end - first < kMostTouches ? end - first : kMostTouches;
      for (int at = lane; at < count; at += kWarp) shared.sorted[at] = sorted[first + at];
      flush();
    }
  }

  __device__ void add_found(int set, int64_t begin, int64_t end) {
    const TripletState& state = touches.state;
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    for (int64_t first = begin; first < end; first += kWarp) {
      const int64_t t = first + lane;
      bool met[3];
#pragma unroll
      for (int role = 0; role < 3; ++role) {
        met[role] = t < end && state.first_role[role] == set && state.row_of(role, t) == row.i;
      }
      if (!__any_sync(kAllLanes, met[0] | met[1] | met[2])) continue;
#pragma unroll 1
      for (int code = 0; code < 2 * kPairs; ++code) {
        const int role = role_of(code / 2, code % 2);
        const bool mine = (role == 0   ? met[0]
                           : role == 1 ? met[1]
                                       : met[2]) &&
                          state.coefficient[code / 2][t] != 0;
        const unsigned lanes = __ballot_sync(kAllLanes, mine);
        const unsigned below = lanes & ((1U << lane) - 1);
        if (count + __popc(lanes) > kMostTouches) flush();
        if (mine)
          shared.sorted[count + __popc(below)] = static_cast<uint32_t>(t * kPairs * 2 + code);
        count += __popc(lanes);
      }
    }
    if (count > 0) flush();
  }
};

// Adds up the sums of the warps, and writes the gradient.
template <class T>
__device__ void write_hub(const TripletState& state, const GradientRow<T>& row, int set,
                          double* buffer, HubShared<T>& shared) {
  using Out = typename GradientType<T>::type;
  AlongRow<T> along;
  for (int64_t k = threadIdx.x; k < state.dim; k += kGatherThreads) {
    double sum = 0;
    for (int w = 0; w < kGatherWarps; ++w) sum += buffer[w * state.dim + k];
    buffer[k] = sum;
    along.add(sum, row.unit_feature(k));
  }
  const ExactSum of_warp = along.in_warp();
  if (lane_of() == 0) shared.along[warp_of()] = of_warp;
  __syncthreads();
  ExactSum total;
  for (const ExactSum& part : shared.along) total.add(part);
  auto* const out = static_cast<Out*>(state.grad[set]) + row.i * state.dim;
  for (int64_t k = threadIdx.x; k < state.dim; k += kGatherThreads) {
    out[k] = static_cast<Out>(row.through_norm(buffer[k], total.value(), k));
  }
  __syncthreads();
}

// Hubs number `first`, first + step, ...
template <class T, Steps steps>
__device__ __noinline__ void gather_hubs(const TripletState& state, const RowSets<T>& sets, int set,
                                         int32_t first, int32_t step, HubShared<T>& shared) {
  const Touches<T> touches{state, sets, *state.scale};
  double* const buffer = state.hub_buffer + int64_t{first} * kGatherWarps * state.dim;
  const int64_t share = (state.n + kGatherWarps - 1) / kGatherWarps;
  const int warp = warp_of();
  for (int32_t at = first; at < state.tally->n_hubs[set]; at += step) {
    const int64_t i = state.touches[set].hubs[at];
    const GradientRow<T> row(state.key, sets.of[set], i, state.dim);
    HubShare<T, steps> own{touches, row, shared.of_warp[warp], buffer + warp * state.dim};
    own.reset();
    if (state.touches[set].count[i] + 2 * kPairs <= kHubTouches) {
      sort_hub(state, set, i, shared);
      const int part = (shared.count + kGatherWarps - 1) / kGatherWarps;
      const int end = (warp + 1) * part < shared.count ? (warp + 1) * part : shared.count;
      own.add_sorted(shared.sorted, warp * part, end);
    } else {
      const int64_t end = (warp + 1) * share < state.n ? (warp + 1) * share : state.n;
      own.add_found(set, warp * share, end);
    }
    __syncthreads();
    write_hub(state, row, set, buffer, shared);
  }
}

template <class T, Steps steps>
__global__ void __launch_bounds__(kGatherThreads, steps == Steps::any ? 1 : 3)
    gather_gradients(const __grid_constant__ TripletState state,
                     const __grid_constant__ RowSets<T> sets, int set, unsigned hub_blocks) {
  await_inputs();
  __shared__ HubShared<T> shared;
  if (state.is_elsewhere()) return;
  if (blockIdx.x < hub_blocks) {
    gather_hubs<T, steps>(state, sets, set, static_cast<int32_t>(blockIdx.x),
                          static_cast<int32_t>(hub_blocks), shared);
    return;
  }
  const int64_t i = int64_t{blockIdx.x - hub_blocks} * kGatherWarps + warp_of();
  if (i < state.rows[set].n) gather_row<T, steps>(state, sets, set, i, shared.of_warp[warp_of()]);
}

}  // namespace flashmetric::cuda
