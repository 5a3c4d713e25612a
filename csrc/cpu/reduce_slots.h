// SPDX-License-Identifier: BSD-3-Clause
// Computes the candidates for the semi-hard negative of every positive pair (slots.h), without
// storing the distances.
//
// Algorithm:
//   for each block of rows: tiles of the runs of their positives -> the bounds of every slot
//   for each pair of blocks, as in reduce_rows.h: tiles -> where a pair may lie between the bounds
//     of a slot of its row (or, of symmetric problems, of its column), it is offered to the slot
//
// Why so: after a few tiles the bounds of a slot enclose next to nothing, so a tile costs its
// multiply-adds and 4 comparisons a vector and slot. The branch into an offer is rarely taken.
#pragma once

#include "reduce_rows.h"
#include "slots.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

template <class T>
struct SlotReduction {
  using Session = NoSession;
  static constexpr int cols = kTileCols<T>;
  static constexpr int width = kWidth<T>;
  const Slots<T>& slots;
  SameClass relation;
  int64_t dim;

  // The bounds of the slots of one block of rows.
  inline void find_positives(int64_t block) const {
    const auto begin = static_cast<int32_t>(block * kBlock);
    const int32_t end = smaller(slots.query().n, begin + kBlock);
    for (int32_t i = begin; i < begin + kBlock; ++i) {
      for (int k = 0; k < slots.most; ++k) slots.reset(i, k);
      slots.prunes[i] = 0;
    }
    for (int32_t i = begin; i < end; i += kTileRows) {
      const int32_t last = smaller(end, i + kTileRows) - 1;
      const int32_t j_end = relation.order.run_end[last];
      for (int32_t j = relation.order.run_begin[i] / cols * cols; j < j_end; j += cols) {
        TileSums<T> sums;
        multiply(i, j, sums);
        for (int32_t row = i; row <= last; ++row) set_positives(sums[row - i], row, j);
      }
    }
  }

  template <bool both>
  FM_INLINE void visit_blocks(int64_t row_block, int64_t col_block) const {
    const auto row_begin = static_cast<int32_t>(row_block * kBlock);
    const auto col_begin = static_cast<int32_t>(col_block * kBlock);
    const int32_t row_end = smaller(slots.query().n, row_begin + kBlock);
    const int32_t col_end = smaller(slots.ref().n, col_begin + kBlock);
    for (int32_t j = col_begin; j < col_end; j += cols) {
      for (int32_t i = row_begin; i < row_end; i += kTileRows) {
        const int32_t i_end = smaller(row_end, i + kTileRows);
        const TileKind kind = relation.kind(i, i_end, j, j + cols);
        if (kind == TileKind::all_positive) continue;
        TileSums<T> sums;
        multiply(i, j, sums);
        uint32_t allowed[kTileRows];
        for (int r = 0; r < kTileRows; ++r) {
          allowed[r] = kind == TileKind::all_negative ? ~0u
                       : i + r < i_end ? relation.bits(i + r, j, cols).role[kNegative]
                                       : 0u;
        }
        fold_rows(sums, i, i_end, j, allowed);
        if constexpr (both) fold_columns(sums, i, j, allowed);
      }
    }
  }

 private:
  static FM_INLINE int32_t smaller(int32_t a, int32_t b) { return a < b ? a : b; }

  FM_INLINE void multiply(int32_t i, int32_t j, TileSums<T>& sums) const {
    multiply_tile<T, Inner::product>(slots.query().block(i / kBlock, dim) + i % kBlock,
                                     slots.ref().block(j / kBlock, dim) + j % kBlock, dim, sums);
  }

  FM_INLINE void set_positives(const Vec<T> (&sums)[kTileVecs], int32_t i, int32_t j) const {
    T lower[cols];
    for (int v = 0; v < kTileVecs; ++v) {
      store(lower + v * width, load(slots.ref().lower[kNegative] + j + v * width) - sums[v]);
    }
    for (int k = 0; k < slots.n[i]; ++k) {
      const int32_t c = slots.column(i, k) - j;
      if (c >= 0 && c < cols) slots.set(i, k, lower[c]);
    }
  }

