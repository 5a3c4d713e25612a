// SPDX-License-Identifier: BSD-3-Clause
// The triplet loss: terms and sums, then the gradient of every set of rows.
#include "gather_hubs.cuh"
#include "measure.cuh"
#include "scatter_pairs.cuh"
#include "stages.h"

namespace flashmetric::cuda {
namespace {

template <class T>
RowSets<T> sets_of(const TripletState& state) {
  return {{view_as<T>(state.rows[0]), view_as<T>(state.rows[1]), view_as<T>(state.rows[2])}};
}

template <class Launch>
void with_steps(const KeyFacts& key, const Launch& launch) {
  with_value<Steps::difference, Steps::product, Steps::any>(steps_of(key), launch);
}

// Of many rows one in 32 is a hub, or fewer; blocks without one must not delay those of rows.
unsigned hub_blocks_for(int64_t rows) {
  const unsigned some = blocks_for(rows, kWarp);
  return some < kHubBlocks ? some : kHubBlocks;
}

template <class T>
void launch_gradients_of(const TripletState& state, cudaStream_t stream, Launches& launches) {
  const RowSets<T> sets = sets_of<T>(state);
  for (int set = 0; set < 3; ++set) {
    if (state.first_role[set] != set || state.grad[set] == nullptr) continue;
    if (state.rows[set].n == 0 || state.dim == 0) continue;
    const int64_t rows = state.rows[set].n;
    const unsigned hub_blocks = state.touches[set].hubs == nullptr ? 0 : hub_blocks_for(rows);
    const unsigned blocks = hub_blocks + blocks_for(rows, kGatherWarps);
    with_steps(state.key, [&](auto steps) {
      start(launches, "gather_gradients", gather_gradients<T, steps.value>, blocks, kGatherThreads,
            0, stream, state, sets, set, hub_blocks);
    });
  }
}

// Pairs of a triplet that touch rows of a set through an index, so that one row may have many.
int indexed_touches(const TripletState& state, int set) {
  int touches = 0;
  for (int code = 0; code < 2 * (state.swap ? kPairs : kPairs - 1); ++code) {
    const int role = role_of(code / 2, code % 2);
    touches += state.first_role[role] == set && state.index[role] != nullptr;
  }
  return touches;
}

}  // namespace

TripletState triplet_state(const TripletProblem& problem, const Names& names) {
  TripletState state;
  state.key = {key_facts(names.distance, names.power, problem.normalize)};
  state.dim = problem.dim;
  state.n = problem.n;
  for (int role = 0; role < 3; ++role) {
    state.rows[role] = any_rows(problem.rows[role], problem.dtype);
    state.first_role[role] = problem.first_role[role];
    state.index[role] = problem.index[role];
    state.grad[role] = problem.grad[role];
  }
  state.margin = problem.margin;
  state.margin_values = problem.margin_values;
  state.margin_stride = problem.margin_stride;
  state.soft_margin = problem.soft_margin;
  state.swap = problem.swap;
  state.count_invalid = problem.count_invalid;
  state.far_from_none = problem.far_from_none;
  state.reduction = names.reduction;
  state.weights = problem.weights;
  state.cotangent = problem.cotangent;
  state.cotangent_stride = problem.cotangent_stride;
  state.loss = problem.loss;
  state.stats = problem.stats;
  state.totals = problem.totals;
  return state;
}

void lay_out_zeros(Arena& arena, const TripletProblem& problem, TripletState& state) {
  if (state.tally == nullptr) state.tally = arena.take<Tally>(1);
  for (int set = 0; set < 3; ++set) {
    if (state.first_role[set] != set || state.grad[set] == nullptr) continue;
    state.touches[set].count = arena.take<int32_t>(problem.rows[set].n);
    if (indexed_touches(state, set) > 0) {
      state.touches[set].last = arena.take<int32_t>(problem.rows[set].n);
    }
  }
}

void lay_out_rest(Arena& arena, const TripletProblem& problem, TripletState& state) {
  bool hubs = false;
  for (int set = 0; set < 3; ++set) {
    if (state.first_role[set] != set) continue;
    const int64_t rows = problem.rows[set].n;
    if (state.rows[set].numbers.norm == nullptr) {
      state.rows[set].numbers = take_numbers(arena, rows);
    }
    const int touches = indexed_touches(state, set);
    if (state.grad[set] == nullptr || touches == 0) continue;
    state.touches[set].touch = arena.take<uint32_t>(rows * kTouches);
    state.touches[set].hubs = arena.take<int32_t>(rows);
    state.touches[set].overflow = arena.take<Overflow>(touches * problem.n);
    hubs = true;
  }
  for (int role = 0; role < 3; ++role) {
    state.rows[role].numbers = state.rows[state.first_role[role]].numbers;
  }
  for (double*& keys : state.keys) keys = arena.take<double>(problem.n);
  for (double*& coefficient : state.coefficient) coefficient = arena.take<double>(problem.n);
  state.block_sums =
      arena.take<TripletSums>((problem.n + kTripletThreads - 1) / kTripletThreads + 1);
  state.scale = arena.take<double>(1);
  if (hubs) {
    state.hub_buffer = arena.take<double>(int64_t{kHubBlocks} * kGatherWarps * problem.dim);
  }
}

void launch_numbers(const KeyFacts& key, int64_t dim, const AnyRows& rows, cudaStream_t stream,
                    Launches& launches) {
  if (!launches.fine() || rows.n == 0) return;
  MineState measured;  // no tiles: only the numbers of rows
  measured.key = {key};
  measured.dim = dim;
  with_dtype(rows.dtype, [&](auto type) {
    measure_rows<<<blocks_for(rows.n, kMeasureThreads / 8), kMeasureThreads, 0, stream>>>(
        measured, view_as<decltype(type)>(rows), 0);
  });
  launches.check("measure_rows");
}

void launch_norms(const TripletState& state, cudaStream_t stream, Launches& launches) {
  const KeyFacts& key = state.key;
  for (int set = 0; set < 3; ++set) {
    const bool wanted =
        key.needs_norms() || key.needs_means() || (set == 0 && state.stats != nullptr);
    if (state.first_role[set] != set || !wanted) continue;
    launch_numbers(key, state.dim, state.rows[set], stream, launches);
  }
}

bool keeps_keys(const KeyFacts& key, DType dtype) {
  bool keeps = true;
  with_dtype(dtype, [&](auto type) { keeps = !value_differs<decltype(type)>(key); });
  return keeps;
}

void launch_triplets(const TripletState& state, bool known, cudaStream_t stream,
                     Launches& launches) {
  if (!launches.fine()) return;
  with_dtype(state.rows[0].dtype, [&](auto type) {
    using T = decltype(type);
    if (!known && state.n > 0) {
      start(launches, "write_keys", write_keys<T>, blocks_for(state.n, kKeyWarps),
            kKeyWarps * kWarp, 0, stream, state, sets_of<T>(state));
    }
    start(launches, "evaluate_triplets", evaluate_triplets, blocks_for(state.n, kTripletThreads),
          kTripletThreads, 0, stream, state);
  });
  launch_gradients(state, stream, launches);
}

void launch_gradients(const TripletState& state, cudaStream_t stream, Launches& launches) {
  if (!launches.fine()) return;
  with_dtype(state.rows[0].dtype,
             [&](auto type) { launch_gradients_of<decltype(type)>(state, stream, launches); });
}

}  // namespace flashmetric::cuda
