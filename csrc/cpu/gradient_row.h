// SPDX-License-Identifier: BSD-3-Clause
// Accumulates the gradient of one row: the sum over its pairs of
//   coefficient * direction,
// the direction that of the form (distances.h); z and o being the row and the other row of the
// pair, mapped as keys map them:
//   difference  z - o; of the query of a relative distance (1 - d) z - o
//   product     o
//   absolute    sign(z - o)
//   power       |z - o|^(p-1) sign(z - o)
//   maximum     sign(z - o) where |z - o| is the largest, in equal shares
//   overlap     (J d max - d min) / sum max, J the quotient; where z = o each has half a slope
//
// Numerics: float64 sums in the order the pairs are added, rounded once at the end.
#pragma once

#include "keys.h"
#include "simd.h"
#include "through_norm.h"
#include "vector_power.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

template <class T>
struct GradientPair {
  const T* other;
  Mapping map;         // of the other row
  double norm;         // 1, or that of the other row
  double coefficient;  // d loss / d distance * slope of the distance, per unit of direction
  double extreme = 0;  // the largest gap, J, or of a relative query its d
};

// 32: the pairs of one row mostly fit, and the list stays in registers' reach (2 KiB of L1).
constexpr int kPairBatch = 32;

// |gap|^p, off by a few roundings where p has a fraction: 20 times as fast as ::pow, and for the
// gradient of float32 rows as good.
template <class T>
FM_INLINE Double8 raised_about(Double8 base, double p) {
  if (sizeof(T) == sizeof(double) || whole_power(p) != 0) return raised(base, p);
  const VectorPower<double> power(p);
  for (Vec<double>& part : base.part) part = power.of(part);
  return base;
}

template <class T>
class GradientRow {
 public:
  FM_INLINE GradientRow(KeyForm key, int64_t dim, double* buffer)
      : key_(key), dim_(dim), buffer_(buffer) {
    if (key_.quotient) key_.scaled = true;  // gradients go through the normalised rows
  }

  FM_INLINE void start(const RowView<T>& rows, int64_t i) {
    own_ = &rows;
    index_ = i;
    row_ = rows.row(i);
    map_ = rows.mapping(key_, i);
    norm_ = key_.scaled ? rows.clamped_norm(i) : 1.0;
    for (int64_t k = 0; k < dim_; ++k) buffer_[k] = 0;
    pending_ = 0;
    untouched_ = true;
  }

  // The slope of the distance to row j, by its key.
  inline double slope(const RowView<T>& rows, int64_t j) const {
    if (key_.form != Form::power || sizeof(T) == sizeof(double)) {
      return key_.slope(pair_key(key_, *own_, index_, rows, j, dim_));
    }
    Double8 sum = {};
    each_eight(row_, rows.row(j), dim_, map_, rows.mapping(key_, j),
               [&](Double8 a, Double8 b)
                   FM_INLINE_LAMBDA { sum = sum + raised_about<T>(absolute(a - b), key_.power); });
    return key_.slope(sum8(sum));
  }

  // Pair with row j; `query`: the row of the gradient is the query of the pair.
  FM_INLINE void add(const RowView<T>& rows, int64_t j, double coefficient, bool query) {
    if (coefficient == 0) return;
    untouched_ = false;
    GradientPair<T>& pair = batch_[pending_++];
    pair = {rows.row(j), rows.mapping(key_, j), key_.scaled ? rows.clamped_norm(j) : 1.0,
            coefficient};
    if (!key_.of_products() || key_.relative) complete(pair, rows, j, query);
    if (pending_ == kPairBatch) flush();
  }

  // out = gradient, or out += gradient.
  inline void finish(T* out, bool add_to_out) {
    flush();
    if (!untouched_) through_norm(key_, *own_, index_, dim_, buffer_);
    for (int64_t k = 0; k < dim_; ++k) {
      out[k] = static_cast<T>(add_to_out ? static_cast<double>(out[k]) + buffer_[k] : buffer_[k]);
    }
  }

  // What was added so far, [dim]; before the normalisation of the row.
  FM_INLINE const double* sums() {
    flush();
    return buffer_;
  }

 private:
  // What the direction needs to know of the whole pair.
  FM_NOINLINE void complete(GradientPair<T>& pair, const RowView<T>& rows, int64_t j, bool query) {
    if (key_.relative) {
      const RowView<T>& of = query ? *own_ : rows;
      const int64_t row = query ? index_ : j;
      pair.coefficient = of.constant(row) ? 0.0 : pair.coefficient / of.energy[row];
      // The query is in the divisor as well: its z gets 1 - d in place of 1.
      pair.extreme = query ? pair_key(key_, *own_, index_, rows, j, dim_) : 0.0;
    } else if (key_.form == Form::maximum) {
      pair.extreme = pair_key(key_, *own_, index_, rows, j, dim_);
      Double8 ties = {};
      each_eight(row_, pair.other, dim_, map_, pair.map,
                 [&](Double8 a, Double8 b)
                     FM_INLINE_LAMBDA { ties = ties + equals8(absolute(a - b), pair.extreme); });
      // Features that do not exist are gaps of 0, which share a largest gap of 0 but have no sign.
      pair.coefficient /= sum8(ties);
    } else if (key_.form == Form::overlap) {
      const Overlap overlap = overlap_of(row_, pair.other, dim_, map_, pair.map);
      pair.extreme = overlap.share();
      pair.coefficient = overlap.together == 0 ? 0.0 : pair.coefficient / overlap.together;
    }
  }

