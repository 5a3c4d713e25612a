// SPDX-License-Identifier: BSD-3-Clause
// POLICIES: what a dense loss makes of one anchor's distances: its value and the slope of every
// distance. A rule knows no tiles, threads or memory.
//   kinds of pairs     true: positives and negatives have scales of their own, known beforehand
//   row(row, factors)  fills coefficient and positive_slope, and returns the totals
#pragma once

#include "../exact_sum.h"
#include "dense_sorted.h"
#include "weighted_sums.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

template <class T, Curve curve>
FM_INLINE void note_distances(const DenseRow<T, curve>& row, RowTotals& totals) {
  for (int64_t p = 0; p < row.n_positive; ++p) {
    const double d = row.positive_distance[p];
    totals.sum_ap += d;
    totals.max_ap = d > totals.max_ap || d != d ? d : totals.max_ap;
  }
  T nearest = Precision<T>::highest;
  for (int64_t j = 0; j < row.ref.n; ++j) {
    if (!row.is_negative(j)) continue;
    const bool known = row.h[j] == row.h[j];
    totals.sum_an +=
        known ? static_cast<double>(row.scale.distance(row.h[j])) : row.exact_distance(j);
    nearest = row.h[j] < nearest ? row.h[j] : nearest;
  }
  const auto reach = static_cast<T>(nearest + 2 * row.error +
                                    2 * row.relative * (nearest < 0 ? -nearest : nearest));
  for (int64_t j = 0; j < row.ref.n; ++j) {  // not >: NaN is among them
    if (row.h[j] > reach || !row.is_negative(j)) continue;
    const double d = row.exact_distance(j);
    totals.min_an = d < totals.min_an || d != d ? d : totals.min_an;
  }
  totals.n_ap += static_cast<double>(row.n_positive);
  totals.n_an += static_cast<double>(row.n_negative);
}

// Sums of vectors, in float64 now and then, and there compensated.
template <class T>
class VectorSum {
 public:
  FM_INLINE void add(Vec<T> x) {
    part += x;
    if (++count == kSegment) flush();
  }
  FM_INLINE double sum() {
    flush();
    return total.value();
  }

 private:
  FM_INLINE void flush() {
    double sum = 0;
    for (int lane = 0; lane < kWidth<T>; ++lane) sum += static_cast<double>(part[lane]);
    total.add(sum);
    part = Vec<T>{};
    count = 0;
  }
  Vec<T> part{};
  ExactSum total;
  int count = 0;
};

// Hinges over the triplets of a set.
struct TripletHinges {
  static constexpr bool of_pairs = false;
  static constexpr bool online = false;

  template <class T, Curve curve>
  static void row(const DenseProblem& problem, const DenseRow<T, curve>& row,
                  const RowFactors<T>& factors, bool with_stats, RowTotals& totals) {
    if (!row.valid()) return;
    const TripletRange set(problem.loss);
    const double count = row.n_positive > kManyPositives
                             ? SortedTriplets<T, curve>{set, row, factors}.add(with_stats, totals)
                             : add_one_by_one(set, row, factors, with_stats, totals);
    const auto factor = static_cast<T>(-factors.weight * factors.cotangent);
    for (int64_t j = 0; j < row.ref.padded(); j += kWidth<T>) {
      const Vec<T> c = load(row.coefficient + j);
      const Vec<T> slope = row.scale.slopes(row.scale.distances(load(row.h + j)));
      store(row.coefficient + j, c == T(0) ? Vec<T>{} : c * slope * factor);
      const Vec<T> h = load(row.h + j);
      if (__builtin_expect(any_lane((h != h) & (c != T(0))), 0)) slopes_of_keys(row, j, c, factor);
    }
    totals.live += count;
    totals.counted[0] += count * factors.weight;
    totals.active[0] += count * factors.weight;
    if (with_stats) note_distances(row, totals);
  }

 private:
  template <class T, Curve curve>
  static double add_one_by_one(const TripletRange& set, const DenseRow<T, curve>& row,
                               const RowFactors<T>& factors, bool with_stats, RowTotals& totals) {
    double count = 0;
    for (int64_t p = 0; p < row.n_positive; ++p) {
      const double active = add_positive(set, row, factors, p, totals);
      row.positive_slope[p] = active * factors.weight * factors.cotangent;
      count += active;
      if (with_stats) totals.members += members(set, row, factors, p);
    }
    return count;
  }

  // Coefficients from counts `c`, where h is too coarse to tell.
  template <class T, Curve curve>
  FM_NOINLINE static void slopes_of_keys(const DenseRow<T, curve>& row, int64_t first, Vec<T> c,
                                         T factor) {
    for (int lane = 0; lane < kWidth<T>; ++lane) {
      const T h = row.h[first + lane];
      if (h == h || c[lane] == 0) continue;
      const double slope = row.key.slope(row.exact_key(first + lane));
      row.coefficient[first + lane] = static_cast<T>(static_cast<double>(c[lane] * factor) * slope);
    }
  }

  // Adds the active triplets of one positive; counts them per negative in `coefficient`.
  template <class T, Curve curve>
  static double add_positive(const TripletRange& set, const DenseRow<T, curve>& row,
                             const RowFactors<T>& factors, int64_t p, RowTotals& totals) {
    const double d_ap = row.positive_distance[p];
    const double limit = d_ap + factors.margin;
    VectorSum<T> count;
    VectorSum<T> values;
    const Vec<T> reach = broadcast(static_cast<T>(limit));
    double more = 0;
    double more_value = 0;
    const auto sure = [&](int64_t j, auto inside, Vec<T> h) FM_INLINE_LAMBDA {
      const Vec<T> one = inside ? broadcast(T(1)) : Vec<T>{};
      count.add(one);
      values.add(inside ? reach - row.scale.distances(h) : Vec<T>{});
      store(row.coefficient + j, load(row.coefficient + j) + one);
    };
    const auto unsure = [&](int64_t j) {
      const double d_an = row.exact_distance(j);
      const double violation = d_ap - d_an + factors.margin;
      if (violation <= 0 || !set.contains(d_an - d_ap, factors.mining_margin)) return;
      more += 1;
      more_value += violation;
      row.coefficient[j] += 1;
    };
    const double low = set.low(d_ap, factors.mining_margin);
    const double high = set.high(d_ap, factors.mining_margin);
    row.sweep(row.scale.threshold(low), row.scale.threshold(high < limit ? high : limit), sure,
              unsure);
    const double sure_count = count.sum();
    // `reach` is `limit` rounded to T.
    const double rounded = sure_count * (limit - static_cast<double>(static_cast<T>(limit)));
    const double value = values.sum() + (sure_count > 0 ? rounded : 0) + more_value;
    totals.term[0] += value * factors.weight;
    return sure_count + more;
  }

  template <class T, Curve curve>
  static double members(const TripletRange& set, const DenseRow<T, curve>& row,
                        const RowFactors<T>& factors, int64_t p) {
    if (set.kind == TripletRange::all) return static_cast<double>(row.n_negative);
    const double d_ap = row.positive_distance[p];
    VectorSum<T> count;
    double more = 0;
    row.sweep(
        row.scale.threshold(set.low(d_ap, factors.mining_margin)),
        row.scale.threshold(set.high(d_ap, factors.mining_margin)),
        [&](int64_t, auto inside, Vec<T>) { count.add(inside ? broadcast(T(1)) : Vec<T>{}); },
        [&](int64_t j) {
          more += set.contains(row.exact_distance(j) - d_ap, factors.mining_margin) ? 1 : 0;
        });
    return count.sum() + more;
  }
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
