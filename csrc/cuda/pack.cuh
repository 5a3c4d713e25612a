// SPDX-License-Identifier: BSD-3-Clause
// Packs rows for the tiles: the last kernel of `prepare`. A warp maps one row to
//   y = (x * scale - shift - centre) * unit,
// rounds it to bfloat16, writes it to its position in the order of classes, and bounds what
// rounding may have done (certificate.h). A row that is split is written as two such rows, what
// rounding takes from it being the second.
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

// 24 bits are three times the eight of a bfloat16.
__device__ inline void write_start(const RankedSet& set, int64_t position, float start) {
  constexpr float infinity = __builtin_huge_valf();
  uint32_t bits[3];
  for (uint32_t& term : bits) {
    const auto narrow = __float2bfloat16_rn(start);
    term = __bfloat16_as_ushort(narrow);
    start = ::fabsf(start) < infinity ? start - __bfloat162float(narrow) : 0;
  }
  static_assert(kStartTerms == 8);
  reinterpret_cast<uint4*>(set.start)[position] = {bits[1] << 16 | bits[0], bits[2], 0, 0};
}

// What no tile may see: zeros that can never be chosen.
__device__ inline void write_padding(const MineState& state, const RankedSet& set, int64_t position,
                                     int64_t chunks) {
  const int lane = threadIdx.x % kWarp;
  for (int64_t c = 0; c < chunks; ++c) {
    auto* row = reinterpret_cast<uint32_t*>(set.packed + (c * set.padded + position) * kFeatures);
    row[lane] = 0;
  }
  if (lane != 0) return;
  set.slack[position] = 0;
  const float never = __int_as_float(0x7F800000);
  write_start(set, position, state.split ? 0 : state.farthest[kNegative] ? never : -never);
  set.shift[position] = never;
  set.run_begin[position] = set.run_end[position] = 0;
}

// The tensor cores multiply exactly, align the products of a step, eight at least, and the sum to
// the largest of them, cut what is below 2^-23 of it, and round once more: at most
// (9 / 8 + 1 / 8) * 2 dim u (|y_i| |y_j| + |start|), where row_slack and bf16_slack have together
// the 2.5 dim u of the first, and |start| <= |offset| + slack. The terms of the start are one more
// instruction, of 16 products.
__device__ inline void write_whole(const MineState& state, const RankedSet& set, int64_t position,
                                   float offset, float known) {
  const auto summed =
      static_cast<float>(2.5 * static_cast<double>(state.dim + 16) * Precision<float>::roundoff);
  // 2^-18: of the roundings here.
  const float slack = (known + summed * ::fabsf(offset)) / (1 - summed) * (1 + 0x1p-18F);
  float lower[2];
  for (int role = 0; role < 2; ++role) {
    lower[role] = (state.farthest[role] ? -offset : offset) - slack;
  }
  const bool alike = state.farthest[kPositive] == state.farthest[kNegative];
  set.slack[position] = slack;
  write_start(set, position, state.farthest[kNegative] ? lower[kNegative] : -lower[kNegative]);
  set.shift[position] =
      alike ? lower[kPositive] - lower[kNegative] : lower[kPositive] + lower[kNegative];
}

// Rows that are split: sums begin with 0, for what they begin with would be as large as they ever
// are. A pair is compared by shift - sum, an upper bound of its score; shift and difference round
// once each.
__device__ inline void write_halves(const RankedSet& set, int64_t position, float offset,
                                    float known) {
  constexpr auto u = static_cast<float>(Precision<float>::roundoff);
  const float slack = (known + 4 * u * ::fabsf(offset)) * (1 + 0x1p-18F);
  set.slack[position] = slack;
  write_start(set, position, 0);
  set.shift[position] = offset + slack;
}

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
  const float known = score_slack<float>(key, lengths, 0, dim);
  if (state.split) {
    write_halves(set, position, offset, known + split_slack(lengths, dim));
    // Twice: lengths are those of y in float32, and computed so.
    set.wide_slack[position] = 2 * score_slack<double>(key, lengths, 0, dim);
  } else {
    write_whole(state, set, position, offset, known + bf16_slack(lengths, dim));
  }
}

// What one lane finds out about its features of y. Float sums: of dim / 32 terms a lane.
struct LaneSums {
  float square = 0, low = 0, residual = 0, along = 0, running = 0;

