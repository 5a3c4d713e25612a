// SPDX-License-Identifier: BSD-3-Clause
// Computes, for every query row, the candidates for its positive and its negative, without storing
// the (n_query, n_ref) distance matrix.
//
// Algorithm: for each pair of blocks of kBlock rows, for each register tile of it:
//   inner products -> lower bounds of the scores -> compare with the row's threshold (and, when the
//   queries are the references, with the column's): below it, the column is offered to the row.
// Tiles whose pairs all have one role need one subtract and one compare per vector, and a branch
// that is rarely taken; mixed tiles also apply the bit masks of the relation.
//
// Why so: a symmetric problem visits block pairs J >= I only and lets each tile serve its rows and
// its columns: half the multiply-adds of the matrix product. Diagonal blocks go first; they hold
// the positives and give every row its first threshold.
//
// Numerics: certificate.h. Ties and NaN are not decided here but by the keys.
#pragma once

#include "choice.h"
#include "relation.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

template <class Tiles, class Miner, class Relation>
struct RowReduction {
  using T = typename Tiles::Score;
  using Session = typename Tiles::Session;
  static constexpr int cols = kTileCols<T>;
  static constexpr int width = kWidth<T>;
  const Chooser<T>& chooser;
  const Relation& relation;
  int64_t dim;
  int32_t n_query;
  int32_t n_ref;

  // Rows i .. of block I against columns j .. of block J; `both` also serves the columns as rows.
  template <bool both>
  FM_INLINE void visit_blocks(int64_t row_block, int64_t col_block) const {
    const auto row_begin = static_cast<int32_t>(row_block * kBlock);
    const auto col_begin = static_cast<int32_t>(col_block * kBlock);
    const int32_t row_end = n_query < row_begin + kBlock ? n_query : row_begin + kBlock;
    const int32_t col_end = n_ref < col_begin + kBlock ? n_ref : col_begin + kBlock;
    const bool serves_columns = both && open_tiles(col_begin) != 0;
    const uint32_t open = serves_columns ? ~0U : open_tiles(row_begin);
    if (open == 0) return;
    const typename Tiles::Block block(chooser, row_begin, col_begin, dim);
    for (int32_t j = col_begin; j < col_end; j += cols) {
      for (int32_t i = row_begin; i < row_end; i += kTileRows) {
        if ((open >> ((i - row_begin) / kTileRows) & 1) == 0) continue;
        TileSums<T> sums;
        Tiles::compute(block, chooser, i, j, dim, sums);
        const int32_t i_end = i + kTileRows < row_end ? i + kTileRows : row_end;
        switch (relation.kind(i, i_end, j, j + cols)) {
          case TileKind::all_positive:
            fold_pure<kPositive, both>(sums, i, j);
            break;
          case TileKind::all_negative:
            fold_pure<kNegative, both>(sums, i, j);
            break;
          case TileKind::mixed:
            fold_mixed<both>(sums, i, i_end, j);
            break;
        }
      }
    }
  }

 private:
  // Bit t: some row of register tile t of the block takes candidates. Rows that were given up do
  // not (choice.h), and in a batch of near-ties those are soon all.
  FM_INLINE uint32_t open_tiles(int32_t row_begin) const {
    constexpr T closed = -Precision<T>::highest;
    const T* positive = chooser.role[kPositive].threshold + row_begin;
    const T* negative = chooser.role[kNegative].threshold + row_begin;
    uint32_t open = 0;
    for (int tile = 0; tile < kBlock / kTileRows; ++tile) {
      bool takes = false;
      for (int r = tile * kTileRows; r < (tile + 1) * kTileRows; ++r) {
        takes |= (positive[r] > closed) | (negative[r] > closed);
      }
      open |= static_cast<uint32_t>(takes) << tile;
    }
    return open;
  }

