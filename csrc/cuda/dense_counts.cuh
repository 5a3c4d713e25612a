// SPDX-License-Identifier: BSD-3-Clause
// The weights of all positive and of all negative pairs of each anchor; labels alone decide.
#pragma once

#include "dense_block.cuh"
#include "dense_gate.cuh"

namespace flashmetric::cuda {

__global__ void __launch_bounds__(kRowThreads)
    count_pairs(const __grid_constant__ DenseState state) {
  __shared__ RowShared shared;
  const int64_t i = blockIdx.x;
  const RowRoles roles(state.labels, i);
  const double own = state.weight.of(i);
  const bool weighs_columns = state.labels.symmetric && state.weight.values != nullptr;
  ExactSum sums[2];
  for (int64_t j = threadIdx.x; j < state.ref.n && state.labels.query_takes_part(i);
       j += kRowThreads) {
    const Role role = roles.of(j);
    const double weight = own * (weighs_columns ? state.weight.of(j) : 1.0);
    if (role == kPositive) sums[0].add(weight);
    if (role == kNegative) sums[1].add(weight);
  }
  sum_block(sums, shared);
  if (threadIdx.x != 0) return;
  RowTotals totals;
  totals.counted[0] = sums[0].value();
  totals.counted[1] = sums[1].value();
  state.totals[i] = totals;
}

// Anchors that share a look at each label: what is left of the loads are 4096^2 / 8 labels, of 8
// bytes, 16 MiB.
constexpr int kCountRows = 8;
constexpr int kCounts = kCountRows + 1;  // references of the class of each, and all that take part

// The sums over the block: of_warp[0] has them.
__device__ inline void sum_counts(int (&own)[kCounts], int (&of_warp)[kRowWarps][kCounts]) {
#pragma unroll
  for (int c = 0; c < kCounts; ++c) {
    const int sum = sum_through_lane(own[c]);
    if (lane_of() == kWarp - 1) of_warp[warp_of()][c] = sum;
  }
  __syncthreads();
  const auto t = static_cast<int>(threadIdx.x);
  for (int warp = 1; warp < kRowWarps && t < kCounts; ++warp) of_warp[0][t] += of_warp[warp][t];
  __syncthreads();
}

// The same of classes and without weights: who takes part and is no positive is a negative.
__global__ void __launch_bounds__(kRowThreads)
    count_classes(const __grid_constant__ DenseState state) {
  __shared__ int of_warp[kRowWarps][kCounts];
  const LabelView& labels = state.labels;
  const auto* const ids = static_cast<const int64_t*>(labels.ref);
  const auto* const anchors = static_cast<const int64_t*>(labels.query);
  const int64_t first = int64_t{blockIdx.x} * kCountRows;
  int64_t own[kCountRows];
#pragma unroll
  for (int a = 0; a < kCountRows; ++a) {
    own[a] = anchors[first + a < state.query.n ? first + a : first];
  }
  int counts[kCounts] = {};
#pragma unroll 4
  for (int64_t j = threadIdx.x; j < state.ref.n; j += kRowThreads) {
    const int takes_part = labels.ref_takes_part(j) ? 1 : 0;
#pragma unroll
    for (int a = 0; a < kCountRows; ++a) counts[a] += ids[j] == own[a] ? takes_part : 0;
    counts[kCountRows] += takes_part;
  }
  sum_counts(counts, of_warp);
  const int64_t i = first + threadIdx.x;
  if (threadIdx.x >= kCountRows || i >= state.query.n) return;
  RowTotals totals;
  if (labels.query_takes_part(i)) {
    int positives = of_warp[0][threadIdx.x];
    int all = of_warp[0][kCountRows];
    const int64_t self = labels.self(i);
    if (self >= 0 && self < state.ref.n && labels.ref_takes_part(self)) {
      all -= 1;
      positives -= ids[self] == anchors[i] ? 1 : 0;
    }
    totals.counted[0] = positives;
    totals.counted[1] = all - positives;
  }
  state.totals[i] = totals;
}

}  // namespace flashmetric::cuda
