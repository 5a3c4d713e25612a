// SPDX-License-Identifier: BSD-3-Clause
// POLICY of hinges over sets of triplets, by pairs of blocks (block_rules.h).
//
// Algorithm: for every pair (i, j), n counts the positives of i for which it closes an active
// triplet, by one comparison each; then, with R the farthest reach d_ap + margin of the anchor,
//   sum of (d_ap + margin - d_an) = sum_j n_ij (R - d_ij) - sum_p count_p (R - reach_p)
// and the slope of d_ij is -n_ij, that of d_ip is count_p.
#pragma once

#include "block_rules.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

template <class T, Curve curve>
struct HingeBlocks : BlockProblem<T, curve> {
  static constexpr bool of_pairs = false;

  FM_INLINE void prepare_row(int32_t i) const {
    const TripletRange set(this->problem.loss);
    BlockState<T>& blocks = this->blocks;
    const bool valid = i < this->state.query.n && this->positives(i) > 0 && this->negatives(i) > 0;
    const auto never = static_cast<T>(-kFarthest);
    blocks.valid[i] = valid ? 1 : 0;
    blocks.widest[i] = never;
    blocks.members[i] = 0;
    blocks.reach[i] = 0;
    double reach = -kNever;
    for (int32_t p = 0; p < blocks.most; ++p) {
      blocks.count[p * blocks.padded + i] = 0;
      this->set_limits(blocks.limit, p, i, {never, never, never, never});
      if (by_set()) this->set_limits(blocks.member_limit, p, i, {never, never, never, never});
      if (!valid || p >= this->positives(i)) continue;
      const double d_ap = this->key.value(this->positive_key(i, p));
      const double limit = d_ap + margin(i);
      const double high = set.high(d_ap, mining_margin(i));
      const double low = set.low(d_ap, mining_margin(i));
      this->set_limits(blocks.limit, p, i,
                       this->limits_between(i, low, high < limit ? high : limit));
      if (by_set()) this->set_limits(blocks.member_limit, p, i, this->limits_between(i, low, high));
      const T highest = blocks.limit[3][p * blocks.padded + i];
      blocks.widest[i] = highest > blocks.widest[i] ? highest : blocks.widest[i];
      reach = limit > reach ? limit : reach;
      blocks.reach[i] = static_cast<T>(reach);
    }
  }

  template <bool both>
  FM_INLINE void visit(const Square<T>& square, BlockSlot<T>& slot) const {
    const TripletRange set(this->problem.loss);
    if (by_set() && set.kind != TripletRange::all) count_members<both>(set, square);
    if (set.kind == TripletRange::all || set.kind == TripletRange::hard) {
      visit_set<both, false>(set, square, slot);
    } else {
      visit_set<both, true>(set, square, slot);
    }
  }

  inline void total_row(int32_t i, RowTotals& totals) const {
    double count = 0;
    double short_of = 0;
    const auto reach = static_cast<double>(this->blocks.reach[i]);
    for (int32_t p = 0; p < this->positives(i); ++p) {
      const double active = this->blocks.count[p * this->blocks.padded + i];
      count += active;
      short_of += active * (reach - (this->key.value(this->positive_key(i, p)) + margin(i)));
    }
    totals.term[0] -= short_of * this->weight(i);
    totals.counted[0] += count * this->weight(i);
    totals.active[0] += count * this->weight(i);
    totals.live += count;
    const bool all = TripletRange(this->problem.loss).kind == TripletRange::all;
    totals.members += !all ? this->blocks.members[i]
                      : this->blocks.valid[i] == 0
                          ? 0.0
                          : static_cast<double>(this->positives(i)) * this->negatives(i);
  }

  FM_INLINE double slope(int32_t i, int32_t p) const {
    return this->blocks.count[p * this->blocks.padded + i] * this->weight(i);
  }

 private:
  FM_INLINE double margin(int32_t i) const {
    const DenseProblem& problem = this->problem;
    return number_of(this->state.order.query[i], problem.margin_values, problem.margin_stride,
                     problem.margin);
  }
  FM_INLINE double mining_margin(int32_t i) const {
    const DenseProblem& problem = this->problem;
    return number_of(this->state.order.query[i], problem.mining_margin_values,
                     problem.mining_margin_stride, problem.mining_margin);
  }

