// SPDX-License-Identifier: BSD-3-Clause
// Lists the triplets that a rule (list_rules.h) makes of each anchor's row of float64 keys.
//
// Algorithm: for each window of anchors: count roles -> bounds -> a region of the output for each;
// for each anchor (parallel): keys of its positives and negatives -> rule -> its region; then the
// regions move together.
//
// Semi-hard negatives are looked for in tiles first (beyond.h).
//
// Numerics: keys decide, and nothing else.
#pragma once

#include "beyond.h"
#include "exact_row.h"
#include "roles.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

constexpr int64_t kWindow = 1024;  // anchors whose regions are laid out together

// What one thread needs for one anchor.
struct AnchorScratch {
  int32_t* row[2];      // [n_ref]
  int32_t* sorted;      // [n_ref]
  double* key[2];       // [n_ref]
  double* distance[2];  // [n_ref]
  double* spare;        // [n_ref]
  double* keys;         // [n_ref] of all references
  double* query;        // [dim] the row of the anchor, widened
};

template <class T>
struct ListState {
  explicit ListState(const Comparison& problem) : roles(problem) {}
  Roles roles;
  RowView<T> query{}, ref{};
  double* norm[2] = {};
  int64_t* region = nullptr;  // [kWindow + 1]
  int64_t* listed = nullptr;  // [kWindow]
  AnchorScratch* scratch = nullptr;
  Beyond<T> beyond{};
  int threads = 1;
};

template <class T>
inline void lay_out_list(Arena& arena, const ListProblem& problem, int rule, bool slots,
                         ListState<T>& state) {
  const int64_t n_ref = problem.ref.n;
  if (slots) lay_out_beyond(arena, problem, rule, state.beyond);
  state.roles.lay_out(arena);
  state.norm[0] = take_numbers(arena, problem.query.n);
  state.norm[1] = problem.symmetric ? state.norm[0] : take_numbers(arena, n_ref);
  state.region = arena.take<int64_t>(kWindow + 1);
  state.listed = arena.take<int64_t>(kWindow);
  const int threads = problem.threads > 1 ? problem.threads : 1;
  state.scratch = arena.take<AnchorScratch>(threads);
  for (int thread = 0; thread < threads; ++thread) {
    AnchorScratch scratch{};
    for (int role = 0; role < 2; ++role) {
      scratch.row[role] = arena.take<int32_t>(n_ref);
      scratch.key[role] = arena.take<double>(n_ref);
      scratch.distance[role] = arena.take<double>(n_ref);
    }
    scratch.sorted = arena.take<int32_t>(n_ref);
    scratch.spare = arena.take<double>(n_ref);
    scratch.keys = arena.take<double>(n_ref);
    scratch.query = arena.take<double>(problem.dim);
    if (!arena.counting()) state.scratch[thread] = scratch;
  }
}

template <class T>
struct AnchorLister {
  const ListProblem& problem;
  const ListState<T>& state;
  KeyForm key;
  int rule;
  ListNeeds needs;

  FM_INLINE int64_t bound(int64_t i) const {
    if (!state.roles.kept(i)) return 0;
    if (state.beyond.found) return state.beyond.slots.n[state.beyond.position[i]];
    RoleLists count{};
    state.roles.split(i, count);
    return list_bound(rule, count.n[0], count.n[1], problem);
  }

  inline int64_t list(int64_t i, const AnchorScratch& scratch, int64_t at) const {
    if (state.beyond.found) {
      const int64_t listed =
          state.beyond.list(i, problem, problem.out[1] + at, problem.out[2] + at);
      if (listed >= 0) return listed;
    }
    RoleLists lists{{scratch.row[0], scratch.row[1]}, {}};
    state.roles.split(i, lists);
    AnchorRow anchor;
    anchor.anchor = i;
    anchor.dim = problem.dim;
    anchor.scratch = scratch.spare;
    anchor.margin = problem.margin_values == nullptr
                        ? problem.mining_margin
                        : problem.margin_values[i * problem.margin_stride];
    if (needs.measure != Measure::none) {
      row_keys(key, state.query, i, state.ref, 0, problem.ref.n, problem.dim, scratch.query,
               scratch.keys);
    }
    for (int role = 0; role < 2; ++role) {
      Side& side = role == 0 ? anchor.positive : anchor.negative;
      side = {lists.n[role], scratch.row[role], scratch.key[role], scratch.distance[role], nullptr};
      if (needs.measure != Measure::none) {
        measure(scratch.keys, side, scratch.key[role], scratch.distance[role]);
      }
    }
    if (needs.sorted && anchor.positive.n > kScannedPositives) {
      sort_by_key(anchor.negative.key, anchor.negative.n, scratch.sorted);
      anchor.negative.sorted = scratch.sorted;
    }
    return list_anchor(rule, anchor, problem, problem.out[1] + at, problem.out[2] + at);
  }