  FM_INLINE void flush() {
    flush_pairs();
    pending_ = 0;
  }

  FM_INLINE void flush_pairs() {
    switch (key_.form) {
      case Form::difference:
        key_.relative ? flush_as<Form::difference, true>() : flush_as<Form::difference>();
        break;
      case Form::product:
        flush_as<Form::product>();
        break;
      case Form::absolute:
        flush_as<Form::absolute>();
        break;
      case Form::power:
        flush_as<Form::power>();
        break;
      case Form::maximum:
        flush_as<Form::maximum>();
        break;
      case Form::overlap:
        flush_as<Form::overlap>();
        break;
    }
  }

  // 32 features = 4 Double8 sums live in registers while the pairs pass by.
  template <Form form, bool relative = false>
  FM_NOINLINE void flush_as() {
    constexpr int unroll = 4;
    int64_t k = 0;
    for (; k + 8 * unroll <= dim_; k += 8 * unroll) {
      Double8 sum[unroll];
#pragma GCC unroll 4
      for (int u = 0; u < unroll; ++u) sum[u] = load8(buffer_ + k + 8 * u);
      Double8 lost[unroll] = {};
      for (int p = 0; p < pending_; ++p) {
#pragma GCC unroll 4
        for (int u = 0; u < unroll; ++u) {
          add_step<form, relative>(sum[u], lost[u], load8(row_ + k + 8 * u),
                                   load8(batch_[p].other + k + 8 * u), batch_[p]);
        }
      }
#pragma GCC unroll 4
      for (int u = 0; u < unroll; ++u) {
        sum[u] = sum[u] + lost[u];
        std::memcpy(buffer_ + k + 8 * u, &sum[u], sizeof sum[u]);
      }
    }
    for (; k < dim_; k += 8) {
      const int64_t count = dim_ - k < 8 ? dim_ - k : 8;
      Double8 sum = load8_partial(buffer_ + k, count);
      Double8 lost = {};
      for (int p = 0; p < pending_; ++p) {
        add_step<form, relative>(sum, lost, load8_partial(row_ + k, count),
                                 load8_partial(batch_[p].other + k, count), batch_[p]);
      }
      sum = sum + lost;
      std::memcpy(buffer_ + k, &sum, static_cast<size_t>(count) * sizeof(double));
    }
  }

  // Adds a step. Of float64 rows what rounding takes from the sum is kept aside (Knuth's two-sum);
  // infinite sums have lost nothing that could be named.
  template <Form form, bool relative>
  FM_INLINE void add_step(Double8& sum, Double8& lost, Double8 x, Double8 other,
                          const GradientPair<T>& pair) const {
    if constexpr (sizeof(T) < sizeof(double)) {
      sum = step<form, relative>(sum, x, other, pair);
    } else {
      const Double8 term = step<form, relative>(Double8{}, x, other, pair);
      const Double8 total = sum + term;
      const Double8 added = total - sum;
      lost = lost + finite8((sum - (total - added)) + (term - added));
      sum = total;
    }
  }

  template <Form form, bool relative>
  FM_INLINE Double8 step(Double8 sum, Double8 x, Double8 other, const GradientPair<T>& pair) const {
    if constexpr (form == Form::product) return sum + other * (pair.map.scale * pair.coefficient);
    const Double8 z = x * map_.scale;
    const Double8 o = other * pair.map.scale;
    if constexpr (relative) {
      const Double8 about = z - map_.shift;
      return sum + ((about - (o - pair.map.shift)) - about * pair.extreme) * pair.coefficient;
    } else if constexpr (form == Form::difference) {
      if (sizeof(T) == sizeof(double) && key_.scaled) {
        return sum + (x / norm_ - other / pair.norm) * pair.coefficient;
      }
      return sum + (z - o) * pair.coefficient;
    } else if constexpr (form == Form::absolute) {
      return sum + signs8(z - o) * pair.coefficient;
    } else if constexpr (form == Form::power) {
      Double8 gap = z - o;
      if (sizeof(T) == sizeof(double) && key_.scaled) gap = x / norm_ - other / pair.norm;
      return sum + raised_about<T>(absolute(gap), key_.power - 1) * signs8(gap) * pair.coefficient;
    } else if constexpr (form == Form::maximum) {
      const Double8 gap = z - o;
      return sum + equals8(absolute(gap), pair.extreme) * signs8(gap) * pair.coefficient;
    } else {
      const double up = pair.coefficient * pair.extreme;
      return sum + by_sign8(z - o, -pair.coefficient, (up - pair.coefficient) / 2, up);
    }
  }

  KeyForm key_;
  int64_t dim_;
  double* buffer_;  // [dim]
  const RowView<T>* own_ = nullptr;
  int64_t index_ = 0;
  const T* row_ = nullptr;
  Mapping map_;
  double norm_ = 1;
  int pending_ = 0;
  bool untouched_ = true;
  GradientPair<T> batch_[kPairBatch];
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
