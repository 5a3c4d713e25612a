// SPDX-License-Identifier: BSD-3-Clause
// Computes the float64 key of a pair by eight lanes: lane r adds up the features k = r mod 8, and
// three exchanges add the eight sums as ((0+4)+(2+6)) + ((1+5)+(3+7)): bit for bit the keys of
// cpu/keys.h and of reference.rank_key.
//
// Numerics: products are rounded before they are added; this file is compiled without contraction.
#pragma once

#include "../exact_sum.h"
#include "rows.cuh"

namespace flashmetric::cuda {

constexpr unsigned kAllLanes = 0xFFFFFFFFU;

// |gap|^p. A whole p multiplies, by the squares of squares that p in binary asks for. Never
// inlined: 64 copies of pow in a loop took nvcc longer than all else.
static __device__ __noinline__ double raised(double base, double p) {
  const int whole = whole_power(p);
  if (whole == 0) return ::pow(base, p);
  double result = base;
  bool started = whole % 2 != 0;
  for (int left = whole / 2; left != 0; left /= 2) {
    base = base * base;
    if (left % 2 != 0) result = started ? result * base : base;
    started = started || left % 2 != 0;
  }
  return result;
}

// The larger; NaN if one is.
__device__ inline double larger(double a, double b) { return b > a || b != b ? b : a; }

// One step of a partial sum.
template <Form form>
__device__ inline double accumulated(double sum, double x, double r, double p) {
  const double gap = x - r;
  if constexpr (form == Form::product) return sum + x * r;
  if constexpr (form == Form::difference) return sum + gap * gap;
  if constexpr (form == Form::absolute) return sum + ::fabs(gap);
  if constexpr (form == Form::power) return sum + raised(::fabs(gap), p);
  return larger(sum, ::fabs(gap));
}

// Of a number and NaN one is the number, the other NaN.
__device__ inline double lower_of(double a, double b) { return a < b ? a : b; }
__device__ inline double upper_of(double a, double b) { return a < b ? b : a; }

__device__ inline ExactSum from_lane(const ExactSum& sum, int mask) {
  return {__shfl_xor_sync(kAllLanes, sum.sum, mask), __shfl_xor_sync(kAllLanes, sum.lost, mask)};
}

// The sum over the warp, in each lane.
__device__ inline double warp_sum(double part) {
  for (int step = 16; step > 0; step /= 2) part += __shfl_xor_sync(kAllLanes, part, step);
  return part;
}

// The sum of the partial sums of eight neighbouring lanes, in each of them.
__device__ inline double sum8(double part) {
  part += __shfl_xor_sync(kAllLanes, part, 4);
  part += __shfl_xor_sync(kAllLanes, part, 2);
  return part + __shfl_xor_sync(kAllLanes, part, 1);
}
__device__ inline double largest8(double part) {
  part = larger(part, __shfl_xor_sync(kAllLanes, part, 4));
  part = larger(part, __shfl_xor_sync(kAllLanes, part, 2));
  return larger(part, __shfl_xor_sync(kAllLanes, part, 1));
}

// Sums of the smaller and of the larger of each two features.
struct Overlap {
  double shared, together;
  // Two rows of zeros are equal.
  FM_HD double share() const { return together == 0 ? 1.0 : shared / together; }
};

// Two mapped rows, as eight lanes read them. All lanes of the warp must call what follows.
template <class X, class R>
struct PairRows {
  const X* x;
  const R* r;
  Mapping x_map, r_map;
  int64_t dim;

  template <class Visit>
  __device__ void each(const Visit& visit) const {
#pragma unroll 8
    for (int64_t k = threadIdx.x % 8; k < dim; k += 8) {
      visit(x_map.of(widened(x[k])), r_map.of(widened(r[k])));
    }
  }

  // The same of rows that are not mapped: 1 x - 0 is x.
  template <class Visit>
  __device__ void each_plain(const Visit& visit) const {
#pragma unroll 8
    for (int64_t k = threadIdx.x % 8; k < dim; k += 8) visit(widened(x[k]), widened(r[k]));
  }

  template <Form form>
  __device__ double key(double p, bool mapped = true) const {
    double part = 0;
    const auto add = [&](double a, double b) { part = accumulated<form>(part, a, b, p); };
    if (mapped) {
      each(add);
    } else {
      each_plain(add);
    }
    return form == Form::maximum ? largest8(part) : sum8(part);
  }

