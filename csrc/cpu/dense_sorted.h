// SPDX-License-Identifier: BSD-3-Clause
// Hinges over the triplets of an anchor with many positives, in O(n log n).
//
// Algorithm: sort the negatives by h and the positives by their distances. From one positive to the
// next all thresholds rise, so a walk of four positions along the negatives sees each of them enter
// and leave the set once. A negative's count of triplets is a running sum of where positives began
// and ended to reach it.
//
// Numerics: a value changes by what enters, what leaves, and by the rise of d_ap times the triplets
// within: terms of one size, where a difference of prefix sums would cancel. Positions are those of
// the thresholds' bands (Limits): between them float64 keys decide, each computed once.
#pragma once

#include "../exact_sum.h"
#include "dense_row.h"
#include "kernels.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// Sorting 4096 negatives costs about as much as 40 sweeps over them, of 1024 about as 30.
constexpr int64_t kManyPositives = 32;

template <class T, Curve curve>
class SortedTriplets {
 public:
  FM_INLINE SortedTriplets(const TripletRange& set, const DenseRow<T, curve>& row,
                           const RowFactors<T>& factors)
      : set_(set), row_(row), factors_(factors), sort_(row.sort) {}

  // Adds the active triplets of the anchor, and counts them in positive_slope and coefficient.
  inline double add(bool with_stats, RowTotals& totals) {
    __atomic_fetch_add(&call_counters.sorted_anchors, int64_t{1}, __ATOMIC_RELAXED);
    order_positives();
    order_negatives();
    double count = 0;
    for (int64_t rank = 0; rank < row_.n_positive; ++rank) {
      const int32_t p = sort_.positive[rank];
      const double active = add_positive(row_.positive_distance[p], totals);
      row_.positive_slope[p] = active * factors_.weight * factors_.cotangent;
      count += active;
      if (with_stats) totals.members += members(row_.positive_distance[p]);
    }
    int32_t counted = 0;
    for (int32_t k = 0; k < n_; ++k) {
      counted += sort_.step[k];
      row_.coefficient[id_[k]] += static_cast<T>(counted);
    }
    return count;
  }

 private:
  // Positions of the thresholds of one positive among the sorted negatives.
  struct Window {
    int32_t low_out = 0, low_in = 0, high_in = 0, high_out = 0;
    FM_INLINE int32_t sure() const { return high_in > low_in ? high_in - low_in : 0; }
  };

  FM_INLINE void order_positives() {
    for (int64_t p = 0; p < row_.n_positive; ++p) {
      sort_.data.value[0][p] = static_cast<T>(row_.positive_distance[p]);
      sort_.data.id[0][p] = static_cast<int32_t>(p);
    }
    const int at = radix_sort(sort_.data, static_cast<int32_t>(row_.n_positive));
    for (int64_t p = 0; p < row_.n_positive; ++p) sort_.positive[p] = sort_.data.id[at][p];
  }

  // Sorts the negatives with a finite h; lists the others behind them.
  FM_INLINE void order_negatives() {
    finite_ = 0;
    for (int64_t word = 0; word < row_.ref.padded() / 32; ++word) {
      sort_.measured[word] = 0;
      for (uint32_t bits = row_.negative[word]; bits != 0; bits &= bits - 1) {
        const auto j = static_cast<int32_t>(word * 32 + __builtin_ctz(bits));
        if (!is_finite(row_.h[j])) continue;
        sort_.data.value[0][finite_] = row_.h[j];
        sort_.data.id[0][finite_++] = j;
      }
    }
    const int at = radix_sort(sort_.data, finite_);
    h_ = sort_.data.value[at];
    id_ = sort_.data.id[at];
    distance_ = sort_.data.value[1 - at];
    for (int32_t k = 0; k < finite_; k += kWidth<T>) {
      store(distance_ + k, row_.scale.distances(load(h_ + k)));
    }
    n_ = finite_;
    for (int32_t j = 0; j < row_.ref.n; ++j) {
      if (row_.is_negative(j) && !is_finite(row_.h[j])) id_[n_++] = j;
    }
    for (int32_t k = 0; k <= n_; ++k) sort_.step[k] = 0;
    within_ = Window{};
    value_ = ExactSum{};
    limit_ = 0;
  }

