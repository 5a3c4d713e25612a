// SPDX-License-Identifier: BSD-3-Clause
// The semi-hard negatives of one anchor: of every positive the nearest negative that is farther,
// else the farthest of all.
//
// Algorithm: sort the negatives by h (dense_rows.h) and look each positive up among them. Where no
// two of the numbers that decide are within their errors, the place is the choice. Otherwise the
// float64 keys of the few candidates decide, each computed once.
// Rows with numbers that are not finite, or with near-ties everywhere, are left to keys as a whole.
#pragma once

#include "exact_row.h"
#include "semihard_scratch.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

template <class T, Curve curve>
class SemiHardRow {
 public:
  FM_INLINE SemiHardRow(const DenseRow<T, curve>& row, const AnchorColumns& columns,
                        const SemiHardScratch<T>& scratch)
      : row_(row), columns_(columns), scratch_(scratch), sorted_(scratch.sort) {}

  // Chooses for every positive; needs one, and a negative. False: keys must judge the whole row.
  // `drop`: a positive that no negative lies beyond has no choice.
  inline bool settle(bool drop) {
    drop_ = drop;
    gather();
    if (!measure()) return false;
    const int32_t run = columns_.run();
    sorted_.sort(scratch_.negative, columns_.negatives(), low_, high_);
    sorted_.places_above(scratch_.positive, run, scratch_.choice);
    std::memset(scratch_.known, 0, static_cast<size_t>(sorted_.size()) + 1);
    const int32_t open = look();
    // Where keys must make this many choices, most of the keys are needed.
    if (open > run / 4 + 8) return false;
    if (open > 0) decide_all(open);
    return true;
  }

  FM_INLINE const SortedRow<T>& negatives() const { return sorted_; }
  FM_INLINE int32_t dropped() const { return dropped_; }
  FM_INLINE int32_t column(int32_t k) const { return columns_.negative(sorted_.id(k)); }
  // What two h must differ by to be in a sure order; each can be off by half of it.
  FM_INLINE T reach() const { return reach_; }
  FM_INLINE double positive_key(int32_t q) const { return row_.exact_key(columns_.begin + q); }
  FM_INLINE double negative_key(int32_t k) const {
    if (scratch_.known[k] == 0) scratch_.key[k] = row_.exact_key(column(k));
    scratch_.known[k] = 1;
    return scratch_.key[k];
  }

  // The keys of all positives, and of the negatives that are chosen.
  FM_NOINLINE void measure_chosen(double* positive_key) const {
    int32_t wanted = 0;
    scratch_.known[sorted_.size()] = 1;
    for (int32_t q = 0; q < columns_.run(); ++q) want(scratch_.choice[q], wanted);
    compute(wanted);
    keys_of(columns_.run(), [&](int32_t q) { return row_.ref.order[columns_.begin + q]; });
    for (int32_t q = 0; q < columns_.run(); ++q) positive_key[q] = scratch_.found[q];
  }

 private:
  FM_INLINE void gather() const {
    const int32_t run = columns_.run();
    T* positive = scratch_.positive;
    std::memcpy(positive, row_.h + columns_.begin, static_cast<size_t>(run) * sizeof(T));
    if (columns_.self_among_positives()) positive[columns_.self - columns_.begin] = 0;
    for (int q = 0; q < kPad; ++q) positive[run + q] = 0;
    T* to = scratch_.negative;
    int32_t from = 0;
    for (int part = 0; part < 3; ++part) {
      const int32_t until = part < 2 ? columns_.gap[part] : columns_.n;
      std::memcpy(to, row_.h + from, static_cast<size_t>(until - from) * sizeof(T));
      to += until - from;
      from = part < 2 ? until + columns_.length[part] : until;
    }
    for (int k = 0; k < kPad; ++k) to[k] = scratch_.negative[0];
  }

  // The range of the negatives, and the reach; whether all numbers are finite.
  FM_INLINE bool measure() {
    Vec<T> low = broadcast(scratch_.negative[0]);
    Vec<T> high = low;
    Vec<T> odd = {};  // NaN as soon as anything is not finite
    for (int32_t k = 0; k < columns_.negatives(); k += kWidth<T>) {
      const Vec<T> x = load(scratch_.negative + k);
      low = x < low ? x : low;
      high = x > high ? x : high;
      odd += x - x;
    }
    Vec<T> farthest = {};
    for (int32_t q = 0; q < columns_.run(); q += kWidth<T>) {
      const Vec<T> x = load(scratch_.positive + q);
      farthest = absolute<T>(x) > farthest ? absolute<T>(x) : farthest;
      odd += x - x;
    }
    low_ = low[0];
    high_ = high[0];
    T most = 0;
    for (int lane = 0; lane < kWidth<T>; ++lane) {
      low_ = low[lane] < low_ ? low[lane] : low_;
      high_ = high[lane] > high_ ? high[lane] : high_;
      most = farthest[lane] > most ? farthest[lane] : most;
    }
    most = -low_ > most ? -low_ : most;
    most = high_ > most ? high_ : most;
    reach_ = 2 * row_.error + static_cast<T>(row_.relative) * most;
    return sum_lanes<T>(odd) == 0;
  }

  // For each place between which numbers a positive is sure of it: not so near to the negatives on
  // either side that it may be on the other, and the one above not so near to the next. Behind the
  // last negative all that remains to be seen is that it is no farther.
  FM_INLINE void bound_places() const {
    const T* value = sorted_.values();
    for (int32_t k = 0; k <= sorted_.size(); k += kWidth<T>) {
      const Vec<T> here = load(value + k);
      const Vec<T> alone = here - reach_;
      store(scratch_.above + k, load(value + k - 1) + reach_);
      store(scratch_.below + k, load(value + k + 1) - here > reach_ ? alone : broadcast(kNone));
    }
    scratch_.below[sorted_.size()] = __builtin_huge_val();
  }

