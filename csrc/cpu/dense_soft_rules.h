// SPDX-License-Identifier: BSD-3-Clause
// POLICIES of dense losses that weigh every triplet: softplus over triplets, and softmax weights
// (Ristani, Tomasi 2018, "Features for Multi-Target Multi-Camera Tracking", section 3.1). Scalar
// float64 arithmetic: an exponential a triplet is the cost, not the distances.
#pragma once

#include "../losses.h"
#include "dense_rules.h"

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

struct SoftWeights {
  static constexpr bool of_pairs = false;
  static constexpr bool online = false;

  template <class T, Curve curve>
  static void row(const DenseProblem& problem, const DenseRow<T, curve>& row,
                  const RowFactors<T>& factors, bool with_stats, RowTotals& totals) {
    if (!row.valid()) return;
    measure_negatives(row);
    const double rate = 1 / problem.temperature;
    const auto ap = [&](int64_t p) { return row.positive_distance[p]; };
    const auto an = [&](int64_t j) { return row.negative_distance[j]; };
    const Softmax near = softmax(row.n_positive, rate, ap, [](int64_t) { return true; });
    const Softmax far =
        softmax(row.ref.n, -rate, an, [&](int64_t j) { return row.is_negative(j); });
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
    if (slope != 0) {
      write_coefficients(row, [&](int64_t j) {
        return -slope * far.weight(an(j)) * (1 - bend * (an(j) - far.mean));
      });
    } else {
      for (int64_t p = 0; p < row.n_positive; ++p) row.positive_slope[p] = 0;
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
