// SPDX-License-Identifier: BSD-3-Clause
// Computes the float64 key of a pair, the number that decides every choice and gives every value.
//   difference: sum (x_k - r_k)^2      product: -sum x_k r_k, divided by both norms if `quotient`
//   scaled rows (normalize): x_k and r_k are first multiplied by 1 / max(norm, kMinNorm).
//
// Numerics: feature k is added to partial sum k mod 8, products are rounded before they are added
// (this file must be compiled without contraction), so all ISAs and the reference get the same
// bits.
#pragma once

#include "../distances.h"
#include "simd.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// Rows as the caller gave them.
template <class T>
struct RowView {
  const T* data;       // [n, dim]
  int64_t stride;      // elements
  const double* norm;  // [n] Euclidean norms; only read for scaled or quotient keys

  FM_INLINE const T* row(int64_t i) const { return data + i * stride; }
  FM_INLINE double clamped_norm(int64_t i) const {
    // Written so that a NaN norm stays NaN.
    return norm[i] < kMinNorm ? kMinNorm : norm[i];
  }
};

struct KeyForm {
  Form form;
  bool quotient;
  bool scaled;
  FM_INLINE bool needs_norms() const { return quotient || scaled; }
};

template <class Distance>
FM_INLINE KeyForm key_form(bool normalize) {
  return {Distance::form, Distance::quotient, normalize && !Distance::quotient};
}

// One step of a partial sum, for eight features.
template <Form form, bool scaled>
FM_INLINE Double8 accumulate(Double8 sum, Double8 x, Double8 r, double x_scale, double r_scale) {
  if constexpr (scaled) {
    x = x * x_scale;
    r = r * r_scale;
  }
  if constexpr (form == Form::difference) {
    const Double8 gap = x - r;
    return sum + gap * gap;
  } else {
    return sum + x * r;
  }
}

template <Form form, bool scaled, class T>
FM_INLINE double key_sum(const T* x, const T* r, int64_t dim, double x_scale, double r_scale) {
  Double8 sum = {};
  int64_t k = 0;
  for (; k + 8 <= dim; k += 8) {
    sum = accumulate<form, scaled>(sum, load8(x + k), load8(r + k), x_scale, r_scale);
  }
  if (k < dim) {
    sum = accumulate<form, scaled>(sum, load8_partial(x + k, dim - k),
                                   load8_partial(r + k, dim - k), x_scale, r_scale);
  }
  return sum8(sum);
}

template <class T>
FM_INLINE double squared_norm(const T* x, int64_t dim) {
  return key_sum<Form::product, false>(x, x, dim, 1, 1);
}

template <class T>
inline double pair_key(KeyForm key, const RowView<T>& x, int64_t i, const RowView<T>& r, int64_t j,
                       int64_t dim) {
  const double xs = key.scaled ? 1.0 / x.clamped_norm(i) : 1.0;
  const double rs = key.scaled ? 1.0 / r.clamped_norm(j) : 1.0;
  const T* a = x.row(i);
  const T* b = r.row(j);
  if (key.form == Form::difference) {
    return key.scaled ? key_sum<Form::difference, true>(a, b, dim, xs, rs)
                      : key_sum<Form::difference, false>(a, b, dim, xs, rs);
  }
  const double product = key.scaled ? key_sum<Form::product, true>(a, b, dim, xs, rs)
                                    : key_sum<Form::product, false>(a, b, dim, xs, rs);
  return key.quotient ? -product / (x.clamped_norm(i) * r.clamped_norm(j)) : -product;
}

// The key of a pair as a value: of float64 rows that are normalised, each feature is divided by the
// norm, which rounds once where the product with its inverse rounds three times. Narrower rows have
// lost more than that before they came here.
template <class T>
FM_INLINE double pair_value(KeyForm key, const RowView<T>& x, int64_t i, const RowView<T>& r,
                            int64_t j, int64_t dim) {
  if (sizeof(T) < sizeof(double) || !key.scaled || key.form != Form::difference) {
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
