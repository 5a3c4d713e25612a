// SPDX-License-Identifier: BSD-3-Clause
// Computes the float64 key of a pair, the number that decides every choice and gives every value:
// distances.h says which, by Form. Rows are first mapped: multiplied by 1 / max(norm, kMinNorm) if
// they are normalised, then moved by their mean if the distance is relative.
//
// Numerics: feature k is added to partial sum k mod 8, products are rounded before they are added
// (this file must be compiled without contraction), so all ISAs and the reference get the same
// bits; but for powers with a fraction in the exponent, whose last bit is that of ::pow.
#pragma once

#include "../distances.h"
#include "rows.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// |gap|^p. A whole p multiplies, by the squares of squares that p in binary asks for.
FM_INLINE Double8 raised(Double8 base, double p) {
  const int whole = whole_power(p);
  if (whole == 0) {
    double lanes[8];
    std::memcpy(lanes, &base, sizeof lanes);
    for (double& lane : lanes) lane = ::pow(lane, p);
    std::memcpy(&base, lanes, sizeof lanes);
    return base;
  }
  Double8 result = base;
  bool started = whole % 2 != 0;
  for (int left = whole / 2; left != 0; left /= 2) {
    base = base * base;
    if (left % 2 != 0) result = started ? result * base : base;
    started = started || left % 2 != 0;
  }
  return result;
}

// One step of a partial sum, for eight mapped features.
template <Form form>
FM_INLINE Double8 accumulate(Double8 sum, Double8 x, Double8 r, double p) {
  const Double8 gap = x - r;
  if constexpr (form == Form::product) {
    return sum + x * r;
  } else if constexpr (form == Form::difference) {
    return sum + gap * gap;
  } else if constexpr (form == Form::absolute) {
    return sum + absolute(gap);
  } else if constexpr (form == Form::power) {
    return sum + raised(absolute(gap), p);
  } else {
    return maximum8(sum, absolute(gap));
  }
}

template <Form form>
FM_INLINE double total8(const Double8& sum) {
  return form == Form::maximum ? largest8(sum) : sum8(sum);
}

// Calls visit(x, r) for eight mapped features at a time.
template <class T, class Map, class Visit>
FM_INLINE void each_eight(const T* x, const T* r, int64_t dim, Map x_map, Map r_map,
                          const Visit& visit) {
  const auto pass = [&](Double8 a, Double8 b, int64_t count)
                        FM_INLINE_LAMBDA { visit(x_map.of(a, count), r_map.of(b, count)); };
  int64_t k = 0;
  for (; k + 8 <= dim; k += 8) pass(load8(x + k), load8(r + k), 8);
  if (k < dim) pass(load8_partial(x + k, dim - k), load8_partial(r + k, dim - k), dim - k);
}

template <Form form, class T, class Map = Unmapped>
FM_INLINE double key_sum(const T* x, const T* r, int64_t dim, Map x_map = Map{}, Map r_map = Map{},
                         double p = 2) {
  Double8 sum = {};
  each_eight(x, r, dim, x_map, r_map,
             [&](Double8 a, Double8 b) FM_INLINE_LAMBDA { sum = accumulate<form>(sum, a, b, p); });
  return total8<form>(sum);
}

template <class T>
FM_INLINE double squared_norm(const T* x, int64_t dim) {
  return key_sum<Form::product>(x, x, dim);
}

// Sums of the smaller and of the larger of each two features. NaN reaches one of them.
struct Overlap {
  double shared, together;
  // Two rows of zeros are equal.
  FM_INLINE double share() const { return together == 0 ? 1.0 : shared / together; }
};

template <class T, class Map>
inline Overlap overlap_of(const T* x, const T* r, int64_t dim, Map x_map, Map r_map) {
  Double8 low = {};
  Double8 high = {};
  each_eight(x, r, dim, x_map, r_map, [&](Double8 a, Double8 b) FM_INLINE_LAMBDA {
    low = low + lower8(a, b);
    high = high + upper8(a, b);
  });
  return {sum8(low), sum8(high)};
}