  // Rows as queries.
  FM_INLINE void fold_rows(const TileSums<T>& sums, int32_t i, int32_t i_end, int32_t j,
                           const uint32_t (&allowed)[kTileRows]) const {
    Vec<T> base[kTileVecs];
    Vec<T> reach[kTileVecs];
    for (int v = 0; v < kTileVecs; ++v) {
      base[v] = load(slots.ref().lower[kNegative] + j + v * width);
      reach[v] = load(slots.ref().slack + j + v * width) * T(2);
    }
#pragma GCC unroll 12
    for (int r = 0; r < kTileRows; ++r) {
      if (i + r >= i_end) break;
      Vec<T> lower[kTileVecs];
      Vec<T> upper[kTileVecs];
      for (int v = 0; v < kTileVecs; ++v) {
        lower[v] = base[v] - sums[r][v];
        upper[v] = lower[v] + reach[v];
      }
      for (int k = 0; k < slots.n[i + r]; ++k) {
        const int64_t at = k * slots.stride + i + r;
        const Vec<T> low = broadcast(slots.low[at]);
        const Vec<T> high = broadcast(slots.high[at]);
        uint32_t bits = 0;
        for (int v = 0; v < kTileVecs; ++v) {
          bits |= (le_bits(low, upper[v]) & le_bits(lower[v], high)) << (v * width);
        }
        bits &= allowed[r];
        if (__builtin_expect(bits != 0, 0)) slots.offer(i + r, k, j, bits, lower);
      }
    }
  }

  // Columns as queries: their candidates are the rows of the tile.
  FM_INLINE void fold_columns(const TileSums<T>& sums, int32_t i, int32_t j,
                              const uint32_t (&allowed)[kTileRows]) const {
    for (int k = 0; k < slots.most_of[j / cols]; ++k) {
      const int64_t at = k * slots.stride + j;
      Vec<T> low[kTileVecs];
      Vec<T> high[kTileVecs];
      for (int v = 0; v < kTileVecs; ++v) {
        low[v] = load(slots.low + at + v * width);
        high[v] = load(slots.high + at + v * width);
      }
      uint32_t bits = 0;
#pragma GCC unroll 12
      for (int r = 0; r < kTileRows; ++r) {
        const Vec<T> base = broadcast(slots.query().lower[kNegative][i + r]);
        const Vec<T> reach = broadcast(2 * slots.query().slack[i + r]);
        for (int v = 0; v < kTileVecs; ++v) {
          const Vec<T> lower = base - sums[r][v];
          bits |= (le_bits(low[v], lower + reach) & le_bits(lower, high[v])) << (v * width);
        }
      }
      if (__builtin_expect(bits != 0, 0)) offer_columns(sums, bits, i, k, j, allowed);
    }
  }

  // Of the columns at `at` as queries.
  FM_INLINE uint32_t between_bits(Vec<T> lower, Vec<T> upper, int64_t at) const {
    return le_bits(load(slots.low + at), upper) & le_bits(lower, load(slots.high + at));
  }

  __attribute__((noinline)) void offer_columns(const TileSums<T>& sums, uint32_t bits, int32_t i,
                                               int k, int32_t j,
                                               const uint32_t (&allowed)[kTileRows]) const {
    T spilled[kTileRows][cols];
    uint32_t between[kTileRows];
    const int64_t at = k * slots.stride + j;
    for (int r = 0; r < kTileRows; ++r) {
      const Vec<T> base = broadcast(slots.query().lower[kNegative][i + r]);
      const Vec<T> reach = broadcast(2 * slots.query().slack[i + r]);
      between[r] = 0;
      for (int v = 0; v < kTileVecs; ++v) {
        const Vec<T> lower = base - sums[r][v];
        store(spilled[r] + v * width, lower);
        between[r] |= between_bits(lower, lower + reach, at + v * width) << (v * width);
      }
      between[r] &= allowed[r];
    }
    for (; bits != 0; bits &= bits - 1) {
      const int c = __builtin_ctz(bits);
      uint32_t rows = 0;
      for (int r = 0; r < kTileRows; ++r) rows |= (between[r] >> c & 1) << r;
      if (rows != 0) slots.template offer<cols>(j + c, k, i, rows, &spilled[0][c]);
    }
  }
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
