// SPDX-License-Identifier: BSD-3-Clause
// Mines per anchor: order -> prepare -> reduce_rows -> the best key among the surviving candidates.
//
// Rows that tiles cannot rank (NaN, infinite or enormous values) never enter them: as references
// they are candidates of everybody, as queries they compare keys with everybody.
#pragma once

#include "kernels.h"
#include "reduce_rows.h"
#include "threads.h"

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
  int threads = 1;

  const Ranked<T>& references(const MineProblem& problem) const {
    return problem.symmetric ? query : ref;
  }
};

template <class T>
inline void lay_out_mine(Arena& arena, const MineProblem& problem, MineState<T>& state) {
  lay_out_order(arena, problem, state.order);
  lay_out_ranked(arena, problem.query, problem.dim, state.query);
  if (!problem.symmetric) lay_out_ranked(arena, problem.ref, problem.dim, state.ref);
  state.frame.centre = arena.take<T>(problem.dim);
  lay_out_chooser(arena, problem.query.n, state.chooser);
  state.irregular = arena.take<int32_t>(problem.ref.n);
  if (problem.labels.relation != Relation::multi_hot) return;
  state.words = (problem.labels.n_classes + 63) / 64;
  state.query_words = arena.take<uint64_t>(problem.query.n * state.words);
  state.ref_words =
      problem.symmetric ? state.query_words : arena.take<uint64_t>(problem.ref.n * state.words);
}

template <class T>
FM_INLINE void point_at_rows(const Rows& rows, const int32_t* order, int32_t n, Ranked<T>& set) {
  set.rows = view_of<T>(rows, set.norm);
  set.order = order;
  set.n = n;
}

template <class T, class Miner>
inline void prepare(KeyForm key, const MineProblem& problem, MineState<T>& state) {
  build_order(problem, state.order);
  Ranked<T>& query = state.query;
  Ranked<T>& ref = problem.symmetric ? state.query : state.ref;
  point_at_rows(problem.query, state.order.query, state.order.n_query, query);
  if (!problem.symmetric) point_at_rows(problem.ref, state.order.ref, state.order.n_ref, ref);
  measure_rows(key, query, problem.dim, state.threads);
  if (!problem.symmetric) measure_rows(key, ref, problem.dim, state.threads);
  choose_frame(key, query, ref, problem.dim, state.frame);

  state.chooser.key = key;
  state.chooser.dim = problem.dim;
  state.chooser.query = &query;
  state.chooser.ref = &ref;
  state.chooser.farthest[kPositive] = Miner::positive == Seek::farthest;
  state.chooser.farthest[kNegative] = Miner::negative == Seek::farthest;
  if (!key.of_products()) state.chooser.inner = inner_of(key);
  state.chooser.exponent = static_cast<T>(key.power);
  state.chooser.spread = score_spread<T>(key, static_cast<double>(problem.dim));
  state.chooser.rescored = &call_counters.rescored;
  const int64_t query_blocks = blocks_of(query.n);
  const int64_t ref_blocks = problem.symmetric ? 0 : blocks_of(ref.n);
  parallel_tasks(state.threads, query_blocks + ref_blocks, [&](int64_t b, int) {
    if (b < query_blocks) {
      pack_block<T, Miner>(key, state.frame, problem.dim, b, query);
      reset_choices(state.frame, b, state.chooser);
    } else {
      pack_block<T, Miner>(key, state.frame, problem.dim, b - query_blocks, ref);
    }
  });
  for (int64_t row = 0; row < problem.ref.n; ++row) {
    const int32_t position = state.order.ref_position[row];
    if (position >= 0 && !state.frame.regular(ref.norm[row])) {
      state.irregular[state.n_irregular++] = position;
    }
  }
}

// Both choices of one query among its candidates.
template <class T, class Relation>
struct Decision {
  const MineProblem& problem;
  const MineState<T>& state;
  const Relation& relation;