// Writes the numbers of a row that its keys need; the norm always.
template <class T>
inline void measure_row(KeyForm key, const RowView<T>& rows, int64_t i, int64_t dim) {
  const T* x = rows.row(i);
  rows.norm[i] = square_root(squared_norm(x, dim));
  if (!key.needs_means()) return;
  const Scaling scaled(rows.mapping(key, i));
  Double8 sum = {};
  each_eight(x, x, dim, scaled, scaled,
             [&](Double8 a, Double8) FM_INLINE_LAMBDA { sum = sum + a; });
  rows.mean[i] = dim == 0 ? 0 : sum8(sum) / static_cast<double>(dim);
  if (!key.relative) return;
  const Mapping map = rows.mapping(key, i);
  rows.energy[i] = key_sum<Form::product>(x, x, dim, map, map);
}

template <class T, class Map>
inline double mapped_key(KeyForm key, const T* x, const T* r, int64_t dim, Map x_map, Map r_map) {
  switch (key.form) {
    case Form::difference:
      return key_sum<Form::difference>(x, r, dim, x_map, r_map);
    case Form::product:
      return -key_sum<Form::product>(x, r, dim, x_map, r_map);
    case Form::absolute:
      return key_sum<Form::absolute>(x, r, dim, x_map, r_map);
    case Form::power:
      return key_sum<Form::power>(x, r, dim, x_map, r_map, key.power);
    case Form::maximum:
      return key_sum<Form::maximum>(x, r, dim, x_map, r_map);
    case Form::overlap:
      return -overlap_of(x, r, dim, x_map, r_map).share();
  }
  return 0;
}

template <class T>
FM_NOINLINE double pair_key(KeyForm key, const RowView<T>& x, int64_t i, const RowView<T>& r,
                            int64_t j, int64_t dim) {
  const double pair = with_map_of(key, [&](auto map) FM_INLINE_LAMBDA {
    using Map = decltype(map);
    return mapped_key(key, x.row(i), r.row(j), dim, Map(x.mapping(key, i)), Map(r.mapping(key, j)));
  });
  if (key.quotient) return pair / (x.clamped_norm(i) * r.clamped_norm(j));
  return key.relative ? pair / x.clamped_energy(i) : pair;
}

// The key of a pair as a value: of float64 rows that are normalised, each feature is divided by the
// norm, which rounds once where the product with its inverse rounds three times. Narrower rows have
// lost more than that before they came here.
template <class T>
FM_INLINE double pair_value(KeyForm key, const RowView<T>& x, int64_t i, const RowView<T>& r,
                            int64_t j, int64_t dim) {
  if (sizeof(T) < sizeof(double) || !key.scaled || key.form != Form::difference || key.relative) {
    return pair_key(key, x, i, r, j, dim);
  }
  const double x_norm = x.clamped_norm(i);
  const double r_norm = r.clamped_norm(j);
  Double8 sum = {};
  for (int64_t k = 0; k < dim; k += 8) {
    const int64_t count = dim - k < 8 ? dim - k : 8;
    const Double8 gap =
        load8_partial(x.row(i) + k, count) / x_norm - load8_partial(r.row(j) + k, count) / r_norm;
    sum = sum + gap * gap;
  }
  return sum8(sum);
}

// The best pair seen so far for one query: a NaN key wins over any number, then the smaller key,
// then the lower original row.
struct BestPair {
  double key = 0;
  int64_t row = -1;

  FM_INLINE void offer(double other_key, int64_t other_row) {
    if (row < 0 || better(other_key, other_row)) {
      key = other_key;
      row = other_row;
    }
  }
  FM_INLINE bool is_nan() const { return row >= 0 && key != key; }

 private:
  FM_INLINE bool better(double other_key, int64_t other_row) const {
    const bool nan = key != key;
    const bool other_nan = other_key != other_key;
    if (nan != other_nan) return other_nan;
    if (nan || other_key == key) return other_row < row;
    return other_key < key;
  }
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
