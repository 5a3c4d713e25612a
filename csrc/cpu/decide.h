// SPDX-License-Identifier: BSD-3-Clause
// Makes the choices of a query among the candidates that tiles left: one needs no key, more are
// compared by their keys, and so is every reference that tiles do not know.
#pragma once

#include "duplicates.h"
#include "kernels.h"
#include "reduce_rows.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

template <class T>
struct MineState {
  Order order{};
  Ranked<T> query{};
  Ranked<T> ref{};  // unused when symmetric
  Frame<T> frame{};
  Chooser<T> chooser{};
  uint64_t* query_words = nullptr;  // multi-hot labels as bits
  uint64_t* ref_words = nullptr;
  int64_t words = 0;
  int32_t* irregular = nullptr;  // sorted positions of references that are not in the tiles,
  int32_t n_irregular = 0;       //   in the order of the original rows
  Duplicates duplicates{};
  int threads = 1;

  const Ranked<T>& references(const MineProblem& problem) const {
    return problem.symmetric ? query : ref;
  }
};

template <class T, class Relation>
struct Decision {
  const MineProblem& problem;
  const MineState<T>& state;
  const Relation& relation;

  inline void decide(int64_t begin, int64_t end) const {
    Tally tally;
    for (int64_t i = begin; i < end; ++i) decide_row(static_cast<int32_t>(i), tally);
    state.chooser.count(tally.candidates, tally.keys);
    __atomic_fetch_add(&call_counters.brute_rows, tally.brute_rows, __ATOMIC_RELAXED);
  }

 private:
  struct Tally {
    int64_t candidates = 0, keys = 0, brute_rows = 0;
  };

  // The choices that are not given up; with the last tiles, those that were.
  FM_INLINE void decide_row(int32_t i, Tally& tally) const {
    const int32_t row = state.order.query[i];
    BestPair best[2];
    bool wanted[2] = {!state.chooser.last, !state.chooser.last};
    if (!state.frame.regular(state.query.norm[row])) {
      if (state.chooser.last) return;
      compare_all(i, best);
      ++tally.brute_rows;
    } else {
      for (int role = 0; role < 2; ++role) {
        wanted[role] = state.chooser.role[role].given_up(i) == state.chooser.last;
        if (wanted[role]) compare_survivors(i, role, best[role], tally);
      }
      if (wanted[kPositive] || wanted[kNegative]) offer_irregular(i, best);
    }
    if (wanted[kPositive]) problem.positive[row] = best[kPositive].row;
    if (wanted[kNegative]) problem.negative[row] = best[kNegative].row;
  }

  FM_INLINE void compare_survivors(int32_t i, int role, BestPair& best, Tally& tally) const {
    const int count = state.chooser.survivors(role, i);
    if (count == 1 && state.n_irregular == 0) {
      const Candidate<T>& only = state.chooser.role[role].list[int64_t{i} * kList];
      best.row = state.order.ref[only.column];
      ++tally.candidates;
      return;
    }
    const int keys = state.chooser.compare_listed(role, i, count, best);
    tally.candidates += keys;
    if (count > 1) tally.keys += keys;
  }

  FM_INLINE void offer(int32_t i, int32_t j, int role, BestPair& best) const {
    best.offer(state.chooser.signed_key(role, i, j), state.order.ref[j]);
  }

  // Ascending original rows: the first NaN key is final, so a batch of NaN stays cheap.
  void offer_irregular(int32_t i, BestPair (&best)[2]) const {
    for (int32_t at = 0; at < state.n_irregular; ++at) {
      const int32_t j = state.irregular[at];
      const Role role = relation.role(i, j);
      if (role != kNeither && !best[role].is_nan()) offer(i, j, role, best[role]);
      if (best[kPositive].is_nan() && best[kNegative].is_nan()) return;
    }
  }

  void compare_all(int32_t i, BestPair (&best)[2]) const {
    for (int64_t row = 0; row < problem.ref.n; ++row) {
      const int32_t j = state.order.ref_position[row];
      const Role role = j < 0 ? kNeither : relation.role(i, j);
      if (role != kNeither && !best[role].is_nan()) offer(i, j, role, best[role]);
      if (best[kPositive].is_nan() && best[kNegative].is_nan()) return;
    }
  }
};

// Redundant references keep their place in the tiles and lose their chance.
template <class T>
inline void drop_redundant(const Order& order, const Duplicates& duplicates, const Ranked<T>& ref) {
  for (int32_t j = 0; j < ref.n; ++j) {
    for (int role = 0; role < 2; ++role) {
      if ((duplicates.redundant[order.ref[j]] >> role & 1) != 0) {
        ref.lower[role][j] = __builtin_huge_val();
      }
    }
  }
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
