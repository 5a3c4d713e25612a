// SPDX-License-Identifier: BSD-3-Clause
// Accumulates the gradient of one row by a warp: the sum over its pairs of
//   coefficient * direction,
// the direction that of the form, as cpu/gradient_row.h writes them out; and takes it back through
// the normalisation of the row.
//
// Numerics: float64 sums in the order of the pairs, rounded once at the end.
#pragma once

#include "triplet_state.cuh"

namespace flashmetric::cuda {

// Features of a lane at a time.
constexpr int kLaneFeatures = 4;
constexpr int kSliceFeatures = kLaneFeatures * kWarp;

template <class T>
struct TouchedPair {
  const T* other = nullptr;
  Mapping map;             // of the other row
  double norm = 1;         // 1, or that of the other row
  double coefficient = 0;  // d loss / d distance * slope of the distance, per unit of direction
  double extreme = 0;      // the largest gap, J, or of a relative query its d
};

// How the hot loop adds a pair: two forms have loops of their own.
enum class Steps { difference, product, any };

inline Steps steps_of(const KeyFacts& key) {
  if (key.relative) return Steps::any;
  return key.form == Form::difference ? Steps::difference
         : key.form == Form::product  ? Steps::product
                                      : Steps::any;
}

// x / norm. Of float64 rows a quotient, which rounds once where the product with an inverse rounds
// three times; narrower rows have lost more than that before they came here.
template <class T>
__device__ double divided(double x, double norm) {
  return sizeof(T) == sizeof(double) ? x / norm : x * (1.0 / norm);
}

// <g, z> of a row z, the share of a lane. It is large beside what it leaves of g where they point
// the same way: of float64 rows the products and their sum are exact until the end.
template <class T>
struct AlongRow {
  ExactSum sum;

  __device__ void add(double g, double z) {
    const double product = g * z;
    if constexpr (sizeof(T) == sizeof(double)) {
      sum.add({product, ::fma(g, z, -product)});
    } else {
      sum.sum += product;
    }
  }
  // Of the warp; all lanes have it.
  __device__ ExactSum in_warp() {
    if constexpr (sizeof(T) == sizeof(double)) {
      for (int mask = 1; mask < kWarp; mask *= 2) sum.add(from_lane(sum, mask));
    } else {
      sum.sum = warp_sum(sum.sum);
    }
    return sum;
  }
};

// The row whose gradient it is.
template <class T>
struct GradientRow {
  KeyForm key;  // of quotient keys: scaled, for gradients go through the normalised rows
  RowView<T> rows;
  int64_t i;
  int64_t dim;
  Mapping map;
  double norm;

  __device__ GradientRow(const KeyForm& named, const RowView<T>& of_rows, int64_t row, int64_t n)
      : key(named), rows(of_rows), i(row), dim(n) {
    key.scaled = key.scaled || key.quotient;
    map = rows.numbers.mapping(key, i);
    norm = key.scaled ? rows.numbers.clamped_norm(i) : 1.0;
  }

  // Fills in what the direction needs to know of the whole pair. All lanes, with the same pair.
  __device__ void complete(TouchedPair<T>& pair, const RowView<T>& others, int64_t j,
                           bool query) const {
    if (key.of_products() && !key.relative) return;
    const PairRows<T, T> both{rows.row(i), others.row(j), map, others.numbers.mapping(key, j), dim};
    if (key.relative) {
      const RowView<T>& of = query ? rows : others;
      const int64_t row = query ? i : j;
      pair.coefficient = of.numbers.constant(row) ? 0.0 : pair.coefficient / of.numbers.energy[row];
      // The query is in the divisor as well: its z gets 1 - d in place of 1.
      const double d = mapped_key(key, both) / rows.numbers.clamped_energy(i);
      pair.extreme = query ? d : 0.0;
    } else if (key.form == Form::maximum) {
      pair.extreme = mapped_key(key, both);
      double ties = 0;
      both.each([&](double a, double b) { ties += ::fabs(a - b) == pair.extreme ? 1 : 0; });
      // Features that do not exist are gaps of 0, which share a largest gap of 0 but have no sign.
      pair.coefficient /= pair.extreme == 0 ? 1 : sum8(ties);
    } else if (key.form == Form::overlap) {
      const Overlap overlap = both.overlap();
      pair.extreme = overlap.share();
      pair.coefficient = overlap.together == 0 ? 0.0 : pair.coefficient / overlap.together;
    }
  }

  // A feature of a row that may be normalised: as `divided` has it.
  __device__ static double mapped(double x, const Mapping& map, double norm) {
    return sizeof(T) == sizeof(double) ? x / norm : x * map.scale;
  }

  __device__ static double sign(double v) { return v > 0 ? 1.0 : v < 0 ? -1.0 : 0.0; }

