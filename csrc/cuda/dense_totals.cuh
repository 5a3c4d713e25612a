// SPDX-License-Identifier: BSD-3-Clause
// From what each anchor adds to the value, the scales, and the statistics of a dense loss: blocks
// add up some anchors each, in a fixed tree, and the one that finishes last adds up these sums, in
// the same one.
#pragma once

#include "dense_state.cuh"

namespace flashmetric::cuda {

constexpr int kTotalThreads = 128;
constexpr int kTotalBlocks = kTotalThreads;  // at most: each thread of the last takes one

FM_HD void add_sums(DenseSums& sums, const DenseSums& other) {
  for (int kind = 0; kind < 2; ++kind) {
    sums.term[kind].add(other.term[kind]);
    sums.counted[kind].add(other.counted[kind]);
    sums.active[kind].add(other.active[kind]);
  }
  sums.ap.add(other.ap);
  sums.an.add(other.an);
  sums.norms.add(other.norms);
  sums.valid += other.valid;
  sums.members += other.members;
  sums.live += other.live;
  sums.n_ap += other.n_ap;
  sums.n_an += other.n_an;
  sums.max_ap = farther(sums.max_ap, other.max_ap);
  sums.min_an = nearer(sums.min_an, other.min_an);
}

// Those of another lane.
__device__ inline DenseSums from_lane(const DenseSums& own, int mask) {
  constexpr int words = sizeof(DenseSums) / sizeof(double);
  static_assert(words * sizeof(double) == sizeof(DenseSums));
  double word[words];
  __builtin_memcpy(word, &own, sizeof own);
#pragma unroll
  for (double& each : word) each = __shfl_xor_sync(kAllLanes, each, mask);
  DenseSums other;
  __builtin_memcpy(&other, word, sizeof other);
  return other;
}

// The sums of all threads, in shared[0]: of warps by exchanges, which take a fraction of the time
// that as many steps through shared memory do.
constexpr int kTotalWarps = kTotalThreads / kWarp;
__device__ inline void sum_threads(DenseSums own, DenseSums* shared) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) add_sums(own, from_lane(own, mask));
  __syncthreads();
  if (lane_of() == 0) shared[warp_of()] = own;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < kTotalWarps; ++w) add_sums(shared[0], shared[w]);
  }
  __syncthreads();
}

// Whether this block has finished last: then the sums of all anchors are in shared[0].
__device__ inline bool sum_totals(const DenseState& state, DenseSums* shared) {
  __shared__ bool last;
  const auto t = static_cast<int>(threadIdx.x);
  const int64_t step = int64_t{gridDim.x} * kTotalThreads;
  DenseSums own;
  for (int64_t i = int64_t{blockIdx.x} * kTotalThreads + t; i < state.query.n; i += step) {
    own.add(state.totals[i], state.of_pairs);
    if (state.stats != nullptr) own.norms.add(state.query.numbers.norm[i]);
  }
  sum_threads(own, shared);
  if (t == 0) {
    state.block_sums[blockIdx.x] = shared[0];
    __threadfence();
    last = atomicAdd(&state.tally->finished, 1) == static_cast<int>(gridDim.x) - 1;
  }
  __syncthreads();
  if (!last) return false;
  __threadfence();
  if (t == 0) state.tally->finished = 0;  // for the next kernel that counts
  DenseSums all;
  if (t < static_cast<int>(gridDim.x)) all = state.block_sums[t];
  sum_threads(all, shared);
  return true;
}

// Scales from what was counted (or, of mean_active, from a first visit), before coefficients that
// need them.
__global__ void __launch_bounds__(kTotalThreads)
    find_scales(const __grid_constant__ DenseState state, bool counts) {
  alignas(16) __shared__ char memory[kTotalWarps * sizeof(DenseSums)];
  auto* const shared = reinterpret_cast<DenseSums*>(memory);
  if (!sum_totals(state, shared) || threadIdx.x != 0) return;
  const DenseTotals totals = shared[0].totals();
  if (counts) *state.counted = totals;
  *state.scales = scales_of(state.reduction, true, totals);
}

template <class T>
__global__ void __launch_bounds__(kTotalThreads)
    finish_dense(const __grid_constant__ DenseState state) {
  await_inputs();
  if (!state.is_asked()) return;
  alignas(16) __shared__ char memory[kTotalWarps * sizeof(DenseSums)];
  auto* const shared = reinterpret_cast<DenseSums*>(memory);
  auto* const out = static_cast<T*>(state.out);
  const bool each = state.reduction == DenseReduction::none;
  const int64_t step = int64_t{gridDim.x} * kTotalThreads;
  for (int64_t i = int64_t{blockIdx.x} * kTotalThreads + threadIdx.x; each && i < state.query.n;
       i += step) {
    out[i] = static_cast<T>(state.totals[i].term[0] + state.totals[i].term[1]);
  }
  if (!sum_totals(state, shared) || threadIdx.x != 0) return;
  DenseTotals totals = shared[0].totals();
  if (state.scaled) totals.counted[1] = state.counted->counted[1];
  const KindScales scales = scales_of(state.reduction, state.by_kind, totals);
  if (!state.scaled) *state.scales = scales;
  if (!each) *out = static_cast<T>(scales.value_of(totals));
  if (state.stats != nullptr) shared[0].write_statistics(state.stats, state.query.n);
}

}  // namespace flashmetric::cuda
