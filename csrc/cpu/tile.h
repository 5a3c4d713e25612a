// SPDX-License-Identifier: BSD-3-Clause
// Computes a register tile: kTileRows x kTileCols<T> inner products (or squared differences) of
// packed rows. The one hot loop of the library.
//
// Layout: a block of kBlock rows is stored feature by feature, [dim][kBlock]. The same copy serves
// as rows (broadcast, one number at a time) and as columns (loaded, a vector at a time), so data is
// packed once and symmetric problems need one copy.
//
// Why so: per feature a tile loads kTileVecs vectors and broadcasts kTileRows numbers for
// kTileRows * kTileVecs fused multiply-adds; with AVX-512 that is 14 loads for 24 multiply-adds,
// and a core does 2 of each a cycle: the arithmetic is the limit, not the cache.
#pragma once

#include "../distances.h"
#include "simd.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// A multiple of every register tile: 12, 6 or 4 rows; 32, 16, 8 or 4 columns. A block of 128
// float features is 48 KiB: two of them sit in a 256 KiB L2.
constexpr int kBlock = 96;

constexpr int kTileVecs = 2;
template <class T>
constexpr int kTileCols = kTileVecs * kWidth<T>;

template <class T>
using TileSums = Vec<T>[kTileRows][kTileVecs];

template <class T, Form form>
FM_INLINE void multiply_tile(const T* rows,  // [dim][kBlock], at the first row of the tile
                             const T* cols,  // [dim][kBlock], at the first column
                             int64_t dim, TileSums<T>& sums) {
#pragma GCC unroll 12
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kTileVecs; ++v) sums[r][v] = Vec<T>{};
  }
  for (int64_t k = 0; k < dim; ++k, rows += kBlock, cols += kBlock) {
    Vec<T> col[kTileVecs];
#pragma GCC unroll 2
    for (int v = 0; v < kTileVecs; ++v) col[v] = load(cols + v * kWidth<T>);
#pragma GCC unroll 12
    for (int r = 0; r < kTileRows; ++r) {
      const Vec<T> row = broadcast(rows[r]);
#pragma GCC unroll 2
      for (int v = 0; v < kTileVecs; ++v) {
        if constexpr (form == Form::difference) {
          const Vec<T> gap = row - col[v];
          sums[r][v] = multiply_add(gap, gap, sums[r][v]);
        } else {
          sums[r][v] = multiply_add(row, col[v], sums[r][v]);
        }
      }
    }
  }
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