  // What one feature of a pair adds.
  __device__ double step(const TouchedPair<T>& pair, int64_t k) const {
    const double x = widened(rows.row(i)[k]);
    const double r = widened(pair.other[k]);
    if (key.form == Form::product) return r * (pair.map.scale * pair.coefficient);
    if (key.form == Form::difference && !key.relative) {
      return (mapped(x, map, norm) - mapped(r, pair.map, pair.norm)) * pair.coefficient;
    }
    const double z = x * map.scale;
    const double o = r * pair.map.scale;
    switch (key.form) {
      case Form::difference: {
        const double about = z - map.shift;
        return ((about - (o - pair.map.shift)) - about * pair.extreme) * pair.coefficient;
      }
      case Form::absolute:
        return sign(z - o) * pair.coefficient;
      case Form::power: {
        // As in pair_value: a quotient rounds once.
        const bool wide = sizeof(T) == sizeof(double) && key.scaled;
        const double gap = wide ? x / norm - r / pair.norm : z - o;
        return raised(::fabs(gap), key.power - 1) * sign(gap) * pair.coefficient;
      }
      case Form::maximum: {
        const double gap = z - o;
        // Products, so that a NaN or infinite coefficient shows.
        return (::fabs(gap) == pair.extreme ? 1.0 : 0.0) * sign(gap) * pair.coefficient;
      }
      default: {
        const double gap = z - o;
        const double up = pair.coefficient * pair.extreme;
        return gap > 0 ? up : gap < 0 ? -pair.coefficient : (up - pair.coefficient) / 2;
      }
    }
  }

  // The sum over pairs for the features slice + lane, + 32, ... of this lane.
  template <Steps steps>
  __device__ void add_all(const TouchedPair<T>* pairs, int count, int64_t slice,
                          double (&sum)[kLaneFeatures]) const {
    double z[kLaneFeatures];
    int64_t at[kLaneFeatures];
#pragma unroll
    for (int f = 0; f < kLaneFeatures; ++f) {
      const int64_t k = slice + f * kWarp + threadIdx.x % kWarp;
      at[f] = k < dim ? k : dim - 1;  // what is read twice is written once
      z[f] = steps == Steps::difference ? mapped(widened(rows.row(i)[at[f]]), map, norm) : 0;
      sum[f] = 0;
    }
    // Four pairs at a time, the last ones again where there are fewer: all are read before the
    // first is used. Other forms have more to do than to wait.
    constexpr int at_once = steps == Steps::any ? 1 : 4;
    for (int first = 0; first < count; first += at_once) {
      double term[at_once][kLaneFeatures];
#pragma unroll
      for (int u = 0; u < at_once; ++u) {
        const TouchedPair<T>& pair = pairs[first + u < count ? first + u : count - 1];
#pragma unroll
        for (int f = 0; f < kLaneFeatures; ++f) {
          if constexpr (steps == Steps::any) {
            term[u][f] = step(pair, at[f]);
          } else {
            const double o = widened(pair.other[at[f]]);
            term[u][f] = steps == Steps::product
                             ? o * (pair.map.scale * pair.coefficient)
                             : (z[f] - mapped(o, pair.map, pair.norm)) * pair.coefficient;
          }
        }
      }
#pragma unroll
      for (int u = 0; u < at_once; ++u) {
#pragma unroll
        for (int f = 0; f < kLaneFeatures; ++f) sum[f] += first + u < count ? term[u][f] : 0.0;
      }
    }
  }

  // A feature of z, the normalised row.
  __device__ double unit_feature(int64_t k) const {
    return divided<T>(widened(rows.row(i)[k]), norm);
  }

  // Adds this lane's features of <gradient, z>.
  __device__ void add_along(int64_t slice, const double (&sum)[kLaneFeatures],
                            AlongRow<T>& along) const {
#pragma unroll
    for (int f = 0; f < kLaneFeatures; ++f) {
      const int64_t k = slice + f * kWarp + threadIdx.x % kWarp;
      if (k < dim) along.add(sum[f], unit_feature(k));
    }
  }

  // <gradient, z> of all features, in memory; all lanes have it.
  __device__ double along(const double* sums) const {
    AlongRow<T> along;
    for (int64_t k = threadIdx.x % kWarp; key.scaled && k < dim; k += kWarp) {
      along.add(sums[k], unit_feature(k));
    }
    return along.in_warp().value();
  }

  // A feature of the gradient, through the norm if rows are normalised.
  __device__ double through_norm(double g, double along, int64_t k) const {
    if (!key.scaled) return g;
    return rows.numbers.norm[i] < kMinNorm ? 0.0 : divided<T>(g - along * unit_feature(k), norm);
  }
};

// Gradients of halves are float32.
template <class T>
struct GradientType {
  using type = float;
};
template <>
struct GradientType<double> {
  using type = double;
};

}  // namespace flashmetric::cuda
