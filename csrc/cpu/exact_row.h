// SPDX-License-Identifier: BSD-3-Clause
// Computes the float64 keys of one query row against a list of reference rows: the bits of
// pair_key, several times faster.
//
// Why so: the query is widened (and scaled) once, and kRowsAtOnce references pass by together, each
// with its own eight sums: a single chain of dependent additions would leave most of the machine
// idle. The form is chosen once per call, not once per pair.
#pragma once

#include "keys.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// 4: with AVX2 a Double8 is two registers, and 4 of them, 2 of the query and 2 of a reference fit
// into 16.
constexpr int kRowsAtOnce = 4;

// References order[listed[0]], order[listed[1]], ...
template <class T>
struct ListedRows {
  const RowView<T>& rows;
  const int32_t* order;
  const int32_t* listed;

  FM_INLINE int64_t operator[](int64_t j) const { return order[listed[j]]; }
};

// key_sum of the widened query and `count` references from number j of the list on.
template <Form form, bool scaled, int count, class T>
FM_INLINE void key_sums(const double* x, const ListedRows<T>& list, int64_t j, int64_t dim,
                        double* out) {
  const T* rows[count];
  double scale[count];
  Double8 sum[count] = {};
  for (int u = 0; u < count; ++u) {
    rows[u] = list.rows.row(list[j + u]);
    scale[u] = scaled ? 1.0 / list.rows.clamped_norm(list[j + u]) : 1.0;
  }
  const auto step = [&](Double8 query, Double8 ref, int u) {
    if constexpr (scaled) ref = ref * scale[u];
    sum[u] = accumulate<form, false>(sum[u], query, ref, 1, 1);
  };
  int64_t k = 0;
  for (; k + 8 <= dim; k += 8) {
    const Double8 query = load8(x + k);
#pragma GCC unroll 4
    for (int u = 0; u < count; ++u) step(query, load8(rows[u] + k), u);
  }
  if (k < dim) {
    const Double8 query = load8_partial(x + k, dim - k);
#pragma GCC unroll 4
    for (int u = 0; u < count; ++u) step(query, load8_partial(rows[u] + k, dim - k), u);
  }
#pragma GCC unroll 4
  for (int u = 0; u < count; ++u) out[u] = sum8(sum[u]);
}

template <Form form, bool scaled, class T>
inline void list_key_sums(const double* x, const ListedRows<T>& list, int64_t n, int64_t dim,
                          double* out) {
  int64_t j = 0;
  for (; j + kRowsAtOnce <= n; j += kRowsAtOnce) {
    key_sums<form, scaled, kRowsAtOnce>(x, list, j, dim, out + j);
  }
  for (; j < n; ++j) key_sums<form, scaled, 1>(x, list, j, dim, out + j);
}

// out[j] = pair_key(key, x, i, list.rows, list[j], dim) for j < n.
template <class T>
FM_NOINLINE void listed_keys(KeyForm key, const RowView<T>& x, int64_t i, const ListedRows<T>& list,
                             int64_t n, int64_t dim,
                             double* x_buffer,  // [dim]
                             double* out) {     // [n]
  const T* query = x.row(i);
  const double scale = key.scaled ? 1.0 / x.clamped_norm(i) : 1.0;
  for (int64_t k = 0; k < dim; ++k) {
    x_buffer[k] = key.scaled ? static_cast<double>(query[k]) * scale : query[k];
  }
  if (key.form == Form::difference) {
    return key.scaled ? list_key_sums<Form::difference, true>(x_buffer, list, n, dim, out)
                      : list_key_sums<Form::difference, false>(x_buffer, list, n, dim, out);
  }
  if (key.scaled) {
    list_key_sums<Form::product, true>(x_buffer, list, n, dim, out);
  } else {
    list_key_sums<Form::product, false>(x_buffer, list, n, dim, out);
  }
  for (int64_t j = 0; j < n; ++j) {
    out[j] = -out[j];
    if (key.quotient) out[j] /= x.clamped_norm(i) * list.rows.clamped_norm(list[j]);
  }
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