  __device__ Overlap overlap() const {
    double low = 0;
    double high = 0;
    each([&](double a, double b) {
      low = low + lower_of(a, b);
      high = high + upper_of(a, b);
    });
    return {sum8(low), sum8(high)};
  }
};

template <class X, class R>
__device__ double mapped_key(const KeyFacts& key, const PairRows<X, R>& pair) {
  switch (key.form) {
    case Form::difference:
      return pair.template key<Form::difference>(2);
    case Form::product:
      return -pair.template key<Form::product>(2);
    case Form::absolute:
      return pair.template key<Form::absolute>(2);
    case Form::power:
      return pair.template key<Form::power>(key.power);
    case Form::maximum:
      return pair.template key<Form::maximum>(2);
    case Form::overlap:
      return -pair.overlap().share();
  }
  return 0;
}

// What is left to do with the sum over features.
FM_HD double finished_key(const KeyFacts& key, double pair, const RowNumbers& x, int64_t i,
                          const RowNumbers& r, int64_t j) {
  if (key.quotient) return pair / (x.clamped_norm(i) * r.clamped_norm(j));
  return key.relative ? pair / x.clamped_energy(i) : pair;
}

template <class T>
__device__ PairRows<T, T> pair_rows(const KeyFacts& key, const RowView<T>& x, int64_t i,
                                    const RowView<T>& r, int64_t j, int64_t dim) {
  return {x.row(i), r.row(j), x.numbers.mapping(key, i), r.numbers.mapping(key, j), dim};
}

template <class T>
__device__ double pair_key(const KeyFacts& key, const RowView<T>& x, int64_t i, const RowView<T>& r,
                           int64_t j, int64_t dim) {
  const double sum = mapped_key(key, pair_rows(key, x, i, r, j, dim));
  return finished_key(key, sum, x.numbers, i, r.numbers, j);
}

// The numbers that lanes want of the reference j of each, `some` says whose: four at a time, eight
// lanes each. `of(j)` gives all lanes of the warp that of the reference that eight of them name.
template <class Of>
__device__ double lane_keys(unsigned some, int64_t j, const Of& of) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int rank = __popc(some & ((1U << lane) - 1));
  double wanted = 0;
  for (int done = 0; some != 0; done += 4) {
    int from = __ffs(static_cast<int>(some)) - 1;  // the lane whose number this one helps with
#pragma unroll
    for (int g = 1; g < 4; ++g) {
      some &= some - 1;
      if (some != 0 && lane / 8 >= g) from = __ffs(static_cast<int>(some)) - 1;
    }
    some &= some - 1;
    const double found = of(__shfl_sync(kAllLanes, j, from));
    // That of rank done + g is with lanes 8 g ..
    const double own = __shfl_sync(kAllLanes, found, ((rank - done) & 3) * 8);
    if (rank >= done && rank < done + 4) wanted = own;
  }
  return wanted;
}

// Whether the key as a value is computed otherwise than for a choice.
template <class T>
FM_HD bool value_differs(const KeyFacts& key) {
  return sizeof(T) == sizeof(double) && key.scaled && key.form == Form::difference && !key.relative;
}

// The key of a pair as a value: of float64 rows that are normalised, each feature is divided by the
// norm, which rounds once where the product with its inverse rounds three times, and what the sum
// loses is kept. All lanes have it.
template <class T>
__device__ double pair_value(const KeyFacts& key, const RowView<T>& x, int64_t i,
                             const RowView<T>& r, int64_t j, int64_t dim) {
  if (!value_differs<T>(key)) return pair_key(key, x, i, r, j, dim);
  const double x_norm = x.numbers.clamped_norm(i);
  const double r_norm = r.numbers.clamped_norm(j);
  ExactSum sum;
  for (int64_t k = threadIdx.x % 8; k < dim; k += 8) {
    const double gap = widened(x.row(i)[k]) / x_norm - widened(r.row(j)[k]) / r_norm;
    const double square = gap * gap;
    sum.add({square, ::fma(gap, gap, -square)});
  }
  for (int mask = 1; mask < 8; mask *= 2) sum.add(from_lane(sum, mask));
  return sum.value();
}

// The best pair seen so far for one query: a NaN key wins over any number, then the smaller key,
// then the lower original row.
struct BestPair {
  double key;
  int64_t row;  // -1: none yet

  FM_HD void offer(double other_key, int64_t other_row) {
    if (other_row >= 0 && (row < 0 || better(other_key, other_row))) {
      key = other_key;
      row = other_row;
    }
  }
  __device__ void offer_lane(int lane_mask) {
    const double other_key = __shfl_xor_sync(kAllLanes, key, lane_mask);
    const int64_t other_row = __shfl_xor_sync(kAllLanes, row, lane_mask);
    offer(other_key, other_row);
  }

 private:
  FM_HD bool better(double other_key, int64_t other_row) const {
    const bool nan = key != key;
    const bool other_nan = other_key != other_key;
    if (nan != other_nan) return other_nan;
    if (nan || other_key == key) return other_row < row;
    return other_key < key;
  }
};

}  // namespace flashmetric::cuda
