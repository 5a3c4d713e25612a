// SPDX-License-Identifier: BSD-3-Clause
// Computes the distances of given pairs of rows, or, from their cotangents, the gradients of the
// rows. Between the rows and the results everything is float64.
#pragma once

#include "kernels.h"
#include "pair_gradient.h"
#include "threads.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

template <class T>
struct PairedState {
  RowView<T> rows[2]{};
  double* norm[2] = {};           // [rows]
  double* coefficient = nullptr;  // [n]
  PairScratch scratch;
  int threads = 1;
};

template <class T>
inline void lay_out_paired(Arena& arena, const PairedProblem& problem, PairedState<T>& state) {
  const Rows* rows[2] = {&problem.x, &problem.r};
  for (int side = 0; side < 2; ++side) {
    state.norm[side] =
        side == 1 && problem.shared ? state.norm[0] : take_numbers(arena, rows[side]->n);
    state.rows[side] = view_of<T>(*rows[side], state.norm[side]);
  }
  if (problem.cotangent == nullptr) return;
  state.coefficient = arena.take<double>(problem.n);
  const int64_t most = problem.x.n > problem.r.n ? problem.x.n : problem.r.n;
  state.scratch = lay_out_pairs(arena, most, 1, problem.n, problem.dim, problem.threads);
}

template <class T>
struct PairedTerms {
  const PairedProblem& problem;
  const PairedState<T>& state;
  KeyForm key;

  // A pair with a row below 0 is none; beyond the rows it is NaN, which shows and does not crash.
  FM_INLINE void evaluate(int64_t t) const {
    const int64_t i = problem.index[0] == nullptr ? t : problem.index[0][t];
    const int64_t j = problem.index[1] == nullptr ? t : problem.index[1][t];
    const bool none = i < 0 || j < 0;
    const bool outside = !none && (i >= problem.x.n || j >= problem.r.n);
    const bool real = !none && !outside;
    const double pair = real ? pair_key(key, state.rows[0], i, state.rows[1], j, problem.dim) : 0.0;
    if (problem.cotangent == nullptr) {
      const double distance = real ? key.value(pair) : outside ? __builtin_nan("") : 0.0;
      static_cast<T*>(problem.out)[t] = static_cast<T>(distance);
      return;
    }
    const auto* cotangent = static_cast<const T*>(problem.cotangent);
    const auto weight = static_cast<double>(cotangent[t * problem.cotangent_stride]);
    state.coefficient[t] = real && weight != 0 ? weight * key.slope(pair) : 0.0;
  }
};

template <class T>
inline void measure_paired(KeyForm key, const PairedProblem& problem, const PairedState<T>& state) {
  if (!key.needs_norms() && !key.needs_means()) return;
  for (int side = 0; side < (problem.shared ? 1 : 2); ++side) {
    const int64_t rows = side == 0 ? problem.x.n : problem.r.n;
    parallel_ranges(state.threads, rows, 64, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        measure_row(key, state.rows[side], i, problem.dim);
      }
    });
  }
}

template <class T>
inline void paired_distances(KeyForm key, PairedProblem& problem) {
  Arena arena(problem.workspace);
  PairedState<T> state;
  lay_out_paired(arena, problem, state);
  if (arena.counting()) {
    problem.workspace.bytes = arena.bytes();
    return;
  }
  const double work = kPairWork * static_cast<double>(problem.n) * static_cast<double>(problem.dim);
  state.threads = threads_for(work, problem.threads);
  measure_paired(key, problem, state);
  const PairedTerms<T> terms{problem, state, key};
  parallel_ranges(state.threads, problem.n, 64, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) terms.evaluate(t);
  });
  const int set_of_role[2] = {0, problem.shared ? 0 : 1};
  const PairGradient<T> gradient{
      state.rows,
      set_of_role,
      2,
      {{{0, 1}, {problem.index[0], problem.index[1]}, state.coefficient}},
      1,
      problem.n,
      problem.dim,
      key,
      state.scratch,
      1.0,
      state.threads};
  for (int set = 0; set < 2; ++set) {
    if (problem.grad[set] == nullptr) continue;
    gradient.gather(set, set == 0 ? problem.x.n : problem.r.n, static_cast<T*>(problem.grad[set]));
  }
  __atomic_fetch_add(&call_counters.paired, int64_t{1}, __ATOMIC_RELAXED);
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
