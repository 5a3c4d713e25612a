// SPDX-License-Identifier: BSD-3-Clause
// combine_rows: a loss over all triplets or pairs and its dense gradient, without the distance
// matrix.
//
// Algorithm, for chunks of anchors:
//   for each group of kGroup rows (parallel): distances to all references (dense_rows.h) -> the
//     rule makes of each row its value and coefficients c_ij = d loss / d distance * slope
//     -> P_i += sum_j c_ij y_j, S_i += sum_j c_ij                                 (weighted_sums.h)
//   for each group of references (parallel): P_j += sum_i c_ij y_i, S_j += sum_i c_ij
// and at the end grad_i = S_i y_i - P_i (difference keys) or P_i (product keys).
// Where c_ij is a symmetric function of the pair, the rows do it all: the second loop is not
// needed, and a chunk is one group per thread.
//
// Numerics: pairs nearer than kNear of their rows' lengths would lose their difference in that
// sum: their distances and gradients are evaluated by difference, in float64. Sums over rows are
// float64.
//
// Determinism: every sum has one owner and a fixed order.
#pragma once

#include "dense_gradient.h"
#include "dense_pair_rules.h"
#include "dense_soft_rules.h"
#include "exact_row.h"
#include "kernels.h"
#include "scatter_pairs.h"
#include "semihard_rule.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// Computes the rows of one group: distances, roles, the rule.
template <class T, Curve curve, class Rule>
struct DenseRows {
  const DenseProblem& problem;
  const DenseState<T>& state;
  const AnyRelation& relation;
  KeyForm key;
  bool mirrored;

  // Anchors i .. i + kGroup - 1 of the sorted order; their coefficients go to `c`.
  inline void visit(int64_t i, T* c, uint32_t* near, RowScratch<T>& scratch) const {
    const int64_t stride = state.stride;
    bool wanted = true;
    if constexpr (std::is_same_v<Rule, GivenSlopes>) {
      const int64_t left = state.query.n - i;
      Rule::read(problem, i, left < kGroup ? left : kGroup, c, stride);
      wanted = key.form == Form::difference;  // the slopes of others are the same for all
    }
    if (wanted) {
      fill_rows(key, state.query, state.references(problem), problem.dim, i, kGroup, scratch.h,
                stride);
    }
    for (int64_t r = 0; r < kGroup && i + r < state.query.n; ++r) {
      RowScratch<T> own = scratch;
      own.h += r * stride;
      visit_row(static_cast<int32_t>(i + r), own, c + r * stride, near + r * (stride / 32));
    }
  }

 private:
  inline void visit_row(int32_t i, const RowScratch<T>& scratch, T* c, uint32_t* near) const {
    const DenseSet<T>& ref = state.references(problem);
    const double energy = key.relative ? state.query.rows.clamped_energy(state.order.query[i]) : 1;
    const Scale<T, curve> scale(key, static_cast<double>(state.frame.unit), energy);
    for (int64_t j = 0; j < state.stride && !std::is_same_v<Rule, GivenSlopes>; ++j) c[j] = 0;
    DenseRow<T, curve> row{state.query,
                           ref,
                           key,
                           problem.dim,
                           scale,
                           i,
                           scratch.h,
                           T(0),
                           scratch.negative,
                           scratch.positive,
                           0,
                           0,
                           scratch.positive_key,
                           scratch.positive_distance,
                           scratch.positive_slope,
                           scratch.negative_distance,
                           scratch.sort,
                           c};
    row.error = static_cast<T>(state.error(i));
    // Of products all but what is measured is within the slack; that, and thresholds, round to T
    // once, and 4 leave room for the bands.
    row.relative = slack_factor * (key.of_products() ? 4 * Precision<T>::roundoff
                                                     : row_relative_error<T>(key, problem.dim));
    refine(row, scratch, near);
    const RowFactors<T> factors = factors_of(i, scratch);
    RowTotals& totals = state.totals[i];
    totals = RowTotals{};
    if constexpr (std::is_same_v<Rule, SemiHardPairs>) {
      SemiHardTerms<T, curve>(problem, row, state.order, factors, scratch).add(totals);
    } else if constexpr (std::is_same_v<Rule, GivenSlopes>) {
      Rule::row(row, near);
    } else {
      split(row, scratch);
      Rule::row(problem, row, factors, problem.stats != nullptr, totals);
      for (int64_t p = 0; p < row.n_positive; ++p) {
        const double slope = row.positive_slope[p];
        c[row.positive[p]] =
            static_cast<T>(slope == 0 ? 0 : slope * key.slope(row.positive_key[p]));
      }
    }
  }

