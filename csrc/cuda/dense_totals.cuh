// SPDX-License-Identifier: BSD-3-Clause
// From what each anchor adds to the value, the scales, and the statistics of a dense loss: blocks
// add up some anchors each, in a fixed tree, and the one that finishes last adds up these sums, in
// the same one. A thread has one of the quantities: one with all of them would fetch instructions
// for longer than it runs them.
#pragma once

#include <cstddef>

#include "dense_state.cuh"

namespace flashmetric::cuda {

constexpr int kTotalThreads = 128;
constexpr int kTotalBlocks = 128;  // at most
constexpr int kTotalRows = 64;     // of a block, while these are enough
// What is read ahead of it being added.
constexpr int kTotalsAhead = 4;

// The numbers of RowTotals, in their order, those by kind twice; and behind them whether an anchor
// is valid, and norms.
enum Quantity : int {
  kTerm = 0,
  kCounted = 2,
  kActive = 4,
  kMembers = 6,
  kLive,
  kSumAP,
  kSumAN,
  kCountAP,
  kCountAN,
  kMaxAP,
  kMinAN,
  kValid,
  kNorms,
  kQuantities
};
static_assert(sizeof(RowTotals) == kValid * sizeof(double));
static_assert(offsetof(RowTotals, active) == kActive * sizeof(double));
static_assert(offsetof(RowTotals, sum_ap) == kSumAP * sizeof(double));
static_assert(offsetof(RowTotals, max_ap) == kMaxAP * sizeof(double));
constexpr int kTotalShares = kTotalThreads / kQuantities;
using TotalShares = ExactSum[kTotalShares][kQuantities];

__device__ inline ExactSum nothing_of(int quantity) {
  return {quantity == kMaxAP ? -kNever : quantity == kMinAN ? kNever : 0.0, 0};
}
__device__ inline void add_total(int quantity, const ExactSum& other, ExactSum& sum) {
  if (quantity == kMaxAP) {
    sum.sum = farther(sum.sum, other.sum);
  } else if (quantity == kMinAN) {
    sum.sum = nearer(sum.sum, other.sum);
  } else {
    sum.add(other);
  }
}
__device__ inline double total_of(const DenseState& state, int64_t i, int quantity) {
  const RowTotals& row = state.totals[i];
  if (quantity < kValid) return reinterpret_cast<const double*>(&row)[quantity];
  if (quantity == kValid) return row.valid(state.of_pairs) ? 1 : 0;
  return state.stats != nullptr ? state.query.numbers.norm[i] : 0;
}

// The sums of read(i, quantity) over i = first, first + step, ..., each thread of a quantity with a
// share of them, in shares[0].
template <class Read>
__device__ void sum_shares(int64_t first, int64_t step, int64_t n, const Read& read,
                           TotalShares& shares) {
  const int quantity = static_cast<int>(threadIdx.x) % kQuantities;
  const int share = static_cast<int>(threadIdx.x) / kQuantities;
  ExactSum own = nothing_of(quantity);
  for (int64_t i = first + share; i < n; i += kTotalsAhead * step) {
    ExactSum ahead[kTotalsAhead];
#pragma unroll
    for (int u = 0; u < kTotalsAhead; ++u) {
      ahead[u] = i + u * step < n ? read(i + u * step, quantity) : nothing_of(quantity);
    }
#pragma unroll
    for (const ExactSum& each : ahead) add_total(quantity, each, own);
  }
  __syncthreads();
  shares[share][quantity] = own;
  __syncthreads();
  if (share == 0) {
    for (int s = 1; s < kTotalShares; ++s) add_total(quantity, shares[s][quantity], own);
    shares[0][quantity] = own;
  }
  __syncthreads();
}

// Whether this block has finished last: then the sums of all anchors are in shares[0].
__device__ inline bool sum_totals(const DenseState& state, TotalShares& shares) {
  __shared__ bool last;
  const auto t = static_cast<int>(threadIdx.x);
  sum_shares(
      int64_t{blockIdx.x} * kTotalShares, int64_t{gridDim.x} * kTotalShares, state.query.n,
      [&](int64_t i, int quantity) { return ExactSum{total_of(state, i, quantity), 0}; }, shares);
  if (t < kQuantities) state.block_sums[blockIdx.x * kQuantities + t] = shares[0][t];
  __threadfence();
  __syncthreads();
  if (t == 0) last = atomicAdd(&state.tally->finished, 1) == static_cast<int>(gridDim.x) - 1;
  __syncthreads();
  if (!last) return false;
  __threadfence();
  if (t == 0) state.tally->finished = 0;  // for the next kernel that counts
  sum_shares(
      0, kTotalShares, gridDim.x,
      [&](int64_t i, int quantity) { return state.block_sums[i * kQuantities + quantity]; },
      shares);
  return true;
}

__device__ inline DenseSums sums_of(const ExactSum (&of)[kQuantities]) {
  DenseSums sums;
  for (int kind = 0; kind < 2; ++kind) {
    sums.term[kind] = of[kTerm + kind];
    sums.counted[kind] = of[kCounted + kind];
    sums.active[kind] = of[kActive + kind];
  }
  sums.members = of[kMembers].value();
  sums.live = of[kLive].value();
  sums.ap = of[kSumAP];
  sums.an = of[kSumAN];
  sums.n_ap = of[kCountAP].value();
  sums.n_an = of[kCountAN].value();
  sums.max_ap = of[kMaxAP].sum;
  sums.min_an = of[kMinAN].sum;
  sums.valid = of[kValid].value();
  sums.norms = of[kNorms];
  return sums;
}

// Scales from what was counted (or, of mean_active, from a first visit), before coefficients that
// need them.
__global__ void __launch_bounds__(kTotalThreads)
    find_scales(const __grid_constant__ DenseState state, bool counts) {
  alignas(16) __shared__ char memory[sizeof(TotalShares)];
  auto& shares = reinterpret_cast<TotalShares&>(memory);
  if (!sum_totals(state, shares) || threadIdx.x != 0) return;
  const DenseTotals totals = sums_of(shares[0]).totals();
  if (counts) *state.counted = totals;
  *state.scales = scales_of(state.reduction, true, totals);
}

template <class T>
__global__ void __launch_bounds__(kTotalThreads)
    finish_dense(const __grid_constant__ DenseState state) {
  await_inputs();
  if (!state.is_asked()) return;
  alignas(16) __shared__ char memory[sizeof(TotalShares)];
  auto& shares = reinterpret_cast<TotalShares&>(memory);
  auto* const out = static_cast<T*>(state.out);
  const bool each = state.reduction == DenseReduction::none;
  const int64_t step = int64_t{gridDim.x} * kTotalThreads;
  for (int64_t i = int64_t{blockIdx.x} * kTotalThreads + threadIdx.x; each && i < state.query.n;
       i += step) {
    out[i] = static_cast<T>(state.totals[i].term[0] + state.totals[i].term[1]);
  }
  if (!sum_totals(state, shares) || threadIdx.x != 0) return;
  const DenseSums sums = sums_of(shares[0]);
  DenseTotals totals = sums.totals();
  if (state.scaled) totals.counted[1] = state.counted->counted[1];
  const KindScales scales = scales_of(state.reduction, state.by_kind, totals);
  if (!state.scaled) *state.scales = scales;
  if (!each) *out = static_cast<T>(scales.value_of(totals));
  if (state.stats != nullptr) sums.write_statistics(state.stats, state.query.n);
}

}  // namespace flashmetric::cuda
