// SPDX-License-Identifier: BSD-3-Clause
// What computes the inner products of a tile, as reduce_rows sees it. A unit says
//   Score    the type of its sums, of the bounds and of the thresholds
//   full     false: choices that it gives up are made by FullTiles
//   Packed   what a block of packed rows is made of, [depth][kBlock]
//   depth    how many of those a row of dim features has
//   blocks   the packed blocks of one set of rows
//   pack     how kWidth rows come into a block
//   slack    how far its score may be from the truth (certificate.h)
//   multiply the loop
// This is the plain unit: the dtype of the rows. bf16_tiles.h has a faster, less precise one.
#pragma once

#include "certificate.h"
#include "pack.h"
#include "tile.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

template <class T>
struct FullTiles {
  using Score = T;
  using Packed = T;
  static constexpr bool full = true;

  static FM_INLINE int64_t depth(int64_t dim) { return dim; }
  template <class Set>
  static FM_INLINE Packed* blocks(const Set& set) {
    return set.packed;
  }
  static FM_INLINE void pack(PackedRow<T> (&row)[kWidth<T>], const RowMap<T>& map, int64_t dim,
                             Packed* to) {
    pack_rows<T>(row, map, dim, to);
  }
  static FM_INLINE T slack(KeyForm key, RowLengths row, double dim) {
    return score_slack<T>(key, row, dim);
  }
  static FM_INLINE void multiply(const Packed* rows, const Packed* cols, int64_t dim,
                                 TileSums<T>& sums) {
    multiply_tile<T, Form::product>(rows, cols, dim, sums);
  }
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
