// SPDX-License-Identifier: BSD-3-Clause
// POLICIES of losses that go by pairs of blocks (dense_blocks.h): the negatives of a square of
// kBlock x kBlock pairs, whose h become coefficients in place. Positives are few: they are measured
// one by one, before.
//   prepare_row(i)        thresholds and reach of an anchor
//   visit<both>(...)      h -> d terms / d distance * slope of the distance, in both directions
//   total_row(i)          what the anchor adds besides the terms of its squares
//   slope(i, p)           d terms / d distance of its positive p
#pragma once

#include "block_slots.h"
#include "dense_rules.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// |y| <= 2 in the frame (prepare.h), so every |h| is below 9: nothing compares above kFarthest.
constexpr double kNoNegative = 64;  // the h of pairs that are none
constexpr double kFarthest = 32;

template <class T>
struct BlockState {
  BlockSlot<T>* slots = nullptr;
  int64_t rounds = 1;              // of slots
  int64_t padded = 0;              // anchors
  int most = 0;                    // positives of an anchor
  double all_weights = 0;          // of the rows
  double* positive_key = nullptr;  // [kMostPositives][padded]
  int32_t* count = nullptr;        // [kMostPositives][padded] active triplets of each positive
  T* limit[4] = {};                // [kMostPositives][padded] of Limits; of pairs only [padded]
  T* member_limit[4] = {};         // the same of all members of a set; null: not wanted
  int32_t* members = nullptr;      // [padded] triplets of the set, active or not, of an anchor
  T* widest = nullptr;             // [padded] the highest limit of an anchor
  T* reach = nullptr;              // [padded] distance at which its terms end
  T* valid = nullptr;              // [padded] 1 where the anchor counts, else 0
};

// One square: rows i .. of block I, columns j .. of block J.
template <class T>
struct Square {
  T* c;  // [kBlock][kBlock] in: h; out: coefficients
  int32_t i, j;
  int rows;
};

template <class T, Curve curve>
struct BlockProblem {
  const DenseProblem& problem;
  const DenseState<T>& state;
  BlockState<T>& blocks;
  KeyForm key;
  Scale<T, curve> scale;

  FM_INLINE int32_t positives(int32_t i) const {
    return state.order.run_end[i] - state.order.run_begin[i] - 1;
  }
  FM_INLINE int32_t negatives(int32_t i) const { return state.query.n - 1 - positives(i); }
  FM_INLINE int32_t positive(int32_t i, int32_t p) const {
    const int32_t j = state.order.run_begin[i] + p;
    return j < i ? j : j + 1;
  }
  // Which of the positives of j is i?
  FM_INLINE int32_t place(int32_t j, int32_t i) const {
    return i - state.order.run_begin[j] - (i > j ? 1 : 0);
  }
  FM_INLINE double exact_key(int64_t i, int64_t j) const {
    return pair_key(key, state.query.rows, state.query.order[i], state.query.rows,
                    state.query.order[j], problem.dim);
  }
  FM_INLINE double positive_key(int32_t i, int32_t p) const {
    return blocks.positive_key[p * blocks.padded + i];
  }
  FM_INLINE double weight(int32_t i) const {
    return number_of(state.order.query[i], problem.weights, 1, 1.0);
  }
  // Of the h of an anchor against two distances.
  FM_INLINE Limits<T> limits_between(int32_t i, double low, double high) const {
    return limits_of<T>(state.error(i), row_relative_error<T>(key, problem.dim),
                        scale.threshold(low), scale.threshold(high));
  }
  FM_INLINE void set_limits(T* const (&limit)[4], int32_t p, int32_t i,
                            const Limits<T>& limits) const {
    const T all[4] = {limits.low_out, limits.low_in, limits.high_in, limits.high_out};
    constexpr auto most = static_cast<T>(kFarthest);
    for (int side = 0; side < 4; ++side) {
      const T x = all[side];
      limit[side][p * blocks.padded + i] = x > most ? most : x < -most ? -most : x;
    }
  }
  FM_INLINE Limits<T> limits(T* const (&limit)[4], int64_t p, int64_t i) const {
    const int64_t at = p * blocks.padded + i;
    return {limit[0][at], limit[1][at], limit[2][at], limit[3][at]};
  }
};

