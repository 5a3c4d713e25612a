// SPDX-License-Identifier: BSD-3-Clause
// POLICY of the triplet loss with semi-hard negatives, for anchors with many positives: a triplet
// for every positive, of which the gradient only wants one coefficient per positive and the sum of
// the slopes per negative.
//
// Numerics: keys choose (semihard_row.h), and say which hinges are active where h leaves a doubt.
// Values come from the distances of h, as in all dense losses; d_ap - d_an does not see what both
// have in common, the rounding of the anchor's own half.
#pragma once

#include "../losses.h"
#include "dense_rules.h"
#include "list_anchor.h"
#include "semihard_row.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

template <class T, Curve curve>
class SemiHardTerms {
 public:
  FM_INLINE SemiHardTerms(const DenseProblem& problem, const DenseRow<T, curve>& row,
                          const Order& order, const RowFactors<T>& factors,
                          const RowScratch<T>& scratch)
      : problem_(problem),
        row_(row),
        order_(order),
        factors_(factors),
        scratch_(scratch),
        own_(*scratch.semihard),
        columns_(order, row.i) {}

  inline void add(RowTotals& totals) {
    const bool counted = columns_.negatives() > 0 || problem_.uncovered;
    if (columns_.positives() == 0 || !counted) return;
    SemiHardRow<T, curve> choices(row_, columns_, own_);
    if (columns_.negatives() == 0 || !choices.settle(problem_.drop_without_semihard)) {
      add_by_keys(totals);
    } else {
      add_chosen(choices, totals);
      __atomic_fetch_add(&call_counters.sorted_anchors, int64_t{1}, __ATOMIC_RELAXED);
    }
  }

 private:
  // Everything from the choices in T.
  inline void add_chosen(const SemiHardRow<T, curve>& choices, RowTotals& totals) {
    const double active =
        problem_.soft_margin ? add_softplus(choices, totals) : add_hinges(choices, totals);
    const double listed = columns_.positives() - choices.dropped();
    note(listed, listed, active, totals);
    if (problem_.stats != nullptr) note_distances(choices, totals);
    if (problem_.soft_margin) {
      pull(choices, [&](int32_t k) { return static_cast<T>(own_.pull[k]); });
    } else {
      pull(choices, [&](int32_t k) { return static_cast<T>(own_.hits[k]); });
    }
  }

  // The coefficients of the negatives. No branch: about half of them were chosen.
  template <class Slope>
  FM_INLINE void pull(const SemiHardRow<T, curve>& choices, const Slope& slope_of) const {
    const auto factor = static_cast<T>(-factors_.weight * factors_.cotangent);
    const SortedRow<T>& negatives = choices.negatives();
    for (int32_t k = 0; k < negatives.size(); k += kWidth<T>) {
      const Vec<T> distance = row_.scale.distances(load(negatives.values() + k));
      T slope[kWidth<T>];
      store(slope, row_.scale.slopes(distance) * factor);
      const int32_t left = negatives.size() - k;
      for (int32_t lane = 0; lane < (left < kWidth<T> ? left : kWidth<T>); ++lane) {
        row_.coefficient[choices.column(k + lane)] = slope_of(k + lane) * slope[lane];
      }
    }
  }

  FM_INLINE void note(double listed, double members, double active, RowTotals& totals) const {
    totals.counted[0] += listed * factors_.weight;
    totals.active[0] += active * factors_.weight;
    totals.members += members;
    totals.live += members > 0 ? active : 0;
  }

