// SPDX-License-Identifier: BSD-3-Clause
// The semi-hard negatives of a whole batch by tiles (reduce_slots.h), of all its positives or of
// one for each anchor (easy_hard), for listing: what list_rows.h otherwise finds in whole rows of
// float64 keys.
//
// Taken for distances of products, class ids and the usual threshold, the positive itself, as long
// as no class is larger than kMostSlots. Rows that tiles cannot rank (NaN, infinite or enormous
// values) send the batch back to the keys; so does, for itself, a row without a farther negative or
// full of near-ties.
#pragma once

#include "list_anchor.h"
#include "reduce_slots.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

template <class T>
struct Beyond {
  MineProblem problem{};  // the comparison, as `prepare` takes it
  MineState<T> mine{};
  Slots<T> slots{};
  int32_t* position = nullptr;  // [n_query] original row -> sorted position, -1: ignored
  bool found = false;
  bool one = false;           // each anchor has one positive: the
  bool farthest_one = false;  // farthest, or the nearest

  // Slots of the anchor at sorted position i.
  FM_INLINE int64_t positives(int32_t i) const {
    const Order& order = mine.order;
    const bool among = order.self[i] >= order.run_begin[i] && order.self[i] < order.run_end[i];
    return order.run_end[i] - order.run_begin[i] - (among ? 1 : 0);
  }
  FM_INLINE int64_t negatives(int32_t i) const {
    return mine.order.n_ref - positives(i) - (mine.order.self[i] >= 0 ? 1 : 0);
  }

  // The triplets of one anchor; -1: the keys of its whole row must say.
  inline int64_t list(int64_t anchor, const ListProblem& options, int64_t* positive,
                      int64_t* negative) const {
    const int32_t i = position[anchor];
    if (i < 0 || (negatives(i) == 0 && !options.uncovered)) return 0;
    if (slots.given_up(i)) return -1;
    const bool uncovered = negatives(i) == 0;
    int64_t listed = 0;
    for (int k = 0; k < slots.n[i]; ++k) {
      const int64_t row = uncovered ? -1 : slots.decide(i, k);
      if (row < 0 && !uncovered) {
        if (one || options.drop_without_semihard) continue;
        return -1;
      }
      positive[listed] = mine.order.ref[slots.column(i, k)];
      negative[listed++] = row;
    }
    return listed;
  }
};

inline bool is_easy_hard(int rule) { return rule == index_of_name(ListRules{}, EasyHard::name); }

// Whether the tiles are worth a try.
inline bool has_slots(const ListProblem& problem, int rule) {
  const bool every = rule == index_of_name(ListRules{}, SemiHard::name) && problem.hardness == 0.5;
  const bool one = is_easy_hard(rule) && problem.negative_mining == Strategy::semihard;
  return (every || one) && suits_slots(problem);
}

template <class T>
inline void lay_out_beyond(Arena& arena, const ListProblem& problem, int rule, Beyond<T>& beyond) {
  static_cast<Comparison&>(beyond.problem) = problem;
  beyond.one = is_easy_hard(rule);
  beyond.farthest_one = problem.positive_mining == Strategy::hard;
  lay_out_mine<Units<FullTiles<T>>>(arena, beyond.problem, beyond.mine);
  lay_out_slots(arena, problem.query.n, beyond.one ? 1 : largest_class(problem), beyond.slots);
  if (beyond.one) beyond.slots.chosen = arena.take<int32_t>(beyond.slots.stride);
  beyond.position = arena.take<int32_t>(problem.query.n);
}

template <class T>
inline bool all_regular(const Beyond<T>& beyond) {
  if (beyond.mine.n_irregular > 0) return false;
  const Ranked<T>& query = beyond.mine.query;
  for (int32_t i = 0; i < query.n; ++i) {
    if (!beyond.mine.frame.regular(query.norm[query.order[i]])) return false;
  }
  return true;
}

template <class T>
inline void count_slots(const Beyond<T>& beyond) {
  const Slots<T>& slots = beyond.slots;
  const Order& order = beyond.mine.order;
  for (int64_t row = 0; row < beyond.problem.query.n; ++row) beyond.position[row] = -1;
  for (int64_t group = 0; group < slots.stride / kTileCols<T>; ++group) slots.most_of[group] = 0;
  for (int32_t i = 0; i < slots.stride; ++i) {
    const int64_t positives = i < order.n_query ? beyond.positives(i) : 0;
    slots.n[i] = static_cast<uint8_t>(beyond.one && positives > 1 ? 1 : positives);
    if (i < order.n_query) beyond.position[order.query[i]] = i;
    uint8_t& most = slots.most_of[i / kTileCols<T>];
    most = slots.n[i] > most ? slots.n[i] : most;
  }
}

// The one positive of each anchor, by keys: equals by the lowest row.
template <class T>
inline void choose_positives(const Beyond<T>& beyond) {
  const Slots<T>& slots = beyond.slots;
  const int32_t n = beyond.mine.order.n_query;
  parallel_ranges(beyond.mine.threads, n, 64, [&](int64_t begin, int64_t end, int) {
    for (auto i = static_cast<int32_t>(begin); i < end; ++i) {
      const int64_t positives = beyond.positives(i);
      BestPair best;
      for (int k = 0; k < positives; ++k) {
        const int32_t j = slots.positive_column(i, k);
        const double key = slots.key_of(i, j);
        const int64_t row = beyond.mine.order.ref[j];
        best.offer(beyond.farthest_one ? -key : key, row);
        if (best.row == row) slots.chosen[i] = j;
      }
    }
  });
}

template <class T>
inline void find_beyond(KeyForm key, int threads, Beyond<T>& beyond) {
  beyond.mine.threads = threads;
  prepare<Units<FullTiles<T>>, BatchHard>(key, beyond.problem, beyond.mine);
  open_all<FullTiles<T>, BatchHard>(beyond.problem, beyond.mine);
  if (!all_regular(beyond)) return;
  beyond.slots.state = &beyond.mine;
  count_slots(beyond);
  if (beyond.one) choose_positives(beyond);
  const int64_t blocks = blocks_of(beyond.mine.query.n);
  const SlotReduction<T> reduction{beyond.slots, SameClass{beyond.mine.order}, beyond.problem.dim};
  parallel_tasks(threads, blocks, [&](int64_t b, int) { reduction.find_positives(b); });
  if (beyond.problem.symmetric) {
    reduce_symmetric(reduction, blocks, threads);
  } else {
    reduce_rectangular(reduction, blocks, blocks_of(beyond.mine.ref.n), threads);
  }
  beyond.found = true;
  __atomic_fetch_add(&call_counters.slots, int64_t{1}, __ATOMIC_RELAXED);
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