// Hadsell, Chopra, LeCun 2006 (dense_pair_rules.h). Both directions of a pair are the same.
template <class T, Curve curve>
struct ContrastiveBlocks : BlockProblem<T, curve> {
  static constexpr bool of_pairs = true;

  FM_INLINE void prepare_row(int32_t i) const {
    const double margin = this->problem.margin;
    const Limits<T> limits = this->limits_between(i, -kNever, margin);
    this->set_limits(this->blocks.limit, 0, i, limits);
    this->blocks.widest[i] = this->blocks.limit[3][i];
    this->blocks.reach[i] = static_cast<T>(margin);
    this->blocks.valid[i] = 1;
  }

  template <bool both>
  FM_NOINLINE void visit(const Square<T>& square, BlockSlot<T>& slot) const {
    const bool squared = this->problem.power == 2;
    // Each coefficient is that of both directions, each sum of those that the square stands for.
    const auto factor = static_cast<T>(-2 * this->problem.factor);
    const T* weights = this->state.pair_weight;
    VectorSum<T> terms, active;
    int64_t live = 0;
    for (int r = 0; r < square.rows; ++r) {
      const int32_t i = square.i + r;
      const Vec<T> in = broadcast(this->blocks.limit[2][i]);
      const Vec<T> out = broadcast(this->blocks.limit[3][i]);
      const Vec<T> reach = broadcast(this->blocks.reach[i]);
      for (int group = 0; group < kBlock; group += kWidth<T>) {
        T* c = square.c + r * kBlock + group;
        Vec<T> h = load(c);
        const uint32_t maybe = le_bits(h, out);
        store(c, Vec<T>{});
        if (maybe == 0) continue;
        const uint32_t open = maybe & le_bits(in, h);
        Vec<T> d = this->scale.distances(h);
        if (__builtin_expect(open != 0, 0)) decide(i, square.j + group, open, h, d);
        const auto inside = h < in;
        const Vec<T> excess = reach - d;
        const Vec<T> weight = load(weights + square.j + group) * weights[i];
        const Vec<T> slope = (squared ? excess * T(2) : broadcast(T(1))) * this->scale.slopes(d);
        store(c, inside ? slope * (weight * factor) : Vec<T>{});
        terms.add(inside ? (squared ? excess * excess : excess) * weight : Vec<T>{});
        active.add(inside ? weight : Vec<T>{});
        live += __builtin_popcount(maybe & ~le_bits(in, h));
      }
    }
    const int times = both ? 2 : 1;
    slot.term = times * terms.sum() * this->problem.factor;
    slot.active = times * active.sum();
    slot.live = static_cast<double>(times * live);
  }

  inline void total_row(int32_t i, RowTotals& totals) const {
    const double own = this->weight(i);
    double same = own;
    for (int32_t p = 0; p < this->positives(i); ++p) {
      const double weight = own * this->weight(this->positive(i, p));
      const double excess = excess_of(i, p);
      same += this->weight(this->positive(i, p));
      totals.counted[0] += weight;
      if (excess <= 0) continue;
      totals.term[0] +=
          weight * this->problem.factor * (this->problem.power == 2 ? excess * excess : excess);
      totals.active[0] += weight;
      totals.live += 1;
    }
    totals.counted[1] += own * (this->blocks.all_weights - same);
    totals.members += this->state.query.n - 1;
  }

  FM_INLINE double slope(int32_t i, int32_t p) const {
    const double excess = excess_of(i, p);
    if (excess <= 0) return 0;
    return this->problem.factor * (this->problem.power == 2 ? 2 * excess : 1.0) * this->weight(i) *
           this->weight(this->positive(i, p));
  }

 private:
  FM_INLINE double excess_of(int32_t i, int32_t p) const {
    return this->key.value(this->positive_key(i, p)) - this->problem.mining_margin;
  }

  // Moves the h of open lanes to their side of the threshold, and makes their distances exact.
  FM_NOINLINE void decide(int32_t i, int32_t j, uint32_t open, Vec<T>& h, Vec<T>& d) const {
    for (; open != 0; open &= open - 1) {
      const int lane = __builtin_ctz(open);
      const double distance = this->key.value(this->exact_key(i, j + lane));
      d[lane] = static_cast<T>(distance);
      h[lane] = static_cast<T>(distance < this->problem.margin ? -kFarthest - 1 : kNoNegative);
    }
  }
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
