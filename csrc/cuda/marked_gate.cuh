// SPDX-License-Identifier: BSD-3-Clause
// Marks the pairs of a tile: those whose sum of products is above the limit of their row. Sums
// begin with the bound of a negative, so that a sum is -lower (gate.cuh).
//
// Algorithm: the sign of limit - sum is shifted into a word; nothing depends on the data.
//
// Numerics: with h_ij of the dense rows (dense_state.cuh) and score_ij of the tiles,
//   difference keys                    score = h - half_i
//   product keys of normalised rows    score = h - half_i + unit^2 / 2
// for half is that of the row, or -(|centre|^2 / 2 + <centre, y>). h is off by the slack of the
// dense row, lower by that of the tile's; what is computed here rounds a few times in float64, once
// to float, and half has rounded: 4 u of all that is added leave room for it.
#pragma once

#include "dense_scale.cuh"
#include "fragments.h"
#include "marked_state.cuh"
#include "ptx.cuh"

namespace flashmetric::cuda {

// What is above has a mark: of row number i at a position.
__device__ inline float mark_limit(const MarkedState& state, int64_t i, int32_t position) {
  const float slack = state.ranked[0].slack[position];
  const float infinity = __int_as_float(0x7F800000);
  if (i < 0 || slack < 0) return infinity;  // nobody, or a row whose pairs keys judge
  const double key =
      state.bounds != nullptr ? state.bounds[1] : key_of(state.key, state.margin.of(i));
  const double h = state.scale->half(key);
  if (h < -Precision<float>::highest) return infinity;  // no pair has a term
  const Frame frame = frame_of(state);
  const double moved = state.key.form == Form::product ? frame.unit * frame.unit / 2 : 0;
  const auto half = static_cast<double>(state.half[i]);
  constexpr double u = Precision<float>::roundoff;
  double highest = h - half + moved;
  highest += static_cast<double>(slack) + static_cast<double>(state.dense_slack[i]);
  highest += 4 * u * (::fabs(h) + ::fabs(half) + moved) + Precision<float>::smallest;
  // NaN tells nothing: everything is marked.
  return highest == highest ? static_cast<float>(-highest) : -infinity;
}

template <int slots>
struct MarkRows {
  static constexpr int kSharedBytes = 0;
  int32_t stream;
  int32_t row[slots];  // of the marks
  float limit[slots];

  FM_DEVICE void attach(int32_t*, int) {}
  FM_DEVICE void start(const MarkedState& state, int slot, int32_t at) {
    row[slot] = at - state.first_query;
    limit[slot] = mark_limit(state, state.ranked[0].order[at], at);
  }
  FM_DEVICE void find_special() {}
};

// No tile is surveyed, and there is nothing to tell when all are done.
template <int slots, class Sync>
FM_DEVICE void share_thresholds(const MarkedState&, MarkRows<slots>&, bool, const Sync&) {}
template <int slots>
FM_DEVICE void publish_rows(const MarkedState&, const MarkRows<slots>&) {}

template <int slots, int blocks, class Acc>
struct MarkGate {
  const MarkedState& state;
  MarkRows<slots>& rows;
  const float* columns;
  int32_t first;  // column of the tile
  const Acc& acc;

  FM_DEVICE void survey() const {}
  FM_DEVICE void run() const {
    constexpr int each = kMarkBits / 2;  // blocks of eight columns
    const int64_t place = first / kMarkBits + threadIdx.x % 4;
#pragma unroll
    for (int s = 0; s < slots; ++s) {
      uint16_t* const to = state.marks + rows.row[s] * state.marks_of_row() + place;
#pragma unroll
      for (int b = 0; b < blocks; b += each) {
        uint32_t bits = 0;
#pragma unroll
        for (int v = kMarkBits - 1; v >= 0; --v) {
          const float left = rows.limit[s] - acc(s, b + v / 2, v % 2);
          bits = bits << 1 | __float_as_uint(left) >> 31;
        }
        to[b / each * 4] = static_cast<uint16_t>(bits);
      }
    }
  }
};

// POLICY of a main loop.
struct MarkPairs {
  using State = MarkedState;
  static FM_DEVICE bool idle(const MarkedState& state) { return state.all_by_keys(); }
  template <int slots, int threads, bool registers>
  using Rows = MarkRows<slots>;
  template <int slots, int blocks, int stride, class Rows, class Acc>
  using Gate = MarkGate<slots, blocks, Acc>;
};

}  // namespace flashmetric::cuda