  FM_INLINE bool by_set() const { return this->blocks.member_limit[0] != nullptr; }

  struct VectorLimits {
    Vec<T> low_out, low_in, high_in, high_out;
  };
  FM_INLINE VectorLimits row_limits(T* const (&limit)[4], int64_t p, int64_t i) const {
    const Limits<T> l = this->limits(limit, p, i);
    return {broadcast(l.low_out), broadcast(l.low_in), broadcast(l.high_in), broadcast(l.high_out)};
  }
  FM_INLINE VectorLimits column_limits(T* const (&limit)[4], int64_t p, int64_t j) const {
    const int64_t at = p * this->blocks.padded + j;
    return {load(limit[0] + at), load(limit[1] + at), load(limit[2] + at), load(limit[3] + at)};
  }

  // Adds 1 to n where h is surely within; `inside` says where, `open` where keys must decide.
  template <bool two_sided>
  static FM_INLINE Vec<T> compare(const VectorLimits& limits, Vec<T> h, uint32_t& inside,
                                  uint32_t& open) {
    uint32_t maybe = le_bits(h, limits.high_out);
    uint32_t unsure = le_bits(limits.high_in, h);
    auto sure = h < limits.high_in;
    if constexpr (two_sided) {
      maybe &= le_bits(limits.low_out, h);
      unsure |= le_bits(h, limits.low_in);
      sure = sure & (h > limits.low_in);
    }
    inside = maybe & ~unsure;
    open |= maybe & unsure;
    return sure ? broadcast(T(1)) : Vec<T>{};
  }

  template <bool both, bool two_sided>
  FM_NOINLINE void visit_set(const TripletRange& set, const Square<T>& square,
                             BlockSlot<T>& slot) const {
    const BlockState<T>& blocks = this->blocks;
    const T* weights = this->state.pair_weight;
    int16_t row_count[kMostPositives][kBlock] = {};
    int16_t col_count[kMostPositives][kBlock] = {};
    VectorSum<T> terms;
    for (int group = 0; group < kBlock; group += kWidth<T>) {
      const int32_t j = square.j + group;
      Vec<T> count[kMostPositives] = {};
      const Vec<T> widest = load(blocks.widest + j);
      for (int r = 0; r < square.rows; ++r) {
        const int32_t i = square.i + r;
        T* c = square.c + r * kBlock + group;
        const Vec<T> h = load(c);
        uint32_t near = le_bits(h, broadcast(blocks.widest[i]));
        if constexpr (both) near |= le_bits(h, widest);
        if (near == 0) {
          store(c, Vec<T>{});
          continue;
        }
        Vec<T> d = this->scale.distances(h);
        Vec<T> n[2] = {};
        uint32_t open = 0;
        for (int p = 0; p < blocks.most; ++p) {
          uint32_t inside = 0;
          n[0] += compare<two_sided>(row_limits(blocks.limit, p, i), h, inside, open);
          row_count[p][r] = static_cast<int16_t>(row_count[p][r] + __builtin_popcount(inside));
          if constexpr (both) {
            const Vec<T> one =
                compare<two_sided>(column_limits(blocks.limit, p, j), h, inside, open);
            n[1] += one;
            count[p] += one;
          }
        }
        if (__builtin_expect(open != 0, 0)) {
          const auto counts = [&](int side, int p, int lane) -> int16_t& {
            return side == 0 ? row_count[p][r] : col_count[p][group + lane];
          };
          decide<both>(set, i, j, open, h, n, d, counts);
        }
        const Vec<T> row_pull = n[0] * weights[i];
        Vec<T> term = row_pull * (blocks.reach[i] - d);
        Vec<T> pull = row_pull;
        if constexpr (both) {
          const Vec<T> col_pull = n[1] * load(weights + j);
          term += col_pull * (load(blocks.reach + j) - d);
          pull += col_pull;
        }
        terms.add(term);
        store(c, -pull * this->scale.slopes(d));
      }
      for (int p = 0; p < blocks.most && both; ++p) {
        for (int lane = 0; lane < kWidth<T>; ++lane) {
          int16_t& total = col_count[p][group + lane];
          total = static_cast<int16_t>(total + static_cast<int16_t>(count[p][lane]));
        }
      }
    }
    for (int p = 0; p < blocks.most; ++p) {
      for (int place = 0; place < kBlock; ++place) {
        uint8_t* counts = slot.count + p * kBlock + place;
        counts[0] = static_cast<uint8_t>(row_count[p][place]);
        counts[kMostPositives * kBlock] = static_cast<uint8_t>(col_count[p][place]);
      }
    }
    slot.term = terms.sum();
    slot.active = slot.live = 0;
  }

