// SPDX-License-Identifier: BSD-3-Clause
// POLICIES of losses over all pairs. A value is factor * excess^power, excess = d - pos_margin of a
// positive or margin - d of a negative, where it is above 0.
#pragma once

#include "dense_rules.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// Hadsell, Chopra, LeCun 2006, "Dimensionality Reduction by Learning an Invariant Mapping".
// `online`: only positives beyond the nearest negative pair of the batch, and negatives nearer than
// its farthest positive pair; problem.bounds are the keys of these two.
template <bool of_online>
struct Contrastive {
  static constexpr bool of_pairs = true;
  static constexpr bool online = of_online;

  template <class T, Curve curve>
  static void row(const DenseProblem& problem, const DenseRow<T, curve>& row,
                  const RowFactors<T>& factors, bool with_stats, RowTotals& totals) {
    for (int64_t p = 0; p < row.n_positive; ++p) add_positive(problem, row, factors, p, totals);
    add_negatives(problem, row, factors, totals);
    totals.members += static_cast<double>(row.n_positive + row.n_negative);
    if (online) totals.counted[1] += selected(problem, row, factors);
    if (with_stats) note_distances(row, totals);
  }

 private:
  template <class T, Curve curve>
  static void add_positive(const DenseProblem& problem, const DenseRow<T, curve>& row,
                           const RowFactors<T>& factors, int64_t p, RowTotals& totals) {
    const int32_t j = row.positive[p];
    const double weight = factors.weight * factors.weight_of(j);
    const double excess = row.positive_distance[p] - factors.mining_margin;
    row.positive_slope[p] = 0;
    if (online && row.positive_key[p] <= problem.bounds[0]) return;
    totals.counted[0] += weight;
    if (excess <= 0) return;
    const bool squared = problem.power == 2;
    totals.term[0] += weight * problem.factor * (squared ? excess * excess : excess);
    totals.active[0] += weight;
    totals.live += 1;
    row.positive_slope[p] = problem.factor * (squared ? 2 * excess : 1.0) * factors.scale[0] *
                            static_cast<double>(factors.pair_factor[j]);
  }

  template <class T, Curve curve>
  static void add_negatives(const DenseProblem& problem, const DenseRow<T, curve>& row,
                            const RowFactors<T>& factors, RowTotals& totals) {
    const Vec<T> reach = broadcast(static_cast<T>(factors.margin));
    const auto factor = static_cast<T>(-factors.scale[1] * problem.factor);
    const bool squared = problem.power == 2;
    VectorSum<T> live, weights, values;
    RowTotals more;
    const auto sure = [&](int64_t j, auto inside, Vec<T> h) FM_INLINE_LAMBDA {
      const Vec<T> d = row.scale.distances(h);
      const Vec<T> excess = reach - d;
      const Vec<T> weight = inside ? load(factors.pair_weight + j) : Vec<T>{};
      live.add(inside ? broadcast(T(1)) : Vec<T>{});
      weights.add(weight);
      values.add(inside ? (squared ? excess * excess : excess) * weight : Vec<T>{});
      const Vec<T> slope = (squared ? excess * T(2) : broadcast(T(1))) * row.scale.slopes(d);
      const Vec<T> scaled = slope * (load(factors.pair_factor + j) * factor);
      store(row.coefficient + j, inside ? scaled : Vec<T>{});
    };
    const auto unsure = [&](int64_t j) {
      const double key = row.exact_key(j);
      const double excess = factors.margin - row.key.value(key);
      if (excess <= 0 || (online && key >= problem.bounds[1])) return;
      more.live += 1;
      more.active[1] += factors.weight_of(j);
      more.term[1] += factors.weight_of(j) * (squared ? excess * excess : excess);
      row.coefficient[j] = static_cast<T>((squared ? 2 * excess : 1.0) * row.key.slope(key) *
                                          static_cast<double>(factors.pair_factor[j] * factor));
    };
    const double margin = row.scale.threshold(factors.margin);
    const double bound = online ? row.scale.half(problem.bounds[1]) : kNever;
    row.sweep(-kNever, bound < margin ? bound : margin, sure, unsure);
    totals.live += live.sum() + more.live;
    totals.active[1] += (weights.sum() + more.active[1]) * factors.weight;
    totals.term[1] += (values.sum() + more.term[1]) * problem.factor * factors.weight;
  }

  // The weights of the negatives that the batch selects.
  template <class T, Curve curve>
  static double selected(const DenseProblem& problem, const DenseRow<T, curve>& row,
                         const RowFactors<T>& factors) {
    VectorSum<T> weights;
    double more = 0;
    row.sweep(
        -kNever, row.scale.half(problem.bounds[1]),
        [&](int64_t j, auto inside, Vec<T>)
            FM_INLINE_LAMBDA { weights.add(inside ? load(factors.pair_weight + j) : Vec<T>{}); },
        [&](int64_t j) {
          if (!(row.exact_key(j) >= problem.bounds[1])) more += factors.weight_of(j);
        });
    return (weights.sum() + more) * factors.weight;
  }
};

// No loss: every pair has a cotangent of its own (pairwise.h).
struct GivenSlopes {
  static constexpr bool of_pairs = false;
  static constexpr bool online = false;

  // The cotangents of some rows from `first` on.
  template <class T>
  FM_NOINLINE static void read(const DenseProblem& problem, int64_t first, int64_t rows,
                               T* c /*[rows][stride]*/, int64_t stride) {
    constexpr int64_t step = 16;  // columns whose lines stay in the L1 cache
    const PairCotangents& from = problem.pairs;
    const T* row = static_cast<const T*>(from.data) + first * from.row_stride;
    const T* column = static_cast<const T*>(from.data) + first * from.col_stride;
    for (int64_t begin = 0; begin < stride; begin += step) {
      const int64_t end = begin + step < problem.ref.n ? begin + step : problem.ref.n;
      for (int64_t r = 0; r < rows; ++r) {
        T* to = c + r * stride;
        for (int64_t j = begin; j < begin + step; ++j) to[j] = 0;
        for (int64_t j = begin; j < end; ++j) {
          to[j] = row[r * from.row_stride + j * from.col_stride];
          if (from.mirrored) to[j] += column[j * from.row_stride + r * from.col_stride];
        }
      }
    }
  }

  // Cotangents become coefficients; one that is 0 adds nothing, whatever the rows of its pair are.
  // Those of near pairs stay: DenseGradient multiplies them by a slope in float64.
  template <class T, Curve curve>
  static void row(const DenseRow<T, curve>& row, const uint32_t* near) {
    for (int64_t word = 0; word < row.ref.padded() / 32; ++word) {
      T* c = row.coefficient + word * 32;
      T given[32];
      std::memcpy(given, c, sizeof given);
      for (int j = 0; j < 32; j += kWidth<T>) {
        const Vec<T> slope = row.scale.slopes(row.scale.distances(load(row.h + word * 32 + j)));
        store(c + j, load(c + j) == T(0) ? Vec<T>{} : load(c + j) * slope);
      }
      for (uint32_t bits = near[word]; bits != 0; bits &= bits - 1) {
        c[__builtin_ctz(bits)] = given[__builtin_ctz(bits)];
      }
    }
  }
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
