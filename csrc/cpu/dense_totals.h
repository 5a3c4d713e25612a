// SPDX-License-Identifier: BSD-3-Clause
// From what each anchor adds to the value, the scales, and the statistics of a dense loss.
#pragma once

#include "../exact_sum.h"
#include "dense_gradient.h"
#include "kernels.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// Sums over anchors, compensated.
struct DenseTotals {
  double term[2], counted[2], active[2];
};

template <class T>
inline DenseTotals sum_rows(const DenseState<T>& state) {
  ExactSum sums[6];
  for (int32_t i = 0; i < state.query.n; ++i) {
    const RowTotals& row = state.totals[i];
    for (int kind = 0; kind < 2; ++kind) {
      sums[kind].add(row.term[kind]);
      sums[2 + kind].add(row.counted[kind]);
      sums[4 + kind].add(row.active[kind]);
    }
  }
  return {{sums[0].value(), sums[1].value()},
          {sums[2].value(), sums[3].value()},
          {sums[4].value(), sums[5].value()}};
}

// 1 / weights, by kind: what the reduction multiplies the terms with.
struct KindScales {
  double kind[2];
};

FM_INLINE KindScales scales_of(DenseReduction reduction, bool of_pairs, const DenseTotals& totals) {
  const auto inverse = [](double weights) { return weights == 0 ? 0 : 1 / weights; };
  const double* weights = reduction == DenseReduction::mean_active ? totals.active : totals.counted;
  if (reduction == DenseReduction::sum || reduction == DenseReduction::none) return {{1, 1}};
  if (of_pairs && reduction != DenseReduction::mean_pairs) {
    return {{inverse(weights[0]), inverse(weights[1])}};
  }
  const double all = inverse(weights[0] + weights[1]);
  return {{all, all}};
}

template <class T>
inline void write_dense_statistics(const DenseProblem& problem, const DenseState<T>& state,
                                   bool of_pairs) {
  RowTotals all;
  double valid = 0;
  ExactSum sum_ap, sum_an, norms;
  for (int32_t i = 0; i < state.query.n; ++i) {
    const RowTotals& row = state.totals[i];
    valid += of_pairs ? row.n_ap > 0 && row.n_an > 0 : row.members > 0;
    all.members += row.members;
    all.live += row.live;
    all.n_ap += row.n_ap;
    all.n_an += row.n_an;
    sum_ap.add(row.sum_ap);
    sum_an.add(row.sum_an);
    all.max_ap = row.max_ap > all.max_ap || row.max_ap != row.max_ap ? row.max_ap : all.max_ap;
    all.min_an = row.min_an < all.min_an || row.min_an != row.min_an ? row.min_an : all.min_an;
  }
  for (int64_t i = 0; i < problem.query.n; ++i) norms.add(state.query.norm[i]);
  const auto mean = [](double sum, double count) { return count == 0 ? 0 : sum / count; };
  const double stats[7] = {valid,
                           mean(all.live, all.members),
                           mean(sum_ap.value(), all.n_ap),
                           mean(sum_an.value(), all.n_an),
                           all.n_ap == 0 ? 0 : all.max_ap,
                           all.n_an == 0 ? 0 : all.min_an,
                           mean(norms.value(), static_cast<double>(problem.query.n))};
  for (int s = 0; s < 7; ++s) problem.stats[s] = stats[s];
}

template <class T>
inline void write_dense_value(const DenseProblem& problem, const DenseState<T>& state,
                              DenseReduction reduction, const KindScales& scales,
                              const DenseTotals& totals) {
  auto* out = static_cast<T*>(problem.out);
  if (out == nullptr) return;
  if (reduction != DenseReduction::none) {
    const auto part = [&](int kind) {
      return scales.kind[kind] == 0 ? 0 : totals.term[kind] * scales.kind[kind];
    };
    *out = static_cast<T>(part(0) + part(1));
    return;
  }
  for (int64_t i = 0; i < problem.query.n; ++i) out[i] = 0;
  for (int32_t i = 0; i < state.query.n; ++i) {
    out[state.order.query[i]] = static_cast<T>(state.totals[i].term[0] + state.totals[i].term[1]);
  }
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
