// SPDX-License-Identifier: BSD-3-Clause
// Whether a unit leaves few enough candidates to be worth its speed: it is tried with some queries
// on some of the references, and what it leaves is counted.
//
// Why so: how wide the bound of 8 bits is beside the spread of the scores depends on the data. Of
// a thousand standard normal rows of 128 features it leaves 3 to 4 candidates a row; of 512
// features twice as many, and their keys take what faster tiles save.
//
// Blocks are whole and in the order of labels, so small classes are there as a whole, and evenly
// spaced, so there are negatives where classes are large. What is decided here changes the time of
// a call only.
#pragma once

#include "decide.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// 24 queries with AVX-512: the mean of their candidates is within a fifth of that of all.
constexpr int32_t kTrialRows = 2 * kTileRows;

// Fewer references do not repay a trial: 256 x 128 took 15 % longer, 512 x 128 as long, and
// 1024 x 128 5 % less (Zen 4).
constexpr int32_t kTrialRefs = 768;

// How many blocks of references are tried: a sixth of all, 2 to 6, which are 200 to 600 rows.
FM_INLINE int64_t trial_blocks(int64_t blocks) {
  const int64_t some = blocks / 6 < 2 ? 2 : blocks / 6 > 6 ? 6 : blocks / 6;
  return some < blocks ? some : blocks;
}

// How many candidates of a query are worth tiles of twice the speed of the next, if those err less,
// or of four times, if those are full. Per reference a query saves a 150th of what a key costs, for
// any number of features; but the offers of more than these, and the keys that make room for them,
// take what tiles of 512 features gain: 28.5 ms where bfloat16 takes 27 (4096 rows, Zen 4).
template <class Next>
FM_INLINE double worthwhile_candidates(int64_t refs) {
  constexpr double most = Next::full ? 12 : 6;
  const double many = 2 + static_cast<double>(refs) / 256;
  return many < most ? many : most;
}

// The rows of block 0 are open for candidates, the first `open` of them.
template <class T>
inline void open_first(const Frame<T>& frame, const Chooser<T>& chooser, int32_t open) {
  reset_choices(frame, chooser, 0, kBlock);
  for (int32_t i = open; i < kBlock; ++i) {
    for (const RowChoices<T>& role : chooser.role) role.threshold[i] = -Precision<T>::highest;
  }
}

// How many candidates the first rows keep of the tried references; -1 where one had too many.
template <class Tiles, class Miner, class Relation, class T>
inline int64_t tried_candidates(const MineProblem& problem, const Relation& relation,
                                const MineState<T>& state, int32_t rows) {
  const Ranked<T>& ref = state.references(problem);
  const KeyForm key = state.chooser.key;
  const int64_t all = blocks_of(ref.n);
  const int64_t tried = trial_blocks(all);
  const int64_t queries = problem.symmetric ? 0 : 1;
  parallel_tasks(state.threads, tried + queries, [&](int64_t task, int) {
    const bool query = task == tried;
    pack_block<Tiles, Miner>(key, state.frame, problem.dim, query ? 0 : task * all / tried,
                             query ? state.query : ref);
  });
  open_first(state.frame, state.chooser, rows);
  const RowReduction<Tiles, Miner, Relation> reduction{state.chooser, relation, problem.dim,
                                                       state.query.n, ref.n};
  parallel_tasks(state.threads, tried, [&](int64_t task, int) {
    Tiles::Session::begin();
    reduction.template visit_blocks<false>(0, task * all / tried);
    Tiles::Session::end();
  });
  int64_t candidates = 0;
  for (int32_t i = 0; i < rows; ++i) {
    for (int role = 0; role < 2; ++role) {
      if (state.chooser.role[role].given_up(i)) return -1;
      candidates += state.chooser.survivors(role, i);
    }
  }
  return candidates;
}

template <class Tiles, class Next, class Miner, class Relation, class T>
inline bool leaves_few(const MineProblem& problem, const Relation& relation,
                       const MineState<T>& state) {
  if (!Tiles::takes(problem.dim)) return false;
  if (trial_verdict != 0) return trial_verdict > 0;
  const int32_t refs = state.references(problem).n;
  const int32_t rows = kTrialRows < state.query.n ? kTrialRows : state.query.n;
  // Without bounds by keys (choice.h) more is left than a trial sees.
  const bool worth_a_trial = state.chooser.bounded && !state.frame.given && refs >= kTrialRefs;
  if (!worth_a_trial || rows == 0) return false;
  const int64_t candidates = tried_candidates<Tiles, Miner>(problem, relation, state, rows);
  return candidates >= 0 &&
         static_cast<double>(candidates) <= worthwhile_candidates<Next>(refs) * rows;
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