  // lower - <y_i, y_j> to seek the nearest, lower + <y_i, y_j> the farthest.
  template <int role>
  static FM_INLINE Vec<T> score(Vec<T> lower, Vec<T> sum) {
    constexpr Seek seek = role == kPositive ? Miner::positive : Miner::negative;
    return seek == Seek::nearest ? lower - sum : lower + sum;
  }

  template <int role, bool both>
  FM_INLINE void fold_pure(const TileSums<T>& sums, int32_t i, int32_t j) const {
    const RowChoices<T>& choices = chooser.role[role];
    const T* row_lower = chooser.query->lower[role] + i;
    Vec<T> col_lower[kTileVecs];
    Vec<T> col_best[kTileVecs];
#pragma GCC unroll 2
    for (int v = 0; v < kTileVecs; ++v) {
      col_lower[v] = load(chooser.ref->lower[role] + j + v * width);
      col_best[v] = broadcast(Precision<T>::highest);
    }
#pragma GCC unroll 12
    for (int r = 0; r < kTileRows; ++r) {
      Vec<T> lower[kTileVecs];
      uint32_t bits = 0;
#pragma GCC unroll 2
      for (int v = 0; v < kTileVecs; ++v) {
        lower[v] = score<role>(col_lower[v], sums[r][v]);
        bits |= le_bits(lower[v], broadcast(choices.threshold[i + r])) << (v * width);
        if constexpr (both) {
          col_best[v] = minimum(col_best[v], score<role>(broadcast(row_lower[r]), sums[r][v]));
        }
      }
      if (__builtin_expect(bits != 0, 0)) chooser.offer(role, i + r, j, bits, lower);
    }
    if constexpr (both) {
      uint32_t bits = 0;
#pragma GCC unroll 2
      for (int v = 0; v < kTileVecs; ++v) {
        bits |= le_bits(col_best[v], load(choices.threshold + j + v * width)) << (v * width);
      }
      if (__builtin_expect(bits != 0, 0)) offer_columns<role>(sums, bits, i, j);
    }
  }

  // Column j + c serves as query: its candidates are the rows i .. i + kTileRows - 1.
  template <int role>
  FM_INLINE void offer_columns(const TileSums<T>& sums, uint32_t bits, int32_t i, int32_t j) const {
    T spilled[kTileRows][cols];
#pragma GCC unroll 12
    for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kTileVecs; ++v) {
        store(spilled[r] + v * width,
              score<role>(broadcast(chooser.query->lower[role][i + r]), sums[r][v]));
      }
    }
    offer_spilled(role, spilled, bits, i, j);
  }

  __attribute__((noinline)) void offer_spilled(int role, const T (&spilled)[kTileRows][cols],
                                               uint32_t bits, int32_t i, int32_t j) const {
    for (; bits != 0; bits &= bits - 1) {
      const int c = __builtin_ctz(bits);
      const T threshold = chooser.role[role].threshold[j + c];
      T lower[kTileRows];
      uint32_t rows = 0;
      for (int r = 0; r < kTileRows; ++r) {
        lower[r] = spilled[r][c];
        rows |= static_cast<uint32_t>(lower[r] <= threshold) << r;
      }
      if (rows != 0) chooser.offer(role, j + c, i, rows, lower);
    }
  }

  template <bool both>
  __attribute__((noinline)) void fold_mixed(const TileSums<T>& sums, int32_t i, int32_t i_end,
                                            int32_t j) const {
    for (int32_t row = i; row < i_end; ++row) {
      const RoleBits allowed = relation.bits(row, j, cols);
      fold_mixed_row<kPositive, both>(sums[row - i], allowed.role[kPositive], row, j);
      fold_mixed_row<kNegative, both>(sums[row - i], allowed.role[kNegative], row, j);
    }
  }

  template <int role, bool both>
  FM_INLINE void fold_mixed_row(const Vec<T> (&sums)[kTileVecs], uint32_t allowed, int32_t i,
                                int32_t j) const {
    if (allowed == 0) return;
    const RowChoices<T>& choices = chooser.role[role];
    Vec<T> lower[kTileVecs];
    T as_column[cols];
    uint32_t bits = 0;
    uint32_t col_bits = 0;
    for (int v = 0; v < kTileVecs; ++v) {
      lower[v] = score<role>(load(chooser.ref->lower[role] + j + v * width), sums[v]);
      bits |= le_bits(lower[v], broadcast(choices.threshold[i])) << (v * width);
      if constexpr (both) {
        const Vec<T> mirrored = score<role>(broadcast(chooser.query->lower[role][i]), sums[v]);
        store(as_column + v * width, mirrored);
        col_bits |= le_bits(mirrored, load(choices.threshold + j + v * width)) << (v * width);
      }
    }
    if ((bits & allowed) != 0) chooser.offer(role, i, j, bits & allowed, lower);
    for (col_bits &= allowed; col_bits != 0; col_bits &= col_bits - 1) {
      const int c = __builtin_ctz(col_bits);
      chooser.offer_one(role, j + c, i, as_column[c]);
    }
  }
};

