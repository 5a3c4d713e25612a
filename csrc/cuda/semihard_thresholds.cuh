// SPDX-License-Identifier: BSD-3-Clause
// Bounds of the scores of the positives of each anchor, in float64, for the tiles that look beyond
// them: a warp a position. Also what the tiles need to know of 32 references at a time.
#pragma once

#include "pack.cuh"
#include "semihard_state.cuh"

namespace flashmetric::cuda {

constexpr int kThresholdWarps = 8;

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

// The score of a pair, as certificate.h defines it. By a warp; all lanes have it.
__device__ inline double exact_score(const SemiHardState& state, const Frame& frame,
                                     const ExactRow& query, const ExactRow& ref) {
  double product = 0, square = 0, along = 0;
#pragma unroll 4
  for (int64_t k = lane_of(); k < state.dim; k += kWarp) {
    const float centre = frame.centre_norm > 0 ? state.centre[k] : 0;
    const double r = ref.of(k, centre);
    product += query.of(k, centre) * r;
    square += r * r;
    along += r * (widened(centre) * frame.unit);
  }
  const KeyFacts& key = state.key;
  if (key.form == Form::product && !key.equally_long()) return warp_sum(-along - product);
  const double offset = warp_sum(square / 2 - product);
  if (key.form != Form::product || ref.norm >= kMinNorm) return offset;
  const double length = ref.norm * ref.map.factor;
  return offset + frame.unit * frame.unit * (1 - length * length) / 2;
}

// The next float below, or above, but for a unit or two.
__device__ inline float rounded(double x, int direction) {
  constexpr double u = 2 * Precision<float>::roundoff;
  return static_cast<float>(x + direction * (u * ::fabs(x) + Precision<float>::smallest));
}

__device__ inline void bound_positives(const SemiHardState& state, const RowView<float>& x,
                                       const RowView<float>& r, int32_t position, int64_t i) {
  const RankedSet& queries = state.ranked[0];
  const PositiveRun run(state, i, position);
  const int count = run.count();
  if (count > kMostPositives && lane_of() == 0) *state.crowded = 1;
  const Frame frame = frame_of(state, state.is_whole());
  const ExactRow query(state, x, i, frame);
  const auto own = static_cast<double>(queries.slack[position]) + queries.wide_slack[position];
  for (int at = 0; at < kMostPositives; ++at) {
    float low = __int_as_float(0x7F800000);  // never
    float certain = low;
    if (at < count && count <= kMostPositives) {
      const int32_t other = run.of(at);
      const ExactRow ref(state, r, state.ranked[1].order[other], frame);
      const double score = exact_score(state, frame, query, ref);
      const double slack = own + state.ranked[1].wide_slack[other];
      low = rounded(score - slack, -1);
      certain = rounded(score + slack, 1);
    }
    if (lane_of() != 0) continue;
    state.low[at * queries.padded + position] = low;
    state.certain[at * queries.padded + position] = certain;
  }
}

__global__ void __launch_bounds__(kThresholdWarps* kWarp)
    bound_thresholds(const __grid_constant__ SemiHardState state, RowView<float> x,
                     RowView<float> r) {
  await_inputs();
  const auto position = static_cast<int32_t>(int64_t{blockIdx.x} * kThresholdWarps + warp_of());
  if (position < state.ranked[1].padded) {
    // Never the -1 of places that no row has: a window that is less than nothing wide is very wide
    // as an unsigned integer, and they would all be within.
    float slack = ::fmaxf(0, state.ranked[1].slack[position / kWarp * kWarp + lane_of()]);
    for (int mask = 1; mask < kWarp; mask *= 2) {
      slack = ::fmaxf(slack, __shfl_xor_sync(kAllLanes, slack, mask));
    }
    if (lane_of() == 0) state.widest[position] = slack;
  }
  if (position >= state.ranked[0].padded) return;
  const int32_t i = state.ranked[0].order[position];
  if (i >= 0) bound_positives(state, x, r, position, i);
}

}  // namespace flashmetric::cuda
