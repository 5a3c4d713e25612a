// SPDX-License-Identifier: BSD-3-Clause
// POLICIES of dense losses that weigh every triplet: softplus over triplets, and softmax weights
// (Ristani, Tomasi 2018, "Features for Multi-Target Multi-Camera Tracking", section 3.1). Scalar
// float64 arithmetic: an exponential a triplet is the cost, not the distances.
#pragma once

#include "../losses.h"
#include "dense_rules.h"
#include "vector_power.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// Of the negatives: their float64 distances.
template <class T, Curve curve>
FM_INLINE void measure_negatives(const DenseRow<T, curve>& row) {
  for (int64_t j = 0; j < row.ref.n; ++j) {
    if (row.is_negative(j)) row.negative_distance[j] = row.exact_distance(j);
  }
}

// Turns slopes, d term / d distance, into coefficients.
template <class T, Curve curve, class Slope>
FM_INLINE void write_coefficients(const DenseRow<T, curve>& row, const Slope& slope) {
  for (int64_t j = 0; j < row.ref.n; ++j) {
    if (!row.is_negative(j)) continue;
    const double key = row.key.key(row.negative_distance[j]);
    row.coefficient[j] = static_cast<T>(slope(j) * row.key.slope(key));
  }
}

struct TripletSoftplus {
  static constexpr bool of_pairs = false;
  static constexpr bool online = false;

  template <class T, Curve curve>
  static void row(const DenseProblem& problem, const DenseRow<T, curve>& row,
                  const RowFactors<T>& factors, bool with_stats, RowTotals& totals) {
    if (!row.valid()) return;
    const TripletRange set(problem.loss);
    measure_negatives(row);
    const double factor = factors.weight * factors.cotangent;
    double count = 0;
    for (int64_t p = 0; p < row.n_positive; ++p) row.positive_slope[p] = 0;
    for (int64_t j = 0; j < row.ref.n; ++j) {
      if (!row.is_negative(j)) continue;
      const double d_an = row.negative_distance[j];
      double pull = 0;
      for (int64_t p = 0; p < row.n_positive; ++p) {
        const double d_ap = row.positive_distance[p];
        if (!set.contains(d_an - d_ap, factors.mining_margin)) continue;
        const double violation = d_ap - d_an + factors.margin;
        totals.term[0] += SoftMargin::value(violation) * factors.weight;
        const double slope = SoftMargin::slope(violation) * factor;
        row.positive_slope[p] += slope;
        pull += slope;
        count += 1;
      }
      row.coefficient[j] = static_cast<T>(pull);
    }
    write_coefficients(row, [&](int64_t j) { return -static_cast<double>(row.coefficient[j]); });
    totals.members += count;
    totals.live += count;
    totals.counted[0] += count * factors.weight;
    totals.active[0] += count * factors.weight;
    if (with_stats) note_distances(row, totals);
  }
};

// Softmax weights of the negatives of float32 rows, by vectors: e^(rate (nearest - d)).
template <class T, Curve curve>
class NegativeWeights {
 public:
  FM_INLINE NegativeWeights(const DenseRow<T, curve>& row, double rate) : row_(row), rate_(rate) {}

  // False where it takes the float64 distances: of other forms, of products of rows of any length,
  // which the centre of the frame makes less exact, and where some are not finite.
  FM_INLINE bool found() {
    if constexpr (std::is_same_v<T, float>) {
      const bool squares = row_.key.form == Form::difference && !row_.key.relative;
      if (!(squares || row_.key.equally_long()) || !find_nearest()) return false;
      add_weights();
      return total_ > 0 && mean_ - mean_ == 0;
    }
    return false;
  }
  // Whether `least` - mean has certainly the sign that it seems to have.
  FM_INLINE bool decides(double least) const {
    const double violation = least - mean_;
    return (violation < 0 ? -violation : violation) > error_;
  }
  FM_INLINE double mean() const { return mean_; }

  // The coefficients; until then the weights are in their place.
  FM_INLINE void write(double slope, double bend) const {
    const auto factor = static_cast<T>(-slope / total_);
    const Vec<T> mean = broadcast(static_cast<T>(mean_));
    each([&](int64_t j, Vec<T> d) FM_INLINE_LAMBDA {
      const Vec<T> weight = load(row_.coefficient + j);
      const Vec<T> bent = T(1) - (d - mean) * static_cast<T>(bend);
      const Vec<T> c = weight * bent * (row_.scale.slopes(d) * factor);
      store(row_.coefficient + j, weight == T(0) ? Vec<T>{} : c);
    });
  }

 private:
  template <class Visit>
  FM_INLINE void each(const Visit& visit) const {
    for (int64_t j = 0; j < row_.ref.padded(); j += kWidth<T>) {
      visit(j, row_.scale.distances(load(row_.h + j)));
    }
  }

  // h is above every number where no negative is.
  FM_INLINE bool find_nearest() {
    const Vec<T> most = broadcast(Precision<T>::highest);
    Vec<T> nearest = most;
    int64_t finite = 0;
    each([&](int64_t j, Vec<T> d) FM_INLINE_LAMBDA {
      finite += __builtin_popcount(le_bits(load(row_.h + j), most));
      nearest = d < nearest ? d : nearest;
    });
    for (int lane = 0; lane < kWidth<T>; ++lane) {
      nearest_ = lane == 0 || nearest[lane] < nearest_ ? nearest[lane] : nearest_;
    }
    return finite == row_.n_negative;
  }

