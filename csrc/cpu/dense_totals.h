// SPDX-License-Identifier: BSD-3-Clause
// From what each anchor adds to the value, the scales, and the statistics of a dense loss.
#pragma once

#include "dense_gradient.h"
#include "kernels.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

template <class T>
inline DenseSums add_rows(const DenseState<T>& state, bool of_pairs) {
  DenseSums sums;
  for (int32_t i = 0; i < state.query.n; ++i) sums.add(state.totals[i], of_pairs);
  return sums;
}

template <class T>
inline DenseTotals sum_rows(const DenseState<T>& state) {
  return add_rows(state, false).totals();
}

template <class T>
inline void write_dense_statistics(const DenseProblem& problem, const DenseState<T>& state,
                                   bool of_pairs) {
  DenseSums sums = add_rows(state, of_pairs);
  for (int64_t i = 0; i < problem.query.n; ++i) sums.norms.add(state.query.norm[i]);
  sums.write_statistics(problem.stats, problem.query.n);
}

template <class T>
inline void write_dense_value(const DenseProblem& problem, const DenseState<T>& state,
                              DenseReduction reduction, const KindScales& scales,
                              const DenseTotals& totals) {
  auto* out = static_cast<T*>(problem.out);
  if (out == nullptr) return;
  if (reduction != DenseReduction::none) {
    *out = static_cast<T>(scales.value_of(totals));
    return;
  }
  for (int64_t i = 0; i < problem.query.n; ++i) out[i] = 0;
  for (int32_t i = 0; i < state.query.n; ++i) {
    out[state.order.query[i]] = static_cast<T>(state.totals[i].term[0] + state.totals[i].term[1]);
  }
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
