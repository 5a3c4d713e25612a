// SPDX-License-Identifier: BSD-3-Clause
// Rows as the caller gave them, the numbers of each that its keys need, and how keys compare two.
#pragma once

#include "../arena.h"
#include "../flashmetric.h"
#include "../key_form.h"
#include "double8.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// The facts of a key, and the distance they belong to.
struct KeyForm : KeyFacts {
  FM_INLINE Curve curve() const {
    Curve found = Curve::linear;
    visit_by_index(Distances{}, distance, [&](auto policy) { found = decltype(policy)::curve; });
    return found;
  }

  FM_INLINE bool slope_is_constant() const { return curve() == Curve::linear; }

  FM_NOINLINE double value(double key) const {
    double found = 0;
    visit_by_index(Distances{}, distance,
                   [&](auto policy) { found = decltype(policy)::value(key, power); });
    return found;
  }
  FM_NOINLINE double slope(double key) const {
    double found = 0;
    visit_by_index(Distances{}, distance,
                   [&](auto policy) { found = decltype(policy)::slope(key, power); });
    return found;
  }
  FM_NOINLINE double key(double value) const {
    double found = 0;
    visit_by_index(Distances{}, distance,
                   [&](auto policy) { found = decltype(policy)::key(value, power); });
    return found;
  }
};

FM_INLINE KeyForm key_form(int distance, double power, bool normalize) {
  return {key_facts(distance, power, normalize)};
}

// x * scale - shift, of the features that exist.
struct Mapping {
  double scale = 1;
  double shift = 0;

  FM_INLINE Double8 of(Double8 x, int64_t count) const {
    Double8 mapped = x * scale - shift;
    if (count < 8) {
      double lanes[8];
      std::memcpy(lanes, &mapped, sizeof lanes);
      for (int64_t lane = count; lane < 8; ++lane) lanes[lane] = 0;
      std::memcpy(&mapped, lanes, sizeof lanes);
    }
    return mapped;
  }
  FM_INLINE double of(double x) const { return x * scale - shift; }
};

// The same where all shifts are 0: the bits of x * scale - 0 without the subtraction.
struct Scaling {
  double scale = 1;

  explicit Scaling(Mapping map = {}) : scale(map.scale) {}
  FM_INLINE Double8 of(Double8 x, int64_t) const { return x * scale; }
};

// The same where all scales are 1 as well.
struct Unmapped {
  explicit Unmapped(Mapping = {}) {}
  FM_INLINE Double8 of(Double8 x, int64_t) const { return x; }
};

// visit(the kind of map that the rows of a key have).
template <class Visit>
FM_INLINE auto with_map_of(KeyForm key, const Visit& visit) {
  if (key.relative) return visit(Mapping{});
  if (key.scaled) return visit(Scaling{});
  return visit(Unmapped{});
}

template <class T>
struct RowView {
  const T* data;   // [n, dim]
  int64_t stride;  // elements
  double* norm;    // [n] Euclidean norms; only read for scaled or quotient keys
  double* mean;    // [n] of the scaled features; only for those that need means
  double* energy;  // [n] sum of squares about the mean; only for relative keys

  FM_INLINE const T* row(int64_t i) const { return data + i * stride; }
  // Written so that a NaN stays NaN.
  FM_INLINE double clamped_norm(int64_t i) const { return norm[i] < kMinNorm ? kMinNorm : norm[i]; }
  FM_INLINE bool constant(int64_t i) const { return energy[i] < kMinNorm * kMinNorm; }
  FM_INLINE double clamped_energy(int64_t i) const {
    return constant(i) ? kMinNorm * kMinNorm : energy[i];
  }
  FM_INLINE Mapping mapping(KeyForm key, int64_t i) const {
    return {key.scaled ? 1.0 / clamped_norm(i) : 1.0, key.relative ? mean[i] : 0.0};
  }
};

// Room for the numbers of `rows` rows, and the view that knows them.
FM_INLINE double* take_numbers(Arena& arena, int64_t rows) { return arena.take<double>(3 * rows); }
template <class T>
FM_INLINE RowView<T> view_of(const Rows& rows, double* numbers) {
  return {static_cast<const T*>(rows.data), rows.stride, numbers, numbers + rows.n,
          numbers + 2 * rows.n};
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
