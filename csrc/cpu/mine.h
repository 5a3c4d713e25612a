// SPDX-License-Identifier: BSD-3-Clause
// Mines per anchor: order -> prepare -> reduce_rows -> the best key among the surviving candidates.
// Units that may leave too many are tried on some rows first (trial.h).
// Choices that had too many are made once more, among the references that differ, by tiles of the
// dtype of the rows.
//
// Rows that tiles cannot rank (NaN, infinite or enormous values) never enter them: as references
// they are candidates of everybody, as queries they compare keys with everybody.
#pragma once

#include "decide.h"
#include "duplicates.h"
#include "threads.h"
#include "trial.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

template <class AllTiles, class T>
inline void lay_out_mine(Arena& arena, const MineProblem& problem, MineState<T>& state) {
  lay_out_order(arena, problem, state.order);
  lay_out_ranked<AllTiles>(arena, problem.query, problem.dim, state.query);
  if (!problem.symmetric) lay_out_ranked<AllTiles>(arena, problem.ref, problem.dim, state.ref);
  state.frame.centre = arena.take<T>(problem.dim);
  lay_out_chooser(arena, problem.query.n, state.chooser);
  state.irregular = arena.take<int32_t>(problem.ref.n);
  lay_out_duplicates(arena, problem, state.duplicates);
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

template <class AllTiles, class Miner, class T>
inline void prepare(KeyForm key, const MineProblem& problem, MineState<T>& state) {
  build_order(problem, state.order);
  Ranked<T>& query = state.query;
  Ranked<T>& ref = problem.symmetric ? state.query : state.ref;
  point_at_rows(problem.query, state.order.query, state.order.n_query, query);
  if (!problem.symmetric) point_at_rows(problem.ref, state.order.ref, state.order.n_ref, ref);
  measure_rows(key, query, problem.dim, state.threads);
  if (!problem.symmetric) measure_rows(key, ref, problem.dim, state.threads);
  choose_frame(key, query, ref, problem.dim, AllTiles::bfloat16, state.frame);

  state.chooser.key = key;
  state.chooser.dim = problem.dim;
  state.chooser.query = &query;
  state.chooser.ref = &ref;
  state.chooser.farthest[kPositive] = Miner::positive == Seek::farthest;
  state.chooser.farthest[kNegative] = Miner::negative == Seek::farthest;
  if (!key.of_products()) state.chooser.inner = inner_of(key);
  state.chooser.exponent = static_cast<T>(key.power);
  state.chooser.spread = score_spread<T>(key, static_cast<double>(problem.dim));
  const auto unit = static_cast<double>(state.frame.unit);
  state.chooser.bounded =
      key.of_products() && !key.relative && (key.form == Form::difference || key.equally_long());
  state.chooser.per_key = key.form == Form::difference ? unit * unit / 2 : unit * unit;
  state.chooser.base = key.form == Form::difference ? 0 : unit * unit;
  state.chooser.unit = unit;
  state.chooser.centre_norm = state.frame.centre_norm;
  state.chooser.rescored = &call_counters.rescored;
  state.chooser.candidates = &call_counters.candidates;
  for (int64_t row = 0; row < problem.ref.n; ++row) {
    const int32_t position = state.order.ref_position[row];
    if (position >= 0 && !state.frame.regular(ref.norm[row])) {
      state.irregular[state.n_irregular++] = position;
    }
  }
}

// Packs what tiles of one unit need, and bounds it.
template <class Tiles, class Miner, class T>
inline void pack_sets(const MineProblem& problem, const MineState<T>& state) {
  const KeyForm key = state.chooser.key;
  const int64_t query_blocks = blocks_of(state.query.n);
  const int64_t ref_blocks = problem.symmetric ? 0 : blocks_of(state.ref.n);
  parallel_tasks(state.threads, query_blocks + ref_blocks, [&](int64_t b, int) {
    if (b < query_blocks) {
      pack_block<Tiles, Miner>(key, state.frame, problem.dim, b, state.query);
    } else {
      pack_block<Tiles, Miner>(key, state.frame, problem.dim, b - query_blocks, state.ref);
    }
  });
}

// All rows are packed for a unit, and have no candidates.
template <class Tiles, class Miner, class T>
inline void open_all(const MineProblem& problem, const MineState<T>& state) {
  pack_sets<Tiles, Miner>(problem, state);
  reset_choices(state.frame, state.chooser, 0, blocks_of(state.query.n) * kBlock);
}

// Ranks with one unit and makes the choices that this can make.
template <class Tiles, class Miner, class Relation, class T>
inline void reduce_and_decide(const MineProblem& problem, const Relation& relation, bool mirrored,
                              const MineState<T>& state) {
  const Ranked<T>& ref = state.references(problem);
  const RowReduction<Tiles, Miner, Relation> reduction{state.chooser, relation, problem.dim,
                                                       state.query.n, ref.n};
  const int64_t query_blocks = blocks_of(state.query.n);
  if (mirrored) {
    reduce_symmetric(reduction, query_blocks, state.threads);
  } else {
    reduce_rectangular(reduction, query_blocks, blocks_of(ref.n), state.threads);
  }
  const Decision<T, Relation> decision{problem, state, relation};
  parallel_ranges(state.threads, state.query.n, 64,
                  [&](int64_t begin, int64_t end, int) { decision.decide(begin, end); });
}

// Choices that `Tiles` had to give up are made by full tiles, and by keys where those cannot.
template <class Tiles, class Miner, class Relation, class T>
inline void rank(const MineProblem& problem, const Relation& relation, bool mirrored,
                 MineState<T>& state) {
  open_all<Tiles, Miner>(problem, state);
  reduce_and_decide<Tiles, Miner>(problem, relation, mirrored, state);
  const int64_t open = reopen_choices(state.chooser);
  if (open == 0) return;
  __atomic_fetch_add(&call_counters.fallback_rows, open, __ATOMIC_RELAXED);
  state.chooser.last = true;
  find_duplicates(problem, state.order, state.duplicates);
  if constexpr (!Tiles::full) pack_sets<FullTiles<T>, Miner>(problem, state);
  drop_redundant(state.order, state.duplicates, state.references(problem));
  // A symmetric pass costs half of all tiles; passing by the rows that are not open saves more if
  // they are more than half.
  const bool most = 2 * open > state.query.n;
  reduce_and_decide<FullTiles<T>, Miner>(problem, relation, mirrored && most, state);
}

// By the first unit that is worth it.
template <class Miner, class Relation, class T, class Tiles>
inline void rank_by(Units<Tiles>, const MineProblem& problem, const Relation& relation,
                    bool mirrored, MineState<T>& state) {
  rank<Tiles, Miner>(problem, relation, mirrored, state);
}
template <class Miner, class Relation, class T, class Tiles, class Next>
inline void rank_by(Units<Tiles, Next>, const MineProblem& problem, const Relation& relation,
                    bool mirrored, MineState<T>& state) {
  if (leaves_few<Tiles, Next, Miner>(problem, relation, state)) {
    return rank<Tiles, Miner>(problem, relation, mirrored, state);
  }
  rank<Next, Miner>(problem, relation, mirrored, state);
}

template <class AllTiles, class Miner, class Relation, class T>
inline void mine_related(const MineProblem& problem, const Relation& relation,
                         bool relation_is_symmetric, MineState<T>& state) {
  for (int64_t row = 0; problem.labels.query_keep != nullptr && row < problem.query.n; ++row) {
    problem.positive[row] = problem.negative[row] = -2;
  }
  const bool mirrored = problem.symmetric && relation_is_symmetric;
  rank_by<Miner>(AllTiles{}, problem, relation, mirrored, state);
}

FM_INLINE double pair_count(const Comparison& problem) {
  return static_cast<double>(problem.query.n) * static_cast<double>(problem.ref.n);
}

// T: the dtype of the rows.
template <class T, class AllTiles, class Miner>
inline void mine_rows(KeyForm key, MineProblem& problem) {
  Arena arena(problem.workspace);
  MineState<T> state;
  lay_out_mine<AllTiles>(arena, problem, state);
  if (arena.counting()) {
    problem.workspace.bytes = arena.bytes();
    return;
  }
  const double work = pair_count(problem) * static_cast<double>(problem.dim);
  state.threads = threads_for(work, problem.threads);
  prepare<AllTiles, Miner>(key, problem, state);
  const Labels& labels = problem.labels;
  if (labels.relation == Relation::classes) {
    mine_related<AllTiles, Miner>(problem, SameClass{state.order}, true, state);
  } else if (labels.relation == Relation::either) {
    mine_related<AllTiles, Miner>(problem, SameAsEither{state.order}, false, state);
  } else if (labels.relation == Relation::multi_hot) {
    const auto* hot = static_cast<const uint8_t*>(labels.query);
    pack_labels(hot, labels.n_classes, state.order.query, state.order.n_query, state.words,
                state.query_words);
    if (!problem.symmetric) {
      pack_labels(static_cast<const uint8_t*>(labels.ref), labels.n_classes, state.order.ref,
                  state.order.n_ref, state.words, state.ref_words);
    }
    const ShareLabel relation(state.order, state.query_words, state.ref_words, state.words);
    mine_related<AllTiles, Miner>(problem, relation, true, state);
  } else {
    const SameMask relation(state.order, static_cast<const uint8_t*>(labels.query), problem.ref.n);
    mine_related<AllTiles, Miner>(problem, relation, false, state);
  }
  __atomic_fetch_add(&call_counters.mine, int64_t{1}, __ATOMIC_RELAXED);
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
