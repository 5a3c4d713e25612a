// SPDX-License-Identifier: BSD-3-Clause
// Packs rows for the tiles: the last kernel of `prepare`. A warp maps one row to
//   y = (x * scale - shift - centre) * unit,
// rounds it to bfloat16, writes it to its position in the order of classes, and bounds what
// rounding may have done (certificate.h).
//
// Layout: chunks of 64 features; in a chunk each row has 128 bytes, whose 16-byte pieces are
// exchanged, piece p to p ^ (row mod 8): what a swizzled tile in shared memory looks like, so that
// contiguous copies fill one.
#pragma once

#include "../certificate.h"
#include "fragments.h"
#include "state.cuh"

namespace flashmetric::cuda {

constexpr int kPackThreads = 256;

// What no tile may see: zeros that can never be chosen.
__device__ inline void write_padding(const RankedSet& set, int64_t position, int64_t chunks) {
  const int lane = threadIdx.x % kWarp;
  for (int64_t c = 0; c < chunks; ++c) {
    auto* row = reinterpret_cast<uint32_t*>(set.packed + (c * set.padded + position) * kFeatures);
    row[lane] = 0;
  }
  if (lane != 0) return;
  set.slack[position] = 0;
  set.lower[0][position] = set.lower[1][position] = __int_as_float(0x7F800000);
  set.run_begin[position] = set.run_end[position] = 0;
}

// The tensor cores multiply exactly, align the products of a step, eight at least, and the sum to
// the largest of them, cut what is below 2^-23 of it, and round once more: at most
// (9 / 8 + 1 / 8) * 2 dim u |y_i| |y_j|, the 2.5 dim u that row_slack and bf16_slack have together.
__device__ inline void write_bounds(const MineState& state, const RankedSet& set, int64_t position,
                                    RowLengths lengths, double square, double along, double norm) {
  const KeyFacts& key = state.key;
  const auto dim = static_cast<double>(state.dim);
  const bool product = key.form == Form::product;
  if (product && key.equally_long() && norm < kMinNorm) {
    lengths.gap = (lengths.unit * lengths.unit - lengths.full * lengths.full) / 2;
  }
  const auto offset =
      static_cast<float>(product && !key.equally_long() ? -along : square / 2 + lengths.gap);
  const float slack = score_slack<float>(key, lengths, 0, dim) + bf16_slack(lengths, dim);
  set.slack[position] = slack;
  for (int role = 0; role < 2; ++role) {
    set.lower[role][position] = (state.farthest[role] ? -offset : offset) - slack;
  }
}

// What one lane finds out about its features of y. Float sums: of dim / 32 terms a lane.
struct LaneSums {
  float square = 0, residual = 0, along = 0;

  __device__ __nv_bfloat16 add(float y, float centre) {
    const __nv_bfloat16 rounded = __float2bfloat16_rn(y);
    const float lost = y - __bfloat162float(rounded);
    square += y * y;
    residual += lost * lost;
    along += y * centre;
    return rounded;
  }
};

// How a row is mapped. The differences of narrow rows round once in float as they do in double.
struct RowMap {
  double factor, shift, unit;
  bool wide;

  template <class T>
  __device__ float of(T x, float centre) const {
    if (wide) {
      return static_cast<float>((widened(x) * factor - shift - static_cast<double>(centre)) * unit);
    }
    return (static_cast<float>(x) - centre) * static_cast<float>(unit);
  }
};

template <class T>
__device__ void write_row(const MineState& state, const RowView<T>& rows, const RankedSet& set,
                          const Frame& frame, int64_t i, int64_t position, int64_t chunks) {
  const KeyFacts& key = state.key;
  const double norm = rows.numbers.norm[i];
  const double factor = key.needs_norms() ? 1.0 / rows.numbers.clamped_norm(i) : 1.0;
  const bool wide = key.needs_norms() || key.relative || sizeof(T) == sizeof(double);
  const RowMap map{factor, key.relative ? rows.numbers.mean[i] : 0.0, frame.unit, wide};
  const T* x = rows.row(i);
  const auto unit = static_cast<float>(frame.unit);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t piece = swizzled_piece(static_cast<int>(position % 8), lane / 4);
  LaneSums sums;
  // Two features a lane: a chunk at a time.
#pragma unroll 2
  for (int64_t c = 0; c < chunks; ++c) {
    __nv_bfloat16 packed[2];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int64_t k = c * kFeatures + 2 * lane + e;
      const bool exists = k < state.dim;
      const float centre = exists ? state.centre[k] : 0;
      packed[e] = sums.add(exists ? map.of(x[k], centre) : 0, centre * unit);
    }
    auto* const to = set.packed + (c * set.padded + position) * kFeatures;
    reinterpret_cast<__nv_bfloat162*>(to)[piece * 4 + lane % 4] = {packed[0], packed[1]};
  }
  const double square = warp_sum(static_cast<double>(sums.square));
  const double residual = warp_sum(static_cast<double>(sums.residual));
  const double along = warp_sum(static_cast<double>(sums.along));
  if (lane != 0) return;
  RowLengths lengths{::sqrt(square), norm * factor * frame.unit, frame.centre_norm, frame.unit};
  lengths.residual = ::sqrt(residual);
  write_bounds(state, set, position, lengths, square, along, norm);
}

// What else the position of a row says.
__device__ inline void place_row(const MineState& state, const RankedSet& set, int side,
                                 int32_t row, int32_t position, bool regular) {
  const ClassTable& table = state.classes;
  const int32_t slot = set.slot[row];
  set.order[position] = row;
  set.position[row] = position;
  set.run_begin[position] = table.begin[1][slot];
  set.run_end[position] = table.begin[1][slot] + table.count[1][slot];
  if (regular) return;
  if (side == 1 || state.labels.symmetric) {
    const int32_t at = atomicAdd(&state.tally->n_irregular, 1);
    if (at < kIrregular) state.irregular[at] = position;
  }
  if (side == 0) state.judge_by_keys(row);
}

// A warp for each position; the warp of a row that takes part first finds its position, and those
// of positions without a row write padding.
template <class T>
__global__ void __launch_bounds__(kPackThreads)
    pack_rows(const __grid_constant__ MineState state, RowView<T> rows, int side) {
  const int64_t warp = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kWarp;
  const RankedSet& set = side == 0 ? state.ranked[0] : state.ranked[1];
  const int64_t chunks = (state.dim + kFeatures - 1) / kFeatures;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const unsigned long long cursor = state.tally->cursor;
  const auto total = static_cast<int64_t>(side == 0 ? cursor >> 32 : cursor & 0xFFFFFFFFULL);
  if (warp >= total && warp < set.padded) {
    if (lane == 0) set.order[warp] = -1;
    write_padding(set, warp, chunks);
  }
  if (warp >= rows.n) return;
  const int32_t slot = set.slot[warp];
  if (slot < 0) {
    if (lane == 0) set.position[warp] = -1;
    return;
  }
  int32_t position = 0;
  if (lane == 0) position = state.classes.begin[side][slot] + atomicAdd(set.taken + slot, 1);
  position = __shfl_sync(kAllLanes, position, 0);
  const Frame frame = frame_of(state);
  const bool regular = rows.numbers.norm[warp] <= frame.max_norm;
  if (regular) {
    write_row(state, rows, set, frame, warp, position, chunks);
  } else {
    write_padding(set, position, chunks);
  }
  if (lane == 0) place_row(state, set, side, static_cast<int32_t>(warp), position, regular);
}

}  // namespace flashmetric::cuda
