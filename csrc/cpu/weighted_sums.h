// SPDX-License-Identifier: BSD-3-Clause
// Computes sums of packed rows, weighted by a matrix of coefficients: the second half of every
// dense gradient. Register tiles as in tile.h; the vectors run over features.
//
// Numerics: kSegment products are added up in registers, then go to float64 sums: rounding grows
// with the segment, not with the number of rows.
#pragma once

#include "../dense_terms.h"
#include "tile.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// What a tile multiplies: coefficient (row r, term s) at weights[r * row_step + s * term_step].
template <class T>
struct Weights {
  const T* at;
  int64_t row_step;
  int64_t term_step;
};

template <class T>
FM_INLINE void weigh_tile(const Weights<T>& weights, const T* terms /*[count][kTileCols]*/,
                          int64_t count, TileSums<T>& sums) {
#pragma GCC unroll 12
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kTileVecs; ++v) sums[r][v] = Vec<T>{};
  }
  const T* weight = weights.at;
  for (int64_t s = 0; s < count; ++s, weight += weights.term_step, terms += kTileCols<T>) {
    Vec<T> term[kTileVecs];
#pragma GCC unroll 2
    for (int v = 0; v < kTileVecs; ++v) term[v] = load(terms + v * kWidth<T>);
#pragma GCC unroll 12
    for (int r = 0; r < kTileRows; ++r) {
      const Vec<T> factor = broadcast(weight[r * weights.row_step]);
#pragma GCC unroll 2
      for (int v = 0; v < kTileVecs; ++v) sums[r][v] = multiply_add(factor, term[v], sums[r][v]);
    }
  }
}

// sums[r][feature] += sum over s of weight(r, s) * terms[s][feature], for kTileRows rows and the
// features of one panel.
template <class T>
FM_NOINLINE void add_weighted_tile(const Weights<T>& weights, const T* terms, int64_t count,
                                   double* sums, int64_t sums_stride) {
  constexpr int cols = kTileCols<T>;
  double total[kTileRows][cols] = {};
  for (int64_t s = 0; s < count; s += kSegment) {
    TileSums<T> part;
    const Weights<T> from{weights.at + s * weights.term_step, weights.row_step, weights.term_step};
    weigh_tile(from, terms + s * cols, count - s < kSegment ? count - s : kSegment, part);
    T spilled[kTileRows][cols];
#pragma GCC unroll 12
    for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kTileVecs; ++v) store(spilled[r] + v * kWidth<T>, part[r][v]);
    }
    for (int r = 0; r < kTileRows; ++r) {
      for (int c = 0; c < cols; ++c) total[r][c] += static_cast<double>(spilled[r][c]);
    }
  }
  for (int r = 0; r < kTileRows; ++r) {
    for (int c = 0; c < cols; ++c) sums[r * sums_stride + c] += total[r][c];
  }
}

// The same where all `count` products, at most those of a block, go to one sum in registers: of 96
// terms it loses about sqrt(96 / 3) < 6 units, less than a plain matrix product over more rows.
template <class T>
FM_NOINLINE void add_short_tile(const Weights<T>& weights, const T* terms, int64_t count,
                                double* sums, int64_t sums_stride) {
  TileSums<T> part;
  weigh_tile(weights, terms, count, part);
#pragma GCC unroll 12
  for (int r = 0; r < kTileRows; ++r) {
    Few<T> pieces[kTileVecs * kVectorBytes / sizeof(Few<T>)];
    std::memcpy(pieces, part[r], sizeof part[r]);
    double* to = sums + r * sums_stride;
    for (const Few<T>& piece : pieces) {
      store(to, load(to) + widened(piece));
      to += kWidth<double>;
    }
  }
}

// The same for one row whose weights are mostly zero: `count` of them, of the terms listed.
template <class T>
FM_NOINLINE void add_weighted_list(const T* weight, const int32_t* listed, int64_t count,
                                   const T* terms /*[n][kTileCols]*/, double* sums) {
  constexpr int cols = kTileCols<T>;
  for (int64_t s = 0; s < count; s += kSegment) {
    const int64_t end = count - s < kSegment ? count : s + kSegment;
    Vec<T> part[2][kTileVecs] = {};  // two chains hide the latency of the additions
    for (int64_t t = s; t < end; ++t) {
      const T* term = terms + int64_t{listed[t]} * cols;
      const Vec<T> factor = broadcast(weight[t]);
#pragma GCC unroll 2
      for (int v = 0; v < kTileVecs; ++v) {
        part[t & 1][v] = multiply_add(factor, load(term + v * kWidth<T>), part[t & 1][v]);
      }
    }
    T spilled[cols];
    for (int v = 0; v < kTileVecs; ++v) store(spilled + v * kWidth<T>, part[0][v] + part[1][v]);
    for (int c = 0; c < cols; ++c) sums[c] += static_cast<double>(spilled[c]);
  }
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
