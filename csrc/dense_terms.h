// SPDX-License-Identifier: BSD-3-Clause
// POLICY HEADER. What a dense loss adds up, how it becomes a value, scales and statistics, and the
// numbers that its precision rests on. For host and device.
#pragma once

#include <cstdint>

#include "exact_sum.h"
#include "names.h"
#include "triplet_range.h"

namespace flashmetric {

// Products in one sum. 16 keep the error bound of 128 features at 35 roundings, where one sum has
// 128 and more, for 24 additions every 384 multiply-adds.
constexpr int kProducts = 16;

// Weighted rows in one sum. In float32 a running sum of 32 terms loses about sqrt(32 / 3) = 3 units
// in the last place, the size of what the coefficients themselves have lost.
constexpr int kSegment = 32;

// Pairs with d^2 below 1/8 of |y_i|^2 + |y_j|^2 are taken by difference: beyond, the sum S y - P
// loses at most sqrt(8) < 3 times what the difference itself would.
constexpr double kNear = 0.125;

// And pairs whose h, half of d^2 in a frame of rows up to 2, is below this: products of features,
// or of their bfloat16 parts, may vanish below 2^-126, which is 2^-46 of it.
constexpr double kVanishing = 0x1p-80;

// The h up to which pairs are near; `lengths`: the sum of the h of both rows with the origin.
template <class Real>
FM_HD Real near_limit(Real lengths) {
  const Real part = lengths * static_cast<Real>(kNear);
  return part > static_cast<Real>(kVanishing) ? part : static_cast<Real>(kVanishing);
}

// The number of an anchor: its own, or that of all.
FM_HD double number_of(int64_t anchor, const double* values, int64_t stride, double number) {
  return values == nullptr ? number : values[anchor * stride];
}

// What a row adds to the loss and the statistics. Kinds: of a pair, positive or negative; triplets
// are of kind 0.
struct RowTotals {
  double term[2] = {};     // weighted values
  double counted[2] = {};  // weights of what counts for the mean
  double active[2] = {};   // weights of the values above 0
  double members = 0;      // triplets or pairs, and those of them above 0: for the statistics
  double live = 0;
  double sum_ap = 0, sum_an = 0, n_ap = 0, n_an = 0;
  double max_ap = -kNever, min_an = kNever;

  FM_HD bool valid(bool of_pairs) const { return of_pairs ? n_ap > 0 && n_an > 0 : members > 0; }
};

// The farthest, or the nearest, of two; NaN wins.
FM_HD double farther(double a, double b) { return b > a || b != b ? b : a; }
FM_HD double nearer(double a, double b) { return b < a || b != b ? b : a; }

struct DenseTotals {
  double term[2], counted[2], active[2];
};

// Sums over anchors, compensated.
struct DenseSums {
  ExactSum term[2], counted[2], active[2], ap, an, norms;
  double valid = 0, members = 0, live = 0, n_ap = 0, n_an = 0;
  double max_ap = -kNever, min_an = kNever;

  FM_HD void add(const RowTotals& row, bool of_pairs) {
    for (int kind = 0; kind < 2; ++kind) {
      term[kind].add(row.term[kind]);
      counted[kind].add(row.counted[kind]);
      active[kind].add(row.active[kind]);
    }
    ap.add(row.sum_ap);
    an.add(row.sum_an);
    valid += row.valid(of_pairs) ? 1 : 0;
    members += row.members;
    live += row.live;
    n_ap += row.n_ap;
    n_an += row.n_an;
    max_ap = farther(max_ap, row.max_ap);
    min_an = nearer(min_an, row.min_an);
  }
  FM_HD DenseTotals totals() const {
    return {{term[0].value(), term[1].value()},
            {counted[0].value(), counted[1].value()},
            {active[0].value(), active[1].value()}};
  }
  // `rows`: all queries, whose norms were added.
  FM_HD void write_statistics(double* stats /*[7]*/, int64_t rows) const {
    const auto mean = [](double sum, double count) { return count == 0 ? 0 : sum / count; };
    stats[0] = valid;
    stats[1] = mean(live, members);
    stats[2] = mean(ap.value(), n_ap);
    stats[3] = mean(an.value(), n_an);
    stats[4] = n_ap == 0 ? 0 : max_ap;
    stats[5] = n_an == 0 ? 0 : min_an;
    stats[6] = mean(norms.value(), static_cast<double>(rows));
  }
};

// 1 / weights, by kind: what the reduction multiplies the terms with.
struct KindScales {
  double kind[2];

  FM_HD double value_of(const DenseTotals& totals) const {
    double value = 0;
    for (int k = 0; k < 2; ++k) value += kind[k] == 0 ? 0 : totals.term[k] * kind[k];
    return value;
  }
};

FM_HD KindScales scales_of(DenseReduction reduction, bool of_pairs, const DenseTotals& totals) {
  const auto inverse = [](double weights) { return weights == 0 ? 0 : 1 / weights; };
  const double* weights = reduction == DenseReduction::mean_active ? totals.active : totals.counted;
  if (reduction == DenseReduction::sum || reduction == DenseReduction::none) return {{1, 1}};
  if (of_pairs && reduction != DenseReduction::mean_pairs) {
    return {{inverse(weights[0]), inverse(weights[1])}};
  }
  const double all = inverse(weights[0] + weights[1]);
  return {{all, all}};
}

}  // namespace flashmetric