  // Hinges: the sum of d_ap - d_an, and of the margins, over what is active.
  FM_INLINE double add_hinges(const SemiHardRow<T, curve>& choices, RowTotals& totals) {
    const T error = choices.reach() / 2;
    const auto rounded = static_cast<T>(4 * Precision<T>::roundoff * margin_size());
    const auto edge = static_cast<T>(-factors_.margin);
    const auto factor = static_cast<T>(factors_.weight * factors_.cotangent);
    const auto places = static_cast<size_t>(choices.negatives().size()) + 1;
    std::memset(own_.hits, 0, places * sizeof *own_.hits);
    VectorSum<T> gaps, count;
    for (int32_t q = 0; q < columns_.run(); q += kWidth<T>) {
      const Vec<T> d_ap = row_.scale.distances(load(own_.positive + q));
      const Vec<T> d_an = row_.scale.distances(load(own_.chosen + q));
      const Vec<T> gap = d_ap - d_an;
      const Vec<T> doubt =
          row_.scale.uncertainty(d_ap, error) + row_.scale.uncertainty(d_an, error) + rounded;
      auto active = gap > edge;
      const auto open = (absolute<T>(gap - edge) <= doubt) & (d_an <= Precision<T>::highest);
      if (__builtin_expect(any_lane(open), 0)) {
        for (int lane = 0; lane < kWidth<T>; ++lane) {
          if (open[lane] != 0) active[lane] = is_active(choices, q + lane) ? -1 : 0;
        }
      }
      const Vec<T> one = active ? broadcast(T(1)) : Vec<T>{};
      gaps.add(active ? gap : Vec<T>{});
      count.add(one);
      store(row_.coefficient + columns_.begin + q,
            active ? row_.scale.slopes(d_ap) * factor : Vec<T>{});
      Bits<T> hit[kWidth<T>];
      std::memcpy(hit, &active, sizeof active);
      for (int lane = 0; lane < kWidth<T>; ++lane) {
        own_.hits[own_.choice[q + lane]] -= static_cast<int32_t>(hit[lane]);
      }
    }
    const double active = count.sum();
    totals.term[0] += (gaps.sum() + active * factors_.margin) * factors_.weight;
    return active;
  }

  FM_INLINE double margin_size() const {
    return factors_.margin < 0 ? -factors_.margin : factors_.margin;
  }

  FM_NOINLINE bool is_active(const SemiHardRow<T, curve>& choices, int32_t q) const {
    const double d_ap = row_.key.value(choices.positive_key(q));
    const double d_an = row_.key.value(choices.negative_key(own_.choice[q]));
    return d_ap - d_an + factors_.margin > 0;
  }

  // An exponential a triplet is the cost here, and it magnifies the rounding of long distances:
  // hence keys.
  FM_INLINE double add_softplus(const SemiHardRow<T, curve>& choices, RowTotals& totals) {
    const int32_t none = choices.negatives().size();
    const double factor = factors_.weight * factors_.cotangent;
    for (int32_t k = 0; k <= none; ++k) own_.pull[k] = 0;
    choices.measure_chosen(scratch_.positive_key);
    ExactSum values;
    double active = 0;
    for (int32_t q = 0; q < columns_.run(); ++q) {
      const int32_t k = own_.choice[q];
      if (k == none) continue;
      const double key = scratch_.positive_key[q];
      const double violation =
          row_.key.value(key) - row_.key.value(choices.negative_key(k)) + factors_.margin;
      const double value = SoftMargin::value(violation);
      const double slope = SoftMargin::slope(violation);
      values.add(value);
      active += value > 0 ? 1 : 0;
      own_.pull[k] += slope;
      row_.coefficient[columns_.begin + q] = static_cast<T>(slope * row_.key.slope(key) * factor);
    }
    totals.term[0] += values.value() * factors_.weight;
    return active;
  }

  // The distances of the triplets; those that may be the extreme ones by keys.
  FM_NOINLINE void note_distances(const SemiHardRow<T, curve>& choices, RowTotals& totals) const {
    const int32_t none = choices.negatives().size();
    T farthest = -Precision<T>::highest;
    T nearest = Precision<T>::highest;
    for (int32_t q = 0; q < columns_.run(); ++q) {
      if (own_.choice[q] == none) continue;
      totals.n_ap += 1;
      totals.n_an += 1;
      totals.sum_ap += static_cast<double>(row_.scale.distance(own_.positive[q]));
      totals.sum_an += static_cast<double>(row_.scale.distance(own_.chosen[q]));
      farthest = own_.positive[q] > farthest ? own_.positive[q] : farthest;
      nearest = own_.chosen[q] < nearest ? own_.chosen[q] : nearest;
    }
    for (int32_t q = 0; q < columns_.run(); ++q) {
      if (own_.choice[q] == none) continue;
      if (farthest - own_.positive[q] <= choices.reach()) {
        const double d = row_.key.value(choices.positive_key(q));
        totals.max_ap = d > totals.max_ap ? d : totals.max_ap;
      }
      if (own_.chosen[q] - nearest <= choices.reach()) {
        const double d = row_.key.value(choices.negative_key(own_.choice[q]));
        totals.min_an = d < totals.min_an ? d : totals.min_an;
      }
    }
  }