 private:
  FM_INLINE void measure(const double* all, const Side& side, double* keys,
                         double* distance) const {
    for (int64_t j = 0; j < side.n; ++j) keys[j] = all[side.row[j]];
    if (needs.measure == Measure::distance) {
      for (int64_t j = 0; j < side.n; ++j) distance[j] = key.value(keys[j]);
    } else if (needs.measure == Measure::sphere) {
      for (int64_t j = 0; j < side.n; ++j) distance[j] = square_root(keys[j]);
    }
  }
};

template <class T>
inline void measure_list(KeyForm key, const ListProblem& problem, ListState<T>& state) {
  state.query = view_of<T>(problem.query, state.norm[0]);
  state.ref = view_of<T>(problem.ref, state.norm[1]);
  for (int set = 0; set < (problem.symmetric ? 1 : 2); ++set) {
    if (!key.needs_norms() && !key.needs_means()) break;
    const RowView<T>& rows = set == 0 ? state.query : state.ref;
    const int64_t n = set == 0 ? problem.query.n : problem.ref.n;
    parallel_ranges(state.threads, n, 64, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) measure_row(key, rows, i, problem.dim);
    });
  }
}

// The anchors from `first` whose bounds fit behind the triplets already listed.
template <class Lister>
inline int64_t lay_out_window(const Lister& lister, int64_t first) {
  const ListProblem& problem = lister.problem;
  const int64_t left = problem.query.n - first;
  const int64_t anchors = left < kWindow ? left : kWindow;
  int64_t* region = lister.state.region;
  parallel_ranges(lister.state.threads, anchors, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t a = begin; a < end; ++a) region[a + 1] = lister.bound(first + a);
  });
  region[0] = problem.count;
  int64_t fitting = 0;
  for (; fitting < anchors; ++fitting) {
    region[fitting + 1] += region[fitting];
    if (region[fitting + 1] > problem.capacity) break;
  }
  return fitting;
}

template <class Lister>
inline void list_window(const Lister& lister, int64_t first, int64_t anchors,
                        ListProblem& problem) {
  const auto& state = lister.state;
  parallel_ranges(state.threads, anchors, 4, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t a = begin; a < end; ++a) {
      const bool any = state.region[a + 1] > state.region[a];
      state.listed[a] = any ? lister.list(first + a, state.scratch[thread], state.region[a]) : 0;
    }
  });
  for (int64_t a = 0; a < anchors; ++a) {
    for (int64_t t = 0; t < state.listed[a]; ++t, ++problem.count) {
      problem.out[0][problem.count] = first + a;
      for (int role = 1; role < 3; ++role) {
        problem.out[role][problem.count] = problem.out[role][state.region[a] + t];
      }
    }
  }
}

template <class T>
inline void list_rows(KeyForm named, ListProblem& problem, int rule) {
  Arena arena(problem.workspace);
  ListState<T> state(problem);
  const bool slots = named.of_products() && has_slots(problem, rule);
  lay_out_list(arena, problem, rule, slots, state);
  if (arena.counting()) {
    problem.workspace.bytes = arena.bytes();
    return;
  }
  const double work = static_cast<double>(problem.query.n) * static_cast<double>(problem.ref.n) *
                      static_cast<double>(problem.dim);
  state.threads = threads_for(work, problem.threads);
  const ListNeeds needs = list_needs(rule, problem);
  const KeyForm key =
      needs.measure == Measure::sphere ? KeyForm{Form::difference, false, true} : named;
  measure_list(key, problem, state);
  state.roles.build();
  if (slots) find_beyond(key, state.threads, state.beyond);
  const AnchorLister<T> lister{problem, state, key, rule, needs};
  problem.count = problem.needed = 0;
  for (problem.end = problem.begin; problem.end < problem.query.n;) {
    const int64_t anchors = lay_out_window(lister, problem.end);
    list_window(lister, problem.end, anchors, problem);
    problem.end += anchors;
    if (anchors < kWindow && problem.end < problem.query.n) {
      problem.needed = lister.bound(problem.end);
      break;
    }
  }
  __atomic_fetch_add(&call_counters.list_triplets, int64_t{1}, __ATOMIC_RELAXED);
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
