// SPDX-License-Identifier: BSD-3-Clause
// Where rows are normalised, z = x / |x|, their gradient g goes through the scaling:
//   d/dx = (g - <g, z> z) / |x|,    0 for rows shorter than kMinNorm.
#pragma once

#include "../exact_sum.h"
#include "keys.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// x / norm, of one number or eight. Of float64 rows a quotient, which rounds once where the product
// with an inverse rounds three times; narrower rows have lost more than that before they came here.
template <class T, class Number>
FM_INLINE Number divided(Number x, double norm) {
  return sizeof(T) == sizeof(double) ? x / norm : x * (1 / norm);
}

// visit(eight of g, eight of x, where they begin, how many of them exist)
template <class T, class Visit>
FM_INLINE void each_eight_of(const double* g, const T* x, int64_t dim, const Visit& visit) {
  int64_t k = 0;
  for (; k + 8 <= dim; k += 8) visit(load8(g + k), load8(x + k), k, int64_t{8});
  if (k < dim) visit(load8_partial(g + k, dim - k), load8_partial(x + k, dim - k), k, dim - k);
}

// <g, z> of a row z = x / norm. It is large beside what it leaves of g where they point the same
// way: of float64 rows the products and their sum are exact until the end.
template <class T>
inline double along_row(const double* g, const T* x, double norm, int64_t dim) {
  if constexpr (sizeof(T) < sizeof(double)) {
    Double8 along = {};
    each_eight_of(g, x, dim, [&](Double8 some, Double8 z, int64_t, int64_t) FM_INLINE_LAMBDA {
      along = along + some * divided<T>(z, norm);
    });
    return sum8(along);
  } else {
    ExactSum along;
    for (int64_t k = 0; k < dim; ++k) {
      const double z = divided<T>(x[k], norm);
      const double product = g[k] * z;
      along.add({product, __builtin_fma(g[k], z, -product)});
    }
    return along.value();
  }
}

// Takes a gradient back through the normalisation of its row, where there is one. A NaN row that
// nobody chose must not come here: its 0 would become NaN.
template <class T>
FM_NOINLINE void through_norm(KeyForm key, const RowView<T>& rows, int64_t i, int64_t dim,
                              double* g) {
  if (!key.needs_norms()) return;
  if (rows.norm[i] < kMinNorm) {
    std::memset(g, 0, static_cast<size_t>(dim) * sizeof(double));
    return;
  }
  const double norm = rows.clamped_norm(i);
  const double along = along_row(g, rows.row(i), norm, dim);
  each_eight_of(g, rows.row(i), dim,
                [&](Double8 some, Double8 x, int64_t k, int64_t count) FM_INLINE_LAMBDA {
                  some = divided<T>(some - divided<T>(x, norm) * along, norm);
                  std::memcpy(g + k, &some, static_cast<size_t>(count) * sizeof(double));
                });
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