  FM_INLINE double add_positive(double d_ap, RowTotals& totals) {
    const double limit = d_ap + factors_.margin;
    double more = 0;
    double more_value = 0;
    const auto check = [&](int32_t k) {
      const double d_an = exact_distance(k);
      const double violation = d_ap - d_an + factors_.margin;
      if (violation <= 0 || !set_.contains(d_an - d_ap, factors_.mining_margin)) return;
      more += 1;
      more_value += violation;
      row_.coefficient[id_[k]] += 1;
    };
    const bool known = is_finite(limit);
    if (known) move_to(d_ap, limit);
    each_unsure(known ? within_ : Window{0, 0, 0, finite_}, check);
    const int32_t sure = known ? within_.sure() : 0;
    if (sure > 0) {
      ++sort_.step[within_.low_in];
      --sort_.step[within_.high_in];
    }
    totals.term[0] += ((sure > 0 ? value_.value() : 0) + more_value) * factors_.weight;
    return sure + more;
  }

  // Moves the window, and with it the sum of limit - distance over what is surely inside.
  FM_INLINE void move_to(double d_ap, double limit) {
    const double high = set_.high(d_ap, factors_.mining_margin);
    const Limits<T> limits =
        limits_of(set_.low(d_ap, factors_.mining_margin), high < limit ? high : limit);
    value_.add((within_.high_in - within_.low_in) * (limit - limit_));
    limit_ = limit;
    const auto excess = [&](int32_t k) { return limit - static_cast<double>(distance_[k]); };
    move(within_, limits, [&](int32_t k, int sign) { value_.add(sign * excess(k)); });
    if (within_.high_in == within_.low_in) value_ = ExactSum{};
  }

  // The members of the set, active or not.
  FM_INLINE double members(double d_ap) {
    if (set_.kind == TripletRange::all) return static_cast<double>(row_.n_negative);
    const double margin = factors_.mining_margin;
    const bool known = is_finite(d_ap) && is_finite(margin);
    double count = 0;
    if (known) {
      const Limits<T> limits = limits_of(set_.low(d_ap, margin), set_.high(d_ap, margin));
      move(members_, limits, [](int32_t, int) {});
      count = members_.sure();
    }
    each_unsure(known ? members_ : Window{0, 0, 0, finite_}, [&](int32_t k) {
      count += set_.contains(exact_distance(k) - d_ap, margin) ? 1 : 0;
    });
    return count;
  }

  FM_INLINE Limits<T> limits_of(double low, double high) const {
    return row_.limits(row_.scale.threshold(low), row_.scale.threshold(high));
  }

  // pass(k, 1) for every negative that comes to lie between the inner positions, pass(k, -1) for
  // every one that no longer does.
  template <class Pass>
  FM_INLINE void move(Window& window, const Limits<T>& limits, const Pass& pass) const {
    const auto ignore = [](int32_t, int) {};
    const auto leave = [&](int32_t k, int sign) { pass(k, -sign); };
    move_one(window.low_out, ignore, [&](T h) { return h < limits.low_out; });
    move_one(window.low_in, leave, [&](T h) { return h <= limits.low_in; });
    move_one(window.high_in, pass, [&](T h) { return h < limits.high_in; });
    move_one(window.high_out, ignore, [&](T h) { return h <= limits.high_out; });
  }

  // Positives whose distances round to the same T may come in the wrong order: hence the way back.
  template <class Pass, class Below>
  FM_INLINE void move_one(int32_t& at, const Pass& pass, const Below& below) const {
    while (at < finite_ && below(h_[at])) pass(at++, 1);
    while (at > 0 && !below(h_[at - 1])) pass(--at, -1);
  }

  template <class Check>
  FM_INLINE void each_unsure(const Window& window, const Check& check) const {
    const bool empty = window.sure() == 0;
    const int32_t low_end = empty ? window.high_out : window.low_in;
    for (int32_t k = window.low_out; k < low_end; ++k) check(k);
    for (int32_t k = window.high_in; k < window.high_out && !empty; ++k) check(k);
    for (int32_t k = finite_; k < n_; ++k) check(k);
  }

  FM_INLINE double exact_distance(int32_t k) const {
    const int32_t j = id_[k];
    uint32_t& known = sort_.measured[j / 32];
    if ((known >> (j % 32) & 1) == 0) row_.negative_distance[j] = row_.exact_distance(j);
    known |= 1u << (j % 32);
    return row_.negative_distance[j];
  }

  template <class Number>
  static FM_INLINE bool is_finite(Number x) {
    return x - x == 0;
  }

  const TripletRange& set_;
  const DenseRow<T, curve>& row_;
  const RowFactors<T>& factors_;
  const SortScratch<T>& sort_;
  const T* h_ = nullptr;  // [finite_] ascending
  T* distance_ = nullptr;
  int32_t* id_ = nullptr;  // [n_] sorted position of the reference
  int32_t finite_ = 0, n_ = 0;
  Window within_, members_;
  ExactSum value_;
  double limit_ = 0;
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
