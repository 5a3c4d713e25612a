// SPDX-License-Identifier: BSD-3-Clause
// Computes a register tile: kTileRows x kTileCols<T> sums over the features of packed rows, of
// products or of another inner operation. The one hot loop of the library.
//
// Layout: a block of kBlock rows is stored feature by feature, [dim][kBlock]. The same copy serves
// as rows (broadcast, one number at a time) and as columns (loaded, a vector at a time), so data is
// packed once and symmetric problems need one copy.
//
// Why so: per feature a tile loads kTileVecs vectors and broadcasts kTileRows numbers for
// kTileRows * kTileVecs fused multiply-adds; with AVX-512 that is 14 loads for 24 multiply-adds,
// and a core does 2 of each a cycle: the arithmetic is the limit, not the cache.
#pragma once

#include "rows.h"
#include "simd.h"
#include "vector_power.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// A multiple of every register tile: 12, 6 or 4 rows; 32, 16, 8 or 4 columns. A block of 128
// float features is 48 KiB: two of them sit in a 256 KiB L2.
constexpr int kBlock = 96;

constexpr int kTileVecs = 2;
template <class T>
constexpr int kTileCols = kTileVecs * kWidth<T>;

template <class T>
using TileSums = Vec<T>[kTileRows][kTileVecs];

// The inner operation: sum + x * r, sum + (x - r)^2, + |x - r|, + |x - r|^3, + |x - r|^4,
// + |x - r|^p, max(sum, |x - r|). Overlap adds |x - r| too; see overlap_tile.
enum class Inner { product, difference, absolute, cube, fourth, power, maximum, overlap };

FM_INLINE Inner inner_of(KeyForm key) {
  switch (key.form) {
    case Form::difference:
      return Inner::difference;
    case Form::product:
      return Inner::product;
    case Form::absolute:
      return Inner::absolute;
    case Form::power:
      return key.power == 3 ? Inner::cube : key.power == 4 ? Inner::fourth : Inner::power;
    case Form::maximum:
      return Inner::maximum;
    case Form::overlap:
      return Inner::overlap;
  }
  return Inner::product;
}

// The larger of numbers that are not negative, or NaN, which wins: their bits are ordered so.
template <class T>
FM_INLINE Vec<T> larger(Vec<T> a, Vec<T> b) {
  const IntVec<T> left = (IntVec<T>)a;           // NOLINT: the bits
  const IntVec<T> right = (IntVec<T>)b;          // NOLINT
  return (Vec<T>)(left > right ? left : right);  // NOLINT
}

template <class T, Inner inner>
FM_INLINE Vec<T> inner_step(Vec<T> sum, Vec<T> row, Vec<T> col, const VectorPower<T>& power) {
  const Vec<T> gap = row - col;
  if constexpr (inner == Inner::product) {
    return multiply_add(row, col, sum);
  } else if constexpr (inner == Inner::difference) {
    return multiply_add(gap, gap, sum);
  } else if constexpr (inner == Inner::cube) {
    return multiply_add(gap * gap, absolute<T>(gap), sum);
  } else if constexpr (inner == Inner::fourth) {
    return multiply_add(gap * gap, gap * gap, sum);
  } else if constexpr (inner == Inner::power) {
    return sum + power.of(absolute<T>(gap));
  } else if constexpr (inner == Inner::maximum) {
    return larger<T>(sum, absolute<T>(gap));
  } else {
    return sum + absolute<T>(gap);
  }
}

template <class T, Inner inner>
FM_INLINE void multiply_tile(const T* rows,  // [dim][kBlock], at the first row of the tile
                             const T* cols,  // [dim][kBlock], at the first column
                             int64_t dim, TileSums<T>& sums, T exponent = 2) {
  const VectorPower<T> power(exponent);
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
        sums[r][v] = inner_step<T, inner>(sums[r][v], row, col[v], power);
      }
    }
  }
}

// What a tile of another form than products needs.
template <class T>
struct TileInput {
  const T* rows;       // [dim][kBlock], at the first row of the tile
  const T* cols;       // [dim][kBlock], at the first column
  const T* row_total;  // [kTileRows] sums of the features; overlap only
  const T* col_total;  // [kTileCols]
  int64_t dim;
};

template <class T, Inner inner>
FM_NOINLINE void negated_tile(const TileInput<T>& in, T exponent, TileSums<T>& out) {
  TileSums<T> sums;
  multiply_tile<T, inner>(in.rows, in.cols, in.dim, sums, exponent);
#pragma GCC unroll 12
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kTileVecs; ++v) out[r][v] = -sums[r][v];
  }
}

// Minus the distance itself, 1 more than the key. With s the sum of all features of both rows and
// g that of their gaps, sum max = (s + g) / 2 and sum min = (s - g) / 2, so the distance is
// 2 g / (s + g): near rows keep their digits, equal ones are at 0.
template <class T>
FM_NOINLINE void overlap_tile(const TileInput<T>& in, TileSums<T>& out) {
  TileSums<T> gaps;
  negated_tile<T, Inner::absolute>(in, T(1), gaps);
  for (int r = 0; r < kTileRows; ++r) {
    for (int v = 0; v < kTileVecs; ++v) {
      const Vec<T> twice = (load(in.col_total + v * kWidth<T>) + in.row_total[r]) - gaps[r][v];
      out[r][v] = twice == T(0) ? Vec<T>{} : (gaps[r][v] + gaps[r][v]) / twice;
    }
  }
}

// What stands for the inner product where distances are sums over features: minus the key, in the
// frame of the packed rows. So scores are computed from it as from products.
template <class T>
FM_NOINLINE void similarity_tile(Inner inner, T exponent, const TileInput<T>& in,
                                 TileSums<T>& out) {
  switch (inner) {
    case Inner::absolute:
      return negated_tile<T, Inner::absolute>(in, exponent, out);
    case Inner::cube:
      return negated_tile<T, Inner::cube>(in, exponent, out);
    case Inner::fourth:
      return negated_tile<T, Inner::fourth>(in, exponent, out);
    case Inner::power:
      return negated_tile<T, Inner::power>(in, exponent, out);
    case Inner::maximum:
      return negated_tile<T, Inner::maximum>(in, exponent, out);
    default:
      return overlap_tile(in, out);
  }
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