  // By the keys: adds the open triplets of each lane to n and to the counts.
  template <bool both, class Counts>
  FM_INLINE void decide(const TripletRange& set, int32_t i, int32_t j, uint32_t open, Vec<T> h,
                        Vec<T> (&n)[2], Vec<T>& d, const Counts& counts) const {
    for (; open != 0; open &= open - 1) {
      const int lane = __builtin_ctz(open);
      const double d_an = this->key.value(this->exact_key(i, j + lane));
      d[lane] = static_cast<T>(d_an);
      for (int side = 0; side < (both ? 2 : 1); ++side) {
        const int32_t anchor = side == 0 ? i : j + lane;
        for (int p = 0; p < this->blocks.most; ++p) {
          if (!is_active(set, anchor, p, h[lane], d_an)) continue;
          ++counts(side, p, lane);
          n[side][lane] += 1;
        }
      }
    }
  }

  // Of the triplets that h leaves open, which are active?
  FM_NOINLINE bool is_active(const TripletRange& set, int32_t i, int32_t p, T h,
                             double d_an) const {
    if (!is_open(this->limits(this->blocks.limit, p, i), h)) return false;
    const double d_ap = this->key.value(this->positive_key(i, p));
    return d_ap - d_an + margin(i) > 0 && set.contains(d_an - d_ap, mining_margin(i));
  }

  static FM_INLINE bool is_open(const Limits<T>& limits, T h) {
    const bool maybe = h >= limits.low_out && h <= limits.high_out;
    return maybe && !(h > limits.low_in && h < limits.high_in);
  }

  // The triplets of the set, active or not, for the statistics. Integers: their sums are the same
  // in any order.
  template <bool both>
  FM_NOINLINE void count_members(const TripletRange& set, const Square<T>& square) const {
    const auto& limit = this->blocks.member_limit;
    int32_t row_count[kBlock] = {};
    for (int group = 0; group < kBlock; group += kWidth<T>) {
      const int32_t j = square.j + group;
      Vec<T> count = {};
      for (int r = 0; r < square.rows; ++r) {
        const int32_t i = square.i + r;
        const Vec<T> h = load(square.c + r * kBlock + group);
        for (int p = 0; p < this->blocks.most; ++p) {
          uint32_t inside = 0;
          uint32_t open[2] = {};
          compare<true>(row_limits(limit, p, i), h, inside, open[0]);
          row_count[r] += __builtin_popcount(inside);
          for (; open[0] != 0; open[0] &= open[0] - 1) {
            row_count[r] += is_member(set, i, p, i, j + __builtin_ctz(open[0])) ? 1 : 0;
          }
          if constexpr (!both) continue;
          count += compare<true>(column_limits(limit, p, j), h, inside, open[1]);
          for (; open[1] != 0; open[1] &= open[1] - 1) {
            const int lane = __builtin_ctz(open[1]);
            count[lane] += is_member(set, j + lane, p, i, j + lane) ? T(1) : T(0);
          }
        }
      }
      for (int lane = 0; lane < kWidth<T> && both; ++lane) {
        add_members(j + lane, static_cast<int32_t>(count[lane]));
      }
    }
    for (int r = 0; r < square.rows; ++r) add_members(square.i + r, row_count[r]);
  }

  FM_INLINE void add_members(int32_t i, int32_t count) const {
    __atomic_fetch_add(this->blocks.members + i, count, __ATOMIC_RELAXED);
  }

  FM_NOINLINE bool is_member(const TripletRange& set, int32_t anchor, int32_t p, int32_t i,
                             int32_t j) const {
    const double d_ap = this->key.value(this->positive_key(anchor, p));
    return set.contains(this->key.value(this->exact_key(i, j)) - d_ap, mining_margin(anchor));
  }
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
