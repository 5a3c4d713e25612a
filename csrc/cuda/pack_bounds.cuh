// SPDX-License-Identifier: BSD-3-Clause
// Writes what tiles compare a packed row by, with the bound of its rounding (certificate.h).
#pragma once

#include "../certificate.h"
#include "fragments.h"
#include "state.cuh"

namespace flashmetric::cuda {

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

}  // namespace flashmetric::cuda
