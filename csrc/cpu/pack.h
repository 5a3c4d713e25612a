// SPDX-License-Identifier: BSD-3-Clause
// Copies rows into blocks [dim][kBlock] (tile.h), on the way mapping them to
//   y = (x * scale_i - shift_i - centre) * unit
// and summing |y|^2 and <centre, y>. Rows that take no part (padding, or not finite) become zeros.
//
// Algorithm: kWidth rows x kWidth features at a time: load along the features, map, transpose in
// registers, store along the rows.
#pragma once

#include "simd.h"
#include "tile.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// How a row is mapped, and what the map found out about it.
template <class T>
struct PackedRow {
  const T* from = nullptr;  // [dim], null: a row of zeros
  T scale = 1;              // 1, or the inverse norm
  T shift = 0;              // 0, or the mean of the features, where rows are compared about it
  double factor = 1;        // as `scale`, for a map in float64
  T square = 0;             // out: |y|^2
  T along = 0;              // out: <centre * unit, y>
  T residual = 0;           // out: |y - what was packed|^2, if that was less precise
};

template <class T>
struct RowMap {
  const T* centre;  // [dim], null: no centring, no unit, no sums
  T unit;           // a power of two
  bool scaled;
  bool shifted = false;
  bool wide = false;  // by `factor` in float64: y is then rounded once, relative to itself
};

// The value in the first `count` lanes, zeros behind them.
template <class T>
FM_INLINE Vec<T> first_lanes(T value, int64_t count) {
  Vec<T> lanes = broadcast(value);
  for (int64_t lane = count; lane < kWidth<T>; ++lane) lanes[lane] = 0;
  return lanes;
}

// (x * factor - centre) * unit.
template <class T>
FM_INLINE Vec<T> map_in_double(Vec<T> x, Vec<T> centre, double factor, T unit) {
  constexpr int parts = kWidth<T> / kWidth<double>;
  Few<T> from[parts];
  Few<T> minus[parts];
  std::memcpy(from, &x, sizeof x);
  std::memcpy(minus, &centre, sizeof centre);
  for (int p = 0; p < parts; ++p) {
    const Vec<double> y = widened(from[p]) * factor - widened(minus[p]);
    from[p] = __builtin_convertvector(y * static_cast<double>(unit), Few<T>);
  }
  std::memcpy(&x, from, sizeof x);
  return x;
}

// The mapped features k .. k + count - 1 of one row.
template <class T>
FM_INLINE Vec<T> mapped_features(const PackedRow<T>& row, const RowMap<T>& map, int64_t k,
                                 int64_t count) {
  if (row.from == nullptr) return Vec<T>{};
  const bool whole = count == kWidth<T>;
  Vec<T> y = whole ? load(row.from + k) : load_partial(row.from + k, count);
  if (map.wide) {
    const Vec<T> from = whole ? load(map.centre + k) : load_partial(map.centre + k, count);
    return map_in_double<T>(y, from, row.factor, map.unit);
  }
  if (map.scaled) y = y * row.scale;
  if (map.shifted) y = y - first_lanes(row.shift, count);
  if (map.centre == nullptr) return y;
  const Vec<T> centre = whole ? load(map.centre + k) : load_partial(map.centre + k, count);
  return (y - centre) * map.unit;
}

// The sum of the lanes of sums(r), for every row r at once.
template <class T, class Sums>
FM_INLINE void keep_sums(PackedRow<T> (&row)[kWidth<T>], T PackedRow<T>::* sum, const Sums& sums) {
  Vec<T> lanes[kWidth<T>];
#pragma GCC unroll 16
  for (int r = 0; r < kWidth<T>; ++r) lanes[r] = sums(r);
  transpose<T>(lanes);
  Vec<T> total = lanes[0];
#pragma GCC unroll 16
  for (int lane = 1; lane < kWidth<T>; ++lane) total += lanes[lane];
  for (int r = 0; r < kWidth<T>; ++r) row[r].*sum = total[r];
}

template <class T>
inline void pack_rows(PackedRow<T> (&row)[kWidth<T>], const RowMap<T>& map, int64_t dim,
                      T* to) {  // [dim][kBlock], at the first of the kWidth rows
  constexpr int width = kWidth<T>;
  Vec<T> square[width] = {};
  Vec<T> along[width] = {};
  for (int64_t k = 0; k < dim; k += width) {
    const int64_t count = dim - k < width ? dim - k : width;
    Vec<T> y[width];
    const Vec<T> centre = map.centre == nullptr ? Vec<T>{}
                          : count == width      ? load(map.centre + k) * map.unit
                                                : load_partial(map.centre + k, count) * map.unit;
#pragma GCC unroll 16
    for (int r = 0; r < width; ++r) {
      y[r] = mapped_features(row[r], map, k, count);
      square[r] += y[r] * y[r];
      along[r] += y[r] * centre;
    }
    transpose<T>(y);
    for (int64_t f = 0; f < count; ++f) store(to + (k + f) * kBlock, y[f]);
  }
  keep_sums(row, &PackedRow<T>::square, [&](int r) { return square[r]; });
  keep_sums(row, &PackedRow<T>::along, [&](int r) { return along[r]; });
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