// Blocks are taken in groups, so that those of a task stay in the L2 cache while they meet; few are
// not grouped, so that there are tasks enough to balance the threads.
FM_INLINE int64_t group_size(int64_t blocks) {
  return blocks >= 128 ? 8 : blocks >= 64 ? 4 : blocks >= 24 ? 2 : 1;
}

struct Group {
  int64_t begin, end;
};
FM_INLINE Group group_of(int64_t which, int64_t size, int64_t blocks) {
  const int64_t begin = which * size;
  return {begin, begin + size < blocks ? begin + size : blocks};
}

// Block pairs with J > I. The groups stand in a circle of an odd number of places, and in the round
// of each place those meet that are equally far from it on its two sides: every two meet once, and
// none twice in a round. A thread serves some of the distances: threads that keep pace touch the
// choices of different rows, and as the place moves on by one, so do the rows of a thread.
template <class Reduction>
inline void reduce_symmetric(const Reduction& reduction, int64_t blocks, int threads) {
  using Session = typename Reduction::Session;
  parallel_tasks(threads, blocks, [&](int64_t b, int) {
    Session::begin();
    reduction.template visit_blocks<false>(b, b);
    Session::end();
  });
  const int64_t size = group_size(blocks);
  const int64_t groups = (blocks + size - 1) / size;
  const int64_t circle = groups | 1;
  parallel_rounds(threads, circle, (circle + 1) / 2, [&](int64_t round, int64_t away) {
    // The first and the last round: where the first thread has the first half of the rows, as in
    // the loops before and after.
    const int64_t centre = (round + circle / 4 + 1) % circle;
    const int64_t right = (centre + away) % circle;
    const int64_t left = (centre - away + circle) % circle;
    if (left >= groups || right >= groups) return;
    const Group rows = group_of(left < right ? left : right, size, blocks);
    const Group cols = group_of(left < right ? right : left, size, blocks);
    Session::begin();
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      for (int64_t col = cols.begin > row ? cols.begin : row + 1; col < cols.end; ++col) {
        reduction.template visit_blocks<true>(row, col);
      }
    }
    Session::end();
  });
}

template <class Reduction>
inline void reduce_rectangular(const Reduction& reduction, int64_t row_blocks, int64_t col_blocks,
                               int threads) {
  const int64_t size = group_size(col_blocks);
  const int64_t groups = (col_blocks + size - 1) / size;
  parallel_rounds(threads, groups, row_blocks, [&](int64_t round, int64_t row) {
    const Group cols = group_of(round, size, col_blocks);
    Reduction::Session::begin();
    for (int64_t col = cols.begin; col < cols.end; ++col) {
      reduction.template visit_blocks<false>(row, col);
    }
    Reduction::Session::end();
  });
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
