// SPDX-License-Identifier: BSD-3-Clause
// Computes a triplet loss over given triplets, its statistics and the gradient of every row.
//
// Algorithm:
//   for each triplet: float64 keys of its pairs -> distances -> loss, slopes           (parallel)
//   sums over triplets, compensated, in order -> the scalar loss and its denominator   (serial)
//   the gradient of every row from the pairs it is in                           (pair_gradient.h)
//
// Numerics: everything between the rows and the results is float64.
#pragma once

#include "../exact_sum.h"
#include "pair_gradient.h"
#include "threads.h"
#include "triplet_terms.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

template <class T>
inline double sum_terms(const TripletProblem& problem, Reduction reduction,
                        const TripletState<T>& state) {
  ExactSum total;
  ExactSum counted;
  ExactSum active;
  for (int64_t t = 0; t < problem.n; ++t) {
    const double weight = problem.weights == nullptr ? 1.0 : problem.weights[t];
    total.add(state.term[t]);
    if ((state.flags[t] & kCounted) != 0) counted.add(weight);
    if ((state.flags[t] & kActive) != 0) active.add(weight);
  }
  if (problem.totals != nullptr) {
    problem.totals[0] = total.value();
    problem.totals[1] = counted.value();
    problem.totals[2] = active.value();
  }
  const double divisor = reduction == Reduction::sum           ? 1
                         : reduction == Reduction::mean_active ? active.value()
                                                               : counted.value();
  const double scale = divisor == 0 ? 0 : 1 / divisor;
  const double loss = divisor == 0 ? 0 : total.value() / divisor;
  *static_cast<T*>(problem.loss) = static_cast<T>(loss);
  return scale;
}

template <class T>
inline void write_statistics(const TripletProblem& problem, const TripletState<T>& state) {
  double valid = 0;
  double active = 0;
  double farthest = 0;
  double nearest = 0;
  ExactSum sum_ap;
  ExactSum sum_an;
  ExactSum norms;
  for (int64_t t = 0; t < problem.n; ++t) {
    if ((state.flags[t] & kValid) == 0) continue;
    const double d_ap = state.distance[kAP][t];
    const double d_an = state.distance[kAN][t];
    // The negated comparisons let NaN win, as torch.max and torch.min do.
    if (valid == 0 || !(d_ap <= farthest)) farthest = farthest != farthest ? farthest : d_ap;
    if (valid == 0 || !(d_an >= nearest)) nearest = nearest != nearest ? nearest : d_an;
    valid += 1;
    active += (state.flags[t] & kActive) != 0;
    sum_ap.add(d_ap);
    sum_an.add(d_an);
  }
  const int64_t rows = problem.rows[0].n;
  for (int64_t i = 0; i < rows; ++i) norms.add(state.norm[0][i]);
  const double some = valid == 0 ? 1 : valid;
  const double stats[7] = {valid,
                           active / some,
                           sum_ap.value() / some,
                           sum_an.value() / some,
                           farthest,
                           nearest,
                           norms.value() / (rows == 0 ? 1 : static_cast<double>(rows))};
  for (int s = 0; s < 7; ++s) problem.stats[s] = stats[s];
}

// The pairs of the triplets, by Pair.
template <class T>
FM_INLINE PairGradient<T> pairs_of_triplets(const TripletProblem& problem,
                                            const TripletState<T>& state, KeyForm key,
                                            double scale) {
  constexpr int roles[3][2] = {{0, 1}, {0, 2}, {1, 2}};
  PairGradient<T> gradient{state.rows,   problem.first_role, 3,   {},          problem.swap ? 3 : 2,
                           problem.n,    problem.dim,        key, state.pairs, scale,
                           state.threads};
  for (int pair = 0; pair < gradient.families; ++pair) {
    const int x = roles[pair][0];
    const int r = roles[pair][1];
    gradient.family[pair] = {{x, r}, {problem.index[x], problem.index[r]}, state.coefficient[pair]};
  }
  return gradient;
}

// For reduction "none": the losses themselves, and the caller's cotangent into the slopes.
template <class T>
inline void keep_terms(const TripletProblem& problem, const TripletState<T>& state) {
  const auto* cotangent = static_cast<const T*>(problem.cotangent);
  for (int64_t t = 0; t < problem.n; ++t) {
    if (problem.loss != nullptr) static_cast<T*>(problem.loss)[t] = static_cast<T>(state.term[t]);
    if (cotangent == nullptr) continue;
    for (double* coefficient : state.coefficient) {
      if (coefficient[t] != 0)
        coefficient[t] *= static_cast<double>(cotangent[t * problem.cotangent_stride]);
    }
  }
}

template <class T, class Loss>
inline void triplet_loss(KeyForm key, Reduction reduction, TripletProblem& problem) {
  Arena arena(problem.workspace);
  TripletState<T> state;
  lay_out_triplet(arena, problem, state);
  if (arena.counting()) {
    problem.workspace.bytes = arena.bytes();
    return;
  }
  const double work =
      kPairWork * 2 * static_cast<double>(problem.n) * static_cast<double>(problem.dim);
  state.threads = threads_for(work, problem.threads);
  measure_sets(key, problem, state);
  const TripletTerms<T, Loss> terms{problem, state, key};
  parallel_ranges(state.threads, problem.n, 64, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) terms.evaluate(t);
  });
  double scale = 1;
  if (reduction == Reduction::none) {
    keep_terms(problem, state);
  } else {
    scale = sum_terms(problem, reduction, state);
  }
  if (problem.stats != nullptr) write_statistics(problem, state);
  const PairGradient<T> gradient = pairs_of_triplets(problem, state, key, scale);
  for (int set = 0; set < 3; ++set) {
    if (problem.first_role[set] == set && problem.grad[set] != nullptr) {
      gradient.gather(set, problem.rows[set].n, static_cast<T*>(problem.grad[set]));
    }
  }
  __atomic_fetch_add(&call_counters.triplet, int64_t{1}, __ATOMIC_RELAXED);
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
