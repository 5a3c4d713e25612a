// SPDX-License-Identifier: BSD-3-Clause
// Computes the float64 keys of one query row against a run of rows, or a list: the bits of
// pair_key, several times faster.
//
// Why so: the query is widened (and mapped) once, and kRowsAtOnce references pass by together, each
// with its own eight sums: a single chain of dependent additions would leave most of the machine
// idle. The form is chosen once per call, not once per pair.
#pragma once

#include "keys.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// 4: with AVX2 a Double8 is two registers, and 4 of them, 2 of the query and 2 of a reference fit
// into 16.
constexpr int kRowsAtOnce = 4;

// The references: all rows, or those that are listed.
template <class T>
struct References {
  const RowView<T>& rows;
  const int32_t* listed;  // null: all

  FM_INLINE int64_t operator[](int64_t j) const { return listed == nullptr ? j : listed[j]; }
};

// key_sum of the mapped query and `count` references from number j on.
template <Form form, class Map, int count, class T>
FM_INLINE void key_sums(KeyForm key, const double* x, const References<T>& r, int64_t j,
                        int64_t dim, double* out) {
  const T* rows[count];
  Map map[count];
  Double8 sum[count] = {};
  for (int u = 0; u < count; ++u) {
    rows[u] = r.rows.row(r[j + u]);
    map[u] = Map(r.rows.mapping(key, r[j + u]));
  }
  const auto step = [&](Double8 query, Double8 ref, int u, int64_t features) FM_INLINE_LAMBDA {
    sum[u] = accumulate<form>(sum[u], query, map[u].of(ref, features), key.power);
  };
  int64_t k = 0;
  for (; k + 8 <= dim; k += 8) {
    const Double8 query = load8(x + k);
#pragma GCC unroll 4
    for (int u = 0; u < count; ++u) step(query, load8(rows[u] + k), u, 8);
  }
  if (k < dim) {
    const Double8 query = load8_partial(x + k, dim - k);
#pragma GCC unroll 4
    for (int u = 0; u < count; ++u) step(query, load8_partial(rows[u] + k, dim - k), u, dim - k);
  }
#pragma GCC unroll 4
  for (int u = 0; u < count; ++u) out[u] = total8<form>(sum[u]);
}

template <Form form, class T>
inline void row_key_sums(KeyForm key, const double* x, const References<T>& r, int64_t begin,
                         int64_t end, int64_t dim, double* out) {
  with_map_of(key, [&](auto map) {
    using Map = decltype(map);
    int64_t j = begin;
    for (; j + kRowsAtOnce <= end; j += kRowsAtOnce) {
      key_sums<form, Map, kRowsAtOnce>(key, x, r, j, dim, out + (j - begin));
    }
    for (; j < end; ++j) key_sums<form, Map, 1>(key, x, r, j, dim, out + (j - begin));
  });
}

// out[j - begin] = pair_key(key, x, i, rows, j, dim) for begin <= j < end; j counts in the list if
// there is one.
template <class T>
inline void row_keys(KeyForm key, const RowView<T>& x, int64_t i, const RowView<T>& rows,
                     int64_t begin, int64_t end, int64_t dim,
                     double* x_buffer,  // [dim]
                     double* out,       // [end - begin]
                     const int32_t* listed = nullptr) {
  const References<T> r{rows, listed};
  const T* query = x.row(i);
  const Mapping map = x.mapping(key, i);
  for (int64_t k = 0; k < dim; ++k) {
    const auto wide = static_cast<double>(query[k]);
    x_buffer[k] = key.maps_rows() ? map.of(wide) : wide;
  }
  switch (key.form) {
    case Form::difference:
      row_key_sums<Form::difference>(key, x_buffer, r, begin, end, dim, out);
      break;
    case Form::product:
      row_key_sums<Form::product>(key, x_buffer, r, begin, end, dim, out);
      break;
    case Form::absolute:
      row_key_sums<Form::absolute>(key, x_buffer, r, begin, end, dim, out);
      break;
    default:  // as fast as they can be, one by one
      for (int64_t j = begin; j < end; ++j) out[j - begin] = pair_key(key, x, i, rows, r[j], dim);
      return;
  }
  for (int64_t j = begin; j < end; ++j) {
    double& pair = out[j - begin];
    if (key.form == Form::product) pair = -pair;
    if (key.quotient) pair /= x.clamped_norm(i) * rows.clamped_norm(r[j]);
    if (key.relative) pair /= x.clamped_energy(i);
  }
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