  struct Halves {
    __nv_bfloat16 high, low;
  };
  // steps: of eight products, from that of y on.
  __device__ Halves add(float y, float centre, bool split, int steps) {
    Halves halves{__float2bfloat16_rn(y), {}};
    float lost = y - __bfloat162float(halves.high);
    if (split) {
      halves.low = __float2bfloat16_rn(lost);
      const float kept = __bfloat162float(halves.low);
      low += kept * kept;
      lost -= kept;
      running += y * y * static_cast<float>(steps);
    }
    square += y * y;
    residual += lost * lost;
    along += y * centre;
    return halves;
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

// A row whose features are packed: what is left to do takes one thread.
struct PackedRow {
  int32_t row = -1;  // none
  int32_t position = 0;
  bool regular = false;
  double square = 0, low = 0, residual = 0, along = 0, running = 0;  // sums over features
};

template <class T>
__device__ RowMap map_of(const KeyFacts& key, const RowView<T>& rows, int64_t i, double unit) {
  const bool wide = key.needs_norms() || key.relative || sizeof(T) == sizeof(double);
  return {key.needs_norms() ? 1.0 / rows.numbers.clamped_norm(i) : 1.0,
          key.relative ? rows.numbers.mean[i] : 0.0, unit, wide};
}

// Two features a lane: a chunk at a time.
template <class T>
__device__ void write_features(const MineState& state, const RowView<T>& rows, const RankedSet& set,
                               const Frame& frame, int64_t chunks, PackedRow& row) {
  const RowMap map = map_of(state.key, rows, row.row, frame.unit);
  const T* x = rows.row(row.row);
  const auto narrow_unit = static_cast<float>(frame.unit);
  const int lane = lane_of();
  const int64_t piece = swizzled_piece(row.position % 8, lane / 4);
  LaneSums sums;
#pragma unroll 2
  for (int64_t c = 0; c < chunks; ++c) {
    LaneSums::Halves packed[2];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int64_t k = c * kFeatures + 2 * lane + e;
      const bool exists = k < state.dim;
      const float centre = exists && frame.centre_norm > 0 ? state.centre[k] : 0;
      // An instruction takes 16 products, two steps, in any order.
      const auto steps = static_cast<int>((state.dim + 15) / 16 - k / 16) * 2;
      packed[e] =
          sums.add(exists ? map.of(x[k], centre) : 0, centre * narrow_unit, state.split, steps);
    }
    const auto write = [&](int64_t chunk, __nv_bfloat16 first, __nv_bfloat16 second) {
      auto* const to = set.packed + (chunk * set.padded + row.position) * kFeatures;
      reinterpret_cast<__nv_bfloat162*>(to)[piece * 4 + lane % 4] = {first, second};
    };
    write(c, packed[0].high, packed[1].high);
    if (state.split) write(chunks + c, packed[0].low, packed[1].low);
  }
  row.square = warp_sum(static_cast<double>(sums.square));
  row.low = warp_sum(static_cast<double>(sums.low));
  row.running = warp_sum(static_cast<double>(sums.running));
  row.residual = warp_sum(static_cast<double>(sums.residual));
  row.along = warp_sum(static_cast<double>(sums.along));
}

// What else the position of a row says.
__device__ inline void place_row(const MineState& state, const RankedSet& set, int side,
                                 const PackedRow& row) {
  const ClassTable& table = state.classes;
  const int32_t slot = set.slot[row.row];
  set.order[row.position] = row.row;
  set.position[row.row] = row.position;
  set.run_begin[row.position] = table.begin[1][slot];
  set.run_end[row.position] = table.begin[1][slot] + table.count[1][slot];
  if (row.regular) return;
  if (side == 1 || state.labels.symmetric) {
    const int32_t at = atomicAdd(&state.tally->n_irregular, 1);
    if (at < kIrregular) state.irregular[at] = row.position;
  }
  if (side == 0) state.judge_by_keys(row.row);
}

template <class T>
__device__ void finish_row(const MineState& state, const RowView<T>& rows, const RankedSet& set,
                           const Frame& frame, int side, const PackedRow& row) {
  place_row(state, set, side, row);
  if (!row.regular) return;
  const double norm = rows.numbers.norm[row.row];
  const double factor = map_of(state.key, rows, row.row, frame.unit).factor;
  RowLengths lengths{::sqrt(row.square), norm * factor * frame.unit, frame.centre_norm, frame.unit};
  lengths.residual = ::sqrt(row.residual);
  lengths.low = ::sqrt(row.low);
  lengths.running = row.running;
  write_bounds(state, set, row.position, lengths, row.square, row.along, norm);
}

// Finds the position of row number `warp` and packs it there.
template <class T>
__device__ PackedRow pack_row(const MineState& state, const RowView<T>& rows, const RankedSet& set,
                              const Frame& frame, int side, int64_t warp, int64_t chunks) {
  PackedRow row;
  if (warp >= rows.n) return row;
  const int32_t slot = set.slot[warp];
  if (slot < 0) {
    if (lane_of() == 0) set.position[warp] = -1;
    return row;
  }
  row.row = static_cast<int32_t>(warp);
  if (lane_of() == 0)
    row.position = state.classes.begin[side][slot] + atomicAdd(set.taken + slot, 1);
  row.position = __shfl_sync(kAllLanes, row.position, 0);
  row.regular = rows.numbers.norm[warp] <= frame.max_norm;
  if (row.regular) {
    write_features(state, rows, set, frame, chunks, row);
  } else {
    write_padding(state, set, row.position, state.products().stored());
  }
  return row;
}

// A warp for each position; the warp of a row that takes part first finds its position, and those
// of positions without a row write padding.
template <class T>
__global__ void __launch_bounds__(kPackThreads)
    pack_rows(const __grid_constant__ MineState state, RowView<T> rows, int side) {
  await_inputs();
  constexpr int warps = kPackThreads / kWarp;
  __shared__ Frame frame;
  __shared__ PackedRow packed[warps];
  const int64_t warp = int64_t{blockIdx.x} * warps + warp_of();
  const RankedSet& set = side == 0 ? state.ranked[0] : state.ranked[1];
  const int64_t chunks = (state.dim + kFeatures - 1) / kFeatures;
  const unsigned long long cursor = state.tally->cursor;
  const auto total = static_cast<int64_t>(side == 0 ? cursor >> 32 : cursor & 0xFFFFFFFFULL);
  if (warp >= total && warp < set.padded) {
    if (lane_of() == 0) set.order[warp] = -1;
    write_padding(state, set, warp, state.products().stored());
  }
  if (threadIdx.x == 0) frame = frame_of(state, state.is_whole());
  __syncthreads();
  const PackedRow row = pack_row(state, rows, set, frame, side, warp, chunks);
  if (lane_of() == 0) packed[warp_of()] = row;
  __syncthreads();
  if (threadIdx.x < warps && packed[threadIdx.x].row >= 0) {
    finish_row(state, rows, set, frame, side, packed[threadIdx.x]);
  }
}

}  // namespace flashmetric::cuda