  // The whole row by keys, as list_rows.h does it.
  FM_NOINLINE void add_by_keys(RowTotals& totals) const {
    const int64_t anchor = row_.query.order[row_.i];
    int64_t n = 0;
    for (int64_t j = 0; j < problem_.ref.n; ++j) {  // ascending rows: the first of equals wins
      const int32_t column = order_.ref_position[j];
      const bool positive = column >= columns_.begin && column < columns_.end;
      if (column >= 0 && column != columns_.self && !positive) {
        own_.listed[n++] = static_cast<int32_t>(j);
      }
    }
    row_keys(row_.key, row_.query.rows, anchor, row_.ref.rows, 0, n, row_.dim, own_.widened,
             own_.key, own_.listed);
    row_keys(row_.key, row_.query.rows, anchor, row_.ref.rows, 0, columns_.run(), row_.dim,
             own_.widened, scratch_.positive_key, row_.ref.order + columns_.begin);
    sort_by_key(own_.key, n, own_.sorted);
    const Side negative{n, own_.listed, own_.key, nullptr, own_.sorted};
    const int64_t farthest = farthest_of(negative);
    for (int64_t k = 0; k < n; ++k) own_.pull[k] = 0;
    for (int32_t q = 0; q < columns_.run(); ++q) {
      if (columns_.begin + q == columns_.self) continue;
      int64_t k = nearest_beyond(negative, negative.key, {scratch_.positive_key[q], false});
      if (k < 0 && n > 0 && problem_.drop_without_semihard) continue;
      if (k < 0) k = farthest;
      add_triplet(q, k, totals);
    }
    for (int64_t k = 0; k < n; ++k) {
      if (own_.pull[k] == 0) continue;
      row_.coefficient[order_.ref_position[own_.listed[k]]] =
          static_cast<T>(-own_.pull[k] * row_.key.slope(own_.key[k]));
    }
  }

  // Of positive q and negative k; without one d_an is 0.
  FM_INLINE void add_triplet(int32_t q, int64_t k, RowTotals& totals) const {
    const double key = scratch_.positive_key[q];
    const double d_ap = row_.key.value(key);
    const double d_an = k < 0 ? 0 : row_.key.value(own_.key[k]);
    const double violation = d_ap - d_an + factors_.margin;
    const bool soft = problem_.soft_margin;
    const double value = soft ? SoftMargin::value(violation) : Hinge::value(violation);
    double slope = soft ? SoftMargin::slope(violation) : Hinge::slope(violation);
    slope *= factors_.weight;
    totals.term[0] += value * factors_.weight;
    note(1, k < 0 ? 0 : 1, value <= 0 ? 0 : 1, totals);
    if (k >= 0 && problem_.stats != nullptr) {
      totals.n_ap += 1;
      totals.n_an += 1;
      totals.sum_ap += d_ap;
      totals.sum_an += d_an;
      totals.max_ap = d_ap > totals.max_ap || d_ap != d_ap ? d_ap : totals.max_ap;
      totals.min_an = d_an < totals.min_an || d_an != d_an ? d_an : totals.min_an;
    }
    if (slope == 0) return;
    slope *= factors_.cotangent;
    row_.coefficient[columns_.begin + q] = static_cast<T>(slope * row_.key.slope(key));
    if (k >= 0) own_.pull[k] += slope;
  }

  const DenseProblem& problem_;
  const DenseRow<T, curve>& row_;
  const Order& order_;
  const RowFactors<T>& factors_;
  const RowScratch<T>& scratch_;
  const SemiHardScratch<T>& own_;
  const AnchorColumns columns_;
};

// Whether T holds all distances between the rows of the frame, and their slopes.
template <class T, Curve curve>
FM_INLINE bool semihard_fits(KeyForm key, const Frame<T>& frame) {
  constexpr T most = 16;  // |y| <= 2 and |centre| <= 2: any h is below
  const Scale<T, curve> scale(key, static_cast<double>(frame.unit), 1);
  return frame.max_norm >= 0 && scale.distance(most) <= Precision<T>::highest;
}

struct SemiHardPairs {
  static constexpr bool of_pairs = false;
  static constexpr bool online = false;
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