  FM_INLINE void decide(int32_t i) const {
    const int32_t row = state.order.query[i];
    BestPair best[2];
    if (!state.frame.regular(state.query.norm[row])) {
      compare_all(i, best);
      __atomic_fetch_add(&call_counters.brute_rows, int64_t{1}, __ATOMIC_RELAXED);
    } else {
      for (int role = 0; role < 2; ++role) compare_survivors(i, role, best[role]);
      offer_irregular(i, best);
    }
    problem.positive[row] = best[kPositive].row;
    problem.negative[row] = best[kNegative].row;
  }

 private:
  FM_INLINE void compare_survivors(int32_t i, int role, BestPair& best) const {
    const int count = state.chooser.survivors(role, i);
    const Candidate<T>* list = state.chooser.role[role].list + int64_t{i} * kList;
    if (count == 1 && state.n_irregular == 0) {
      best.row = state.order.ref[list[0].column];
      return;
    }
    for (int c = 0; c < count; ++c) offer(i, list[c].column, role, best);
    if (count > 1) state.chooser.count_rescored(count);
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

template <class T, class Miner, class Relation>
inline void reduce_and_decide(const MineProblem& problem, const Relation& relation,
                              bool relation_is_symmetric, const MineState<T>& state) {
  const Ranked<T>& ref = state.references(problem);
  const RowReduction<T, Miner, Relation> reduction{state.chooser, relation, problem.dim,
                                                   state.query.n, ref.n};
  const int64_t query_blocks = blocks_of(state.query.n);
  if (problem.symmetric && relation_is_symmetric) {
    reduce_symmetric(reduction, query_blocks, state.threads);
  } else {
    reduce_rectangular(reduction, query_blocks, blocks_of(ref.n), state.threads);
  }
  for (int64_t row = 0; problem.labels.query_keep != nullptr && row < problem.query.n; ++row) {
    problem.positive[row] = problem.negative[row] = -2;
  }
  const Decision<T, Relation> decision{problem, state, relation};
  parallel_ranges(state.threads, state.query.n, 64, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) decision.decide(static_cast<int32_t>(i));
  });
}

template <class T, class Miner>
inline void mine_rows(KeyForm key, MineProblem& problem) {
  Arena arena(problem.workspace);
  MineState<T> state;
  lay_out_mine(arena, problem, state);
  if (arena.counting()) {
    problem.workspace.bytes = arena.bytes();
    return;
  }
  const double work = static_cast<double>(problem.query.n) * static_cast<double>(problem.ref.n) *
                      static_cast<double>(problem.dim);
  state.threads = work < kSerialWork ? 1 : usable_threads(problem.threads);
  prepare<T, Miner>(key, problem, state);
  const Labels& labels = problem.labels;
  if (labels.relation == Relation::classes) {
    reduce_and_decide<T, Miner>(problem, SameClass{state.order}, true, state);
  } else if (labels.relation == Relation::either) {
    reduce_and_decide<T, Miner>(problem, SameAsEither{state.order}, false, state);
  } else if (labels.relation == Relation::multi_hot) {
    const auto* hot = static_cast<const uint8_t*>(labels.query);
    pack_labels(hot, labels.n_classes, state.order.query, state.order.n_query, state.words,
                state.query_words);
    if (!problem.symmetric) {
      pack_labels(static_cast<const uint8_t*>(labels.ref), labels.n_classes, state.order.ref,
                  state.order.n_ref, state.words, state.ref_words);
    }
    const ShareLabel relation(state.order, state.query_words, state.ref_words, state.words);
    reduce_and_decide<T, Miner>(problem, relation, true, state);
  } else {
    const SameMask relation(state.order, static_cast<const uint8_t*>(labels.query), problem.ref.n);
    reduce_and_decide<T, Miner>(problem, relation, false, state);
  }
  __atomic_fetch_add(&call_counters.mine, int64_t{1}, __ATOMIC_RELAXED);
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
