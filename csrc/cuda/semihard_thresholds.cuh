// SPDX-License-Identifier: BSD-3-Clause
// Bounds of the scores of the positives of each anchor, in float64, for the tiles that look beyond
// them: eight lanes a position, two scores at a time, for most of it is to wait for memory. Also
// what the tiles need to know of 32 references at a time.
#pragma once

#include "pack.cuh"
#include "semihard_state.cuh"

namespace flashmetric::cuda {

constexpr int kThresholdThreads = 256;

// A row in the frame, in float64.
struct ExactRow {
  const float* x;
  RowMap map;
  double norm;

  __device__ ExactRow(const SemiHardState& state, const RowView<float>& rows, int64_t i,
                      const Frame& frame)
      : x(rows.row(i)), map(map_of(state.key, rows, i, frame.unit)), norm(rows.numbers.norm[i]) {}
  __device__ double of(int64_t k, float centre) const {
    return (widened(x[k]) * map.factor - map.shift - widened(centre)) * map.unit;
  }
};

// The scores of two pairs of a query, as certificate.h defines them. By eight lanes, which all have
// them.
__device__ inline void exact_scores(const SemiHardState& state, const Frame& frame,
                                    const ExactRow& query, const ExactRow (&ref)[2],
                                    double (&score)[2]) {
  double product[2] = {}, square[2] = {}, along[2] = {};
#pragma unroll 4
  for (int64_t k = lane_of() % 8; k < state.dim; k += 8) {
    const float centre = frame.centre_norm > 0 ? state.centre[k] : 0;
    const double own = query.of(k, centre);
#pragma unroll
    for (int u = 0; u < 2; ++u) {
      const double r = ref[u].of(k, centre);
      product[u] += own * r;
      square[u] += r * r;
      along[u] += r * (widened(centre) * frame.unit);
    }
  }
  const KeyFacts& key = state.key;
  const bool equally_long = key.form != Form::product || key.equally_long();
#pragma unroll
  for (int u = 0; u < 2; ++u) {
    score[u] = sum8(equally_long ? square[u] / 2 - product[u] : -along[u] - product[u]);
    if (key.form != Form::product || !equally_long || ref[u].norm >= kMinNorm) continue;
    const double length = ref[u].norm * ref[u].map.factor;
    score[u] += frame.unit * frame.unit * (1 - length * length) / 2;
  }
}

// The next float below, or above, but for a unit or two.
__device__ inline float rounded(double x, int direction) {
  constexpr double u = 2 * Precision<float>::roundoff;
  return static_cast<float>(x + direction * (u * ::fabs(x) + Precision<float>::smallest));
}

// Lane q of eight writes the bounds of positive q.
__device__ inline void bound_positives(const SemiHardState& state, const RowView<float>& x,
                                       const RowView<float>& r, int32_t position, int64_t i) {
  const RankedSet& queries = state.ranked[0];
  const int own = lane_of() % 8;
  const PositiveRun run(state, i, position);
  const bool crowded = run.count() > kMostPositives;
  if (crowded && own == 0) *state.crowded = 1;
  const int count = crowded ? 0 : run.count();
  const Frame frame = frame_of(state, state.is_whole());
  const ExactRow query(state, x, i, frame);
  const auto slack_of_row =
      static_cast<double>(queries.slack[position]) + queries.wide_slack[position];
  float low = __int_as_float(0x7F800000);  // never
  float certain = low;
  for (int at = 0; __any_sync(kAllLanes, at < count); at += 2) {
    // For a positive that is not there any row comes along.
    const int32_t other[2] = {at < count ? run.of(at) : -1, at + 1 < count ? run.of(at + 1) : -1};
    const auto row = [&](int32_t place) -> int64_t {
      return place >= 0 ? state.ranked[1].order[place] : 0;
    };
    const ExactRow ref[2] = {{state, r, row(other[0]), frame}, {state, r, row(other[1]), frame}};
    double score[2];
    exact_scores(state, frame, query, ref, score);
#pragma unroll
    for (int u = 0; u < 2; ++u) {
      if (own != at + u || other[u] < 0) continue;
      const double slack = slack_of_row + state.ranked[1].wide_slack[other[u]];
      low = rounded(score[u] - slack, -1);
      certain = rounded(score[u] + slack, 1);
    }
  }
  state.low[own * queries.padded + position] = low;
  state.certain[own * queries.padded + position] = certain;
}

// By a warp, for four references, of the 32 that they are among. Never the -1 of places that no row
// has: a width less than that is large as an unsigned integer, and every window would be open.
__device__ inline void bound_slacks(const SemiHardState& state, int32_t first) {
  float slack = ::fmaxf(0, state.ranked[1].slack[first / kWarp * kWarp + lane_of()]);
  for (int mask = 1; mask < kWarp; mask *= 2) {
    slack = ::fmaxf(slack, __shfl_xor_sync(kAllLanes, slack, mask));
  }
  if (lane_of() < 4) state.widest[first + lane_of()] = slack;
}

__global__ void __launch_bounds__(kThresholdThreads)
    bound_thresholds(const __grid_constant__ SemiHardState state, RowView<float> x,
                     RowView<float> r) {
  await_inputs();
  const auto position =
      static_cast<int32_t>((int64_t{blockIdx.x} * kThresholdThreads + threadIdx.x) / 8);
  const int32_t first = position - position % 4;  // of the warp
  if (first < state.ranked[1].padded) bound_slacks(state, first);
  if (first >= state.ranked[0].padded) return;
  const int32_t i = state.ranked[0].order[position];
  // Behind the rows there is no positive.
  if (__any_sync(kAllLanes, i >= 0)) bound_positives(state, x, r, position, i < 0 ? 0 : i);
}

}  // namespace flashmetric::cuda
