// SPDX-License-Identifier: BSD-3-Clause
// What computes the inner products of a tile, as reduce_rows sees it. A unit says
//   Score    the type of its sums, of the bounds and of the thresholds
//   full     false: choices that it gives up are made by FullTiles
//   bfloat16 true: it multiplies those, so rows that they hold as they are have no residual
//   takes    whether it can rank rows of dim features; only asked of units that are tried (trial.h)
//   Packed   what a block of packed rows is made of, [depth][kBlock]
//   depth    how many of those a row of dim features has
//   blocks   the packed blocks of one set of rows
//   pack     how kWidth rows, from `group` on, come into a block
//   slack    how far its score may be from the truth (certificate.h)
//   Session  what a thread begins before tiles and ends after them
//   Block    what is computed of two blocks before their tiles
//   compute  the tile
// This is the plain unit: the dtype of the rows. bf16_tiles.h, amx_tiles.h and int8_tiles.h have
// faster, less precise ones.
#pragma once

#include "../certificate.h"
#include "pack.h"
#include "tile.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// The units that may rank, the fastest first.
template <class... Tiles>
struct Units {
  static constexpr bool narrow = !(Tiles::full && ...);
  static constexpr bool bfloat16 = (Tiles::bfloat16 || ...);

  // How many words a narrow row needs at most.
  static FM_INLINE int64_t depth(int64_t dim) {
    int64_t most = 0;
    ((most = !Tiles::full && Tiles::depth(dim) > most ? Tiles::depth(dim) : most), ...);
    return most;
  }
};

struct NoSession {
  static FM_INLINE void begin() {}
  static FM_INLINE void end() {}
};

struct NoBlock {
  template <class Chooser>
  FM_INLINE NoBlock(const Chooser&, int32_t, int32_t, int64_t) {}
};

template <class T>
struct FullTiles {
  using Score = T;
  using Packed = T;
  using Session = NoSession;
  using Block = NoBlock;
  static constexpr bool full = true;
  static constexpr bool bfloat16 = false;

  static FM_INLINE int64_t depth(int64_t dim) { return dim; }
  template <class Set>
  static FM_INLINE Packed* blocks(const Set& set) {
    return set.packed;
  }
  static FM_INLINE void pack(PackedRow<T> (&row)[kWidth<T>], const RowMap<T>& map, int64_t dim,
                             int group, Packed* block) {
    pack_rows<T>(row, map, dim, block + group);
  }
  static FM_INLINE T slack(KeyForm key, RowLengths row, double total, double dim) {
    return score_slack<T>(key, row, total, dim);
  }
  // Rows i .. against columns j .. .
  template <class Chooser>
  static FM_INLINE void compute(const Block&, const Chooser& chooser, int32_t i, int32_t j,
                                int64_t dim, TileSums<T>& sums) {
    const T* rows = chooser.query->template tile<FullTiles>(i, dim);
    const T* cols = chooser.ref->template tile<FullTiles>(j, dim);
    if (__builtin_expect(chooser.inner == Inner::product, 1)) {
      multiply_tile<T, Inner::product>(rows, cols, dim, sums);
      return;
    }
    TileSums<T> found;  // apart, so that the sums above never leave their registers
    similarity_tile(chooser.inner, chooser.exponent,
                    {rows, cols, chooser.query->total + i, chooser.ref->total + j, dim}, found);
    for (int r = 0; r < kTileRows; ++r) {
      for (int v = 0; v < kTileVecs; ++v) sums[r][v] = found[r][v];
    }
  }
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
