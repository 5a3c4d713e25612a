// SPDX-License-Identifier: BSD-3-Clause
// What a dense loss asks for: its state from the problem, and how that lies in the workspace.
#pragma once

#include "dense_stages.h"
#include "dense_totals.cuh"
#include "marked.h"

namespace flashmetric::cuda {

// Memory for the rows of a chunk where they are seldom asked for: each chunk is six launches for
// nothing. Memory of a batch of 16384 x 128 is 203 MiB in all; with twice as much here 347.
constexpr int64_t kSeldomBytes = int64_t{128} << 20;
// Blocks that have a list: four for each multiprocessor of an H100.
constexpr int64_t kMostLists = 528;

inline int64_t in_tiles(int64_t rows) { return (rows + kTile - 1) / kTile * kTile; }

inline DenseRule rule_of(const DenseProblem& problem) {
  if (problem.loss == "contrastive" || problem.loss == "online_contrastive") {
    return DenseRule::contrastive;
  }
  if (problem.loss == "soft") return DenseRule::soft;
  if (problem.loss == "semihard") return DenseRule::semihard;
  return problem.soft_margin ? DenseRule::softplus : DenseRule::hinges;
}

inline void take_numbers_of(const DenseProblem& problem, DenseState& state) {
  state.margin = {problem.margin, problem.margin_values, problem.margin_stride};
  state.mining_margin = {problem.mining_margin, problem.mining_margin_values,
                         problem.mining_margin_stride};
  state.weight = {1, problem.weights, 1};
  state.squared = problem.power == 2;
  state.soft_margin = problem.soft_margin;
  state.drop = problem.drop_without_semihard;
  state.uncovered = problem.uncovered;
  state.factor = problem.factor;
  state.temperature = problem.temperature;
  state.detach_weights = problem.detach_weights;
  state.bounds = problem.bounds;
  state.cotangent = problem.cotangent;
  state.cotangent_stride = problem.cotangent_stride;
  state.out = problem.out;
  state.stats = problem.stats;
  for (int side = 0; side < 2; ++side) state.grad[side] = problem.grad[side];
}

inline DenseState dense_state(const DenseProblem& problem, const Names& names, DenseRule rule,
                              int64_t memory) {
  DenseState state;
  static_cast<Compared&>(state) = compared_of(problem, names);
  take_numbers_of(problem, state);
  visit_by_index(Distances{}, names.distance,
                 [&](auto policy) { state.curve = decltype(policy)::curve; });
  state.set = TripletRange(problem.loss);
  state.online = problem.loss == "online_contrastive";
  state.reduction = names.dense_reduction;
  state.of_pairs = rule == DenseRule::contrastive;
  state.by_kind = state.of_pairs && !state.online;
  state.scaled = state.by_kind;
  state.mirrored = state.of_pairs && problem.symmetric && !state.key.relative &&
                   problem.labels.relation != Relation::mask;
  const bool products = state.key.of_products() && !state.key.relative && problem.dim > 0;
  state.packed = products && problem.dtype == DType::float32;
  state.wide = !state.packed || rule == DenseRule::softplus || rule == DenseRule::soft;
  state.width = (problem.dim + kProducts - 1) / kProducts * kProducts;
  state.rows[0].padded = in_tiles(problem.query.n);
  state.rows[1].padded = in_tiles(problem.ref.n);
  state.stride = state.rows[1].padded;
  const int64_t bytes = state.stride * (state.wide ? sizeof(double) : sizeof(float));
  const int64_t fitting = bytes > 0 ? memory / bytes / kTile * kTile : kTile;
  state.chunk = fitting > kTile ? fitting : kTile;
  if (state.chunk > state.rows[0].padded) state.chunk = state.rows[0].padded;
  return state;
}

inline bool wants_gradient(const DenseState& state) {
  return state.grad[0] != nullptr || state.grad[1] != nullptr;
}

inline void lay_out_sums(Arena& arena, DenseState& state) {
  const bool one_set = state.labels.symmetric;
  for (int side = 0; side < 2; ++side) {
    const bool shared = side == 1 && one_set;
    const int64_t rows = side == 0 ? state.query.n : state.ref.n;
    state.sums[side] = shared ? state.sums[0] : arena.take<double>(rows * state.dim);
    state.weights[side] = shared ? state.weights[0] : arena.take<double>(rows);
  }
}

// What must be zero before the first kernel: laid out first, so that one call clears it.
inline void lay_out_zeros(Arena& arena, DenseState& state) {
  state.tally = arena.take<Tally>(1);
  if (wants_gradient(state) && !state.packs_zeros()) lay_out_sums(arena, state);
}

inline void lay_out_packed(Arena& arena, DenseState& state) {
  for (int side = 0; side < (state.labels.symmetric ? 1 : 2); ++side) {
    PackedRows& set = state.rows[side];
    set.y = arena.take<float>(set.padded * state.width);
    set.half = arena.take<float>(set.padded);
    set.slack = arena.take<float>(set.padded);
  }
  if (state.labels.symmetric) state.rows[1] = state.rows[0];
  state.words = arena.take<WordBound>(state.stride / kWarp);
  state.scale = arena.take<HalfScale>(1);
}

inline void lay_out_totals(Arena& arena, DenseState& state) {
  state.totals = arena.take<RowTotals>(state.query.n);
  state.block_sums = arena.take<ExactSum>(kTotalBlocks * kQuantities);
  state.counted = arena.take<DenseTotals>(1);
  state.scales = arena.take<KindScales>(1);
}

inline void lay_out_marked(Arena& arena, MarkedTiles& tiles, const DeviceFacts& facts,
                           DenseState& state) {
  tiles.lay_out_rest(arena, state);
  lay_out_packed(arena, state);
  for (int kind = 0; kind < 2 && wants_gradient(state); ++kind) {
    state.sums[kind] = arena.take<double>(state.query.n * state.dim);
    state.weights[kind] = arena.take<double>(state.query.n);
  }
  lay_out_totals(arena, state);
  tiles.lay_out_marks(arena, state, facts);
}

inline void lay_out_rest(Arena& arena, DenseRule rule, const DeviceFacts& facts,
                         DenseState& state) {
  lay_out_numbers(arena, state);
  if (state.packed) lay_out_frame(arena, state);
  if (state.packed) lay_out_packed(arena, state);
  if (wants_gradient(state) && state.packs_zeros()) lay_out_sums(arena, state);
  const int64_t slots = state.chunk * state.stride;
  state.slots = state.wide ? static_cast<void*>(arena.take<double>(slots))
                           : static_cast<void*>(arena.take<float>(slots));
  for (uint32_t** bits : {&state.positive, &state.negative, &state.near, &state.weighed}) {
    *bits = arena.take<uint32_t>(slots / kWarp);
  }
  if (lists_positives(rule) && state.ref.n > 0) {
    const int64_t bytes = state.ref.n * (2 * sizeof(double) + 2 * sizeof(int32_t));
    state.lists = kept_bytes(facts) / bytes;
    state.lists = state.lists < kMostLists ? state.lists : kMostLists;
    state.lists = state.lists < state.chunk ? state.lists : state.chunk;
    state.lists = state.lists > 1 ? state.lists : 1;
    state.list_value = arena.take<double>(state.lists * state.ref.n);
    state.list_row = arena.take<int32_t>(state.lists * state.ref.n);
    state.list_offer = arena.take<unsigned long long>(state.lists * state.ref.n);
    state.list_best = arena.take<int32_t>(state.lists * state.ref.n);
  }
  if (state.packed && wants_gradient(state)) {
    const int64_t rows = partial_rows(state, facts.multiprocessors);
    state.partial = arena.take<double>(rows * (state.dim + 1));
    state.touched = arena.take<int32_t>(rows);
  }
  lay_out_totals(arena, state);
}

}  // namespace flashmetric::cuda