  // Marks the pairs whose distance must be taken by difference, and takes it: in float64 all of
  // them, for what an expansion loses there nothing wider could give back.
  FM_INLINE void refine(const DenseRow<T, curve>& row, const RowScratch<T>& scratch,
                        uint32_t* near) const {
    T* h = scratch.h;
    const int64_t i = row.i;
    const bool regular = state.frame.regular(state.query.norm[state.query.order[i]]);
    const bool every = !regular || (sizeof(T) == sizeof(double) && key.of_products());
    const bool difference = key.form == Form::difference;
    const int32_t self = state.order.self[i];
    for (int64_t word = 0; word < state.stride / 32; ++word) {
      uint32_t bits = 0;
      for (int64_t j = word * 32; j < word * 32 + 32 && difference; j += kWidth<T>) {
        const Vec<T> lengths = load(row.ref.half + j) + state.query.half[i];
        bits |= le_bits(load(h + j), near_limits<T>(lengths)) << (j % 32);
      }
      if (every) bits = ~0u;
      bits |= state.irregular_bits[word];
      bits &= bit_range(static_cast<int32_t>(-word * 32),
                        static_cast<int32_t>(row.ref.n - word * 32), 32);
      if (self / 32 == word && self >= 0) bits &= ~(1u << (self % 32));
      near[word] = bits;
      if (bits != 0) measure(row, word * 32, bits, scratch.widened, h);
    }
  }

  FM_NOINLINE void measure(const DenseRow<T, curve>& row, int64_t first, uint32_t bits,
                           double* widened, T* h) const {
    int32_t column[32], place[32];
    double found[32];
    int count = 0;
    for (; bits != 0; bits &= bits - 1) {
      place[count] = __builtin_ctz(bits);
      column[count] = row.ref.order[first + place[count]];
      ++count;
    }
    row_keys(key, row.query.rows, row.query.order[row.i], row.ref.rows, 0, count, problem.dim,
             widened, found, column);
    for (int k = 0; k < count; ++k) {
      h[first + place[k]] = row.scale.measured(found[k]);
    }
  }

  // Lists the positives with their float64 distances; what is no negative leaves every sweep.
  FM_INLINE void split(DenseRow<T, curve>& row, const RowScratch<T>& scratch) const {
    row.n_positive = row.n_negative = 0;
    for (int64_t word = 0; word < state.stride / 32; ++word) {
      const RoleBits roles = relation.bits(row.i, static_cast<int32_t>(word * 32), 32);
      scratch.negative[word] = roles.role[kNegative];
      row.n_negative += __builtin_popcount(roles.role[kNegative]);
      for (uint32_t bits = roles.role[kPositive]; bits != 0; bits &= bits - 1) {
        scratch.positive[row.n_positive++] = static_cast<int32_t>(word * 32 + __builtin_ctz(bits));
      }
      for (uint32_t bits = ~roles.role[kNegative]; bits != 0; bits &= bits - 1) {
        scratch.h[word * 32 + __builtin_ctz(bits)] = __builtin_huge_val();
      }
    }
    for (int64_t p = 0; p < row.n_positive; ++p) {
      scratch.listed[p] = row.ref.order[scratch.positive[p]];
    }
    row_keys(key, row.query.rows, row.query.order[row.i], row.ref.rows, 0, row.n_positive,
             problem.dim, scratch.widened, scratch.positive_key, scratch.listed);
    for (int64_t p = 0; p < row.n_positive; ++p) {
      scratch.positive_distance[p] = key.value(scratch.positive_key[p]);
      scratch.positive_slope[p] = 0;
    }
  }

  FM_INLINE RowFactors<T> factors_of(int32_t i, const RowScratch<T>& scratch) const {
    const int64_t anchor = state.order.query[i];
    RowFactors<T> factors{};
    factors.margin =
        number_of(anchor, problem.margin_values, problem.margin_stride, problem.margin);
    factors.mining_margin = number_of(anchor, problem.mining_margin_values,
                                      problem.mining_margin_stride, problem.mining_margin);
    factors.weight = number_of(anchor, problem.weights, 1, 1.0);
    factors.cotangent = static_cast<double>(state.cotangent[i]);
    factors.scale[0] = state.scale[0];
    factors.scale[1] = state.scale[1];
    factors.pair_weight = state.pair_weight;
    factors.pair_factor = scratch.pair_factor;
    if (!Rule::of_pairs) return factors;
    // Mirrored, the pair (j, i) adds its cotangent to that of (i, j).
    for (int64_t j = 0; j < state.stride; ++j) {
      const bool both = mirrored && j < state.query.n;
      const double cotangent =
          factors.cotangent + (both ? static_cast<double>(state.cotangent[j]) : 0.0);
      scratch.pair_factor[j] = static_cast<T>(cotangent * factors.weight * factors.weight_of(j));
    }
    return factors;
  }
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