  // mean = nearest + sum e^(-rate g) g / sum e^(-rate g), g = d - nearest. Moving d_j by u_j moves
  // it by w_j (1 - rate (d_j - mean)) u_j; `far` and `wide` sum w_j u_j and w_j u_j g_j. More than
  // exponentials, products and sums of kSegment terms make: 256 roundings of what is added.
  FM_INLINE void add_weights() {
    const Vec<T> most = broadcast(Precision<T>::highest);
    const auto rate = static_cast<T>(rate_);
    VectorSum<T> total, first, far, wide;
    each([&](int64_t j, Vec<T> d) FM_INLINE_LAMBDA {
      const auto inside = load(row_.h + j) <= most;
      const Vec<T> gap = inside ? d - nearest_ : Vec<T>{};
      const Vec<T> weight = inside ? exponentials(gap * -rate) : Vec<T>{};
      const Vec<T> moved = inside ? row_.scale.uncertainty(d, row_.error) * weight : Vec<T>{};
      store(row_.coefficient + j, weight);
      total.add(weight);
      first.add(weight * gap);
      far.add(moved);
      wide.add(moved * gap);
    });
    total_ = total.sum();
    const double shift = first.sum() / total_;
    mean_ = static_cast<double>(nearest_) + shift;
    error_ = far.sum() / total_ * (1 + rate_ * shift) + rate_ * wide.sum() / total_;
    error_ = 2 * error_ + 256 * Precision<T>::roundoff *
                              (shift + static_cast<double>(nearest_ < 0 ? -nearest_ : nearest_));
  }

  const DenseRow<T, curve>& row_;
  double rate_, total_ = 0, mean_ = 0, error_ = 0;
  T nearest_ = 0;
};

struct SoftWeights {
  static constexpr bool of_pairs = false;
  static constexpr bool online = false;

  template <class T, Curve curve>
  static void row(const DenseProblem& problem, const DenseRow<T, curve>& row,
                  const RowFactors<T>& factors, bool with_stats, RowTotals& totals) {
    if (!row.valid()) return;
    const double rate = 1 / problem.temperature;
    const auto ap = [&](int64_t p) { return row.positive_distance[p]; };
    const auto an = [&](int64_t j) { return row.negative_distance[j]; };
    const Softmax near = softmax(row.n_positive, rate, ap, [](int64_t) { return true; });
    const double least = near.mean + factors.margin;
    NegativeWeights<T, curve> weights{row, rate};
    const bool vectors = weights.found() && (problem.soft_margin || weights.decides(least));
    if (!vectors) measure_negatives(row);
    const Softmax far =
        vectors ? Softmax{-rate, 0, 1, weights.mean()}
                : softmax(row.ref.n, -rate, an, [&](int64_t j) { return row.is_negative(j); });
    const double violation = near.mean - far.mean + factors.margin;
    const double value =
        problem.soft_margin ? SoftMargin::value(violation) : Hinge::value(violation);
    const double slope =
        (problem.soft_margin ? SoftMargin::slope(violation) : Hinge::slope(violation)) *
        factors.weight * factors.cotangent;
    const double bend = problem.detach_weights ? 0 : rate;
    for (int64_t p = 0; p < row.n_positive; ++p) {
      row.positive_slope[p] = slope * near.weight(ap(p)) * (1 + bend * (ap(p) - near.mean));
    }
    if (slope != 0 && vectors) {
      weights.write(slope, bend);
    } else if (slope != 0) {
      write_coefficients(row, [&](int64_t j) {
        return -slope * far.weight(an(j)) * (1 - bend * (an(j) - far.mean));
      });
    } else {
      for (int64_t p = 0; p < row.n_positive; ++p) row.positive_slope[p] = 0;
      for (int64_t j = 0; j < row.ref.padded(); ++j) row.coefficient[j] = 0;
    }
    const bool active = !(value <= 0);
    totals.term[0] = value * factors.weight;
    totals.counted[0] = factors.weight;
    totals.active[0] = active ? factors.weight : 0;
    totals.members = 1;
    totals.live = active ? 1 : 0;
    if (with_stats) {
      totals.sum_ap = totals.max_ap = near.mean;
      totals.sum_an = totals.min_an = far.mean;
      totals.n_ap = totals.n_an = 1;
    }
  }

 private:
  struct Softmax {
    double rate, shift, total, mean;
    double weight(double d) const { return ::exp(rate * d - shift) / total; }
  };
  template <class Value, class Wanted>
  static FM_INLINE Softmax softmax(int64_t n, double rate, const Value& value,
                                   const Wanted& wanted) {
    Softmax result{rate, -kNever, 0, 0};
    for (int64_t j = 0; j < n; ++j) {
      const double exponent = wanted(j) ? rate * value(j) : -kNever;
      result.shift = exponent > result.shift || exponent != exponent ? exponent : result.shift;
    }
    for (int64_t j = 0; j < n; ++j) {
      if (!wanted(j)) continue;
      const double weight = ::exp(rate * value(j) - result.shift);
      result.total += weight;
      result.mean += weight * value(j);
    }
    result.mean /= result.total;
    return result;
  }
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