  // Takes the choices that are sure, from the places; lists the others and returns how many. The
  // anchor itself has no choice.
  FM_INLINE int32_t look() {
    bound_places();
    const SemiHardScratch<T> at = scratch_;
    const T* value = sorted_.values();
    const int32_t self = columns_.self_among_positives() ? columns_.self - columns_.begin : -1;
    const int32_t run = columns_.run();
    const int32_t none = sorted_.size();
    int32_t open = 0;
    int32_t behind = 0;
    for (int32_t q = 0; q < run; ++q) {
      const int32_t k = at.choice[q];
      const T x = at.positive[q];
      const bool sure = (x > at.above[k]) & (x < at.below[k]);
      at.chosen[q] = value[k];
      at.open[open] = q;
      open += !sure & (q != self);
      at.listed[behind] = q;
      behind += sure & (k == none) & (q != self);
    }
    for (int32_t b = 0; b < behind; ++b) choose(at.listed[b], otherwise());
    if (self >= 0) choose(self, none);
    for (int q = 0; q < kPad; ++q) choose(run + q, none);
    return open;
  }

  FM_INLINE void choose(int32_t q, int32_t k) const {
    scratch_.choice[q] = k;
    scratch_.chosen[q] = sorted_[k];
  }

  // The keys of the candidates decide: of negatives that may be beyond, up to the nearest that is.
  // They are computed together, which takes half the time.
  FM_NOINLINE void decide_all(int32_t open) {
    int32_t wanted = 0;
    for (int32_t o = 0; o < open; ++o) {
      const T x = scratch_.positive[scratch_.open[o]];
      int32_t k = first_candidate(scratch_.open[o]);
      T last = __builtin_huge_val();
      for (; k < sorted_.size() && sorted_[k] <= last; ++k) {
        if (sorted_[k] - x > reach_ && last > Precision<T>::highest) last = sorted_[k] + 2 * reach_;
        want(k, wanted);
      }
    }
    compute(wanted);
    keys_of(open, [&](int32_t o) { return row_.ref.order[columns_.begin + scratch_.open[o]]; });
    for (int32_t o = 0; o < open; ++o) decide(scratch_.open[o], scratch_.found[o]);
  }

  // Puts the negative at a place on the list of those whose keys are wanted.
  FM_INLINE void want(int32_t k, int32_t& wanted) const {
    if (scratch_.known[k] == 0) scratch_.sorted[wanted++] = k;
    scratch_.known[k] = 1;
  }
  FM_INLINE void compute(int32_t wanted) const {
    keys_of(wanted, [&](int32_t w) { return original(scratch_.sorted[w]); });
    for (int32_t w = 0; w < wanted; ++w) scratch_.key[scratch_.sorted[w]] = scratch_.found[w];
  }

  // Into `found`, of the rows row(0) .. row(n - 1).
  template <class RowOf>
  FM_INLINE void keys_of(int32_t n, const RowOf& row) const {
    for (int32_t w = 0; w < n; ++w) scratch_.listed[w] = row(w);
    row_keys(row_.key, row_.query.rows, row_.query.order[row_.i], row_.ref.rows, 0, n, row_.dim,
             scratch_.widened, scratch_.found, scratch_.listed);
  }

  FM_INLINE int32_t first_candidate(int32_t q) const {
    int32_t k = scratch_.choice[q];
    while (k > 0 && scratch_.positive[q] - sorted_[k - 1] <= reach_) --k;
    return k;
  }

  // `bound`: the key of the positive.
  FM_INLINE void decide(int32_t q, double bound) {
    int32_t best = sorted_.size();
    for (int32_t k = first_candidate(q); k < sorted_.size(); ++k) {
      if (best < sorted_.size() && sorted_[k] - sorted_[best] > reach_) break;
      if (negative_key(k) > bound && nearer(k, best)) best = k;
    }
    choose(q, best < sorted_.size() ? best : otherwise());
  }

  FM_INLINE bool nearer(int32_t k, int32_t best) const {
    if (best == sorted_.size()) return true;
    const double key = negative_key(k);
    const double least = negative_key(best);
    return key < least || (key == least && original(k) < original(best));
  }

  // What a positive gets that no negative lies beyond.
  FM_INLINE int32_t otherwise() {
    dropped_ += drop_ ? 1 : 0;
    if (drop_) return sorted_.size();
    if (farthest_ < 0) find_farthest();
    return farthest_;
  }

  FM_NOINLINE void find_farthest() {
    farthest_ = sorted_.size() - 1;
    const T last = sorted_[farthest_];
    for (int32_t k = farthest_ - 1; k >= 0 && last - sorted_[k] <= reach_; --k) {
      const double key = negative_key(k);
      const double most = negative_key(farthest_);
      if (key > most || (key == most && original(k) < original(farthest_))) farthest_ = k;
    }
  }

  FM_INLINE int32_t original(int32_t k) const { return row_.ref.order[column(k)]; }

  static constexpr T kNone = -__builtin_huge_val();

  const DenseRow<T, curve>& row_;
  const AnchorColumns& columns_;
  const SemiHardScratch<T>& scratch_;
  SortedRow<T> sorted_;
  T low_ = 0, high_ = 0;
  T reach_ = 0;
  int32_t farthest_ = -1;
  bool drop_ = false;
  int32_t dropped_ = 0;
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
