// SPDX-License-Identifier: BSD-3-Clause
// The semi-hard loss of small classes: prepare -> bounds of the positives -> tiles look beyond them
// -> keys choose -> the loss of given triplets.
#include "semihard.h"
#include "semihard_choose.cuh"
#include "semihard_keys.cuh"
#include "semihard_loss.cuh"
#include "semihard_thresholds.cuh"
#include "tiles.h"

namespace flashmetric::cuda {
namespace {

Reduction reduction_of(DenseReduction named) {
  switch (named) {
    case DenseReduction::mean_active:
      return Reduction::mean_active;
    case DenseReduction::sum:
      return Reduction::sum;
    case DenseReduction::none:
      return Reduction::none;
    default:
      return Reduction::mean;
  }
}

TripletProblem terms_of(const DenseProblem& problem) {
  TripletProblem terms;
  terms.distance = problem.distance;
  terms.normalize = problem.normalize;
  terms.dtype = problem.dtype;
  terms.dim = problem.dim;
  for (int role = 0; role < 3; ++role) {
    terms.rows[role] = role == 0 ? problem.query : problem.ref;
    terms.first_role[role] = role == 0 || problem.symmetric ? 0 : 1;
  }
  terms.n = problem.query.n * kMostPositives;
  terms.margin = problem.margin;
  terms.margin_values = problem.margin_values;
  terms.margin_stride = problem.margin_stride;
  terms.soft_margin = problem.soft_margin;
  terms.weights = problem.weights;
  terms.count_invalid = problem.uncovered;
  terms.far_from_none = true;
  terms.cotangent = problem.cotangent;
  terms.cotangent_stride = problem.cotangent_stride;
  terms.loss = problem.out;
  terms.grad[0] = problem.grad[0];
  terms.grad[1] = problem.symmetric ? nullptr : problem.grad[1];
  terms.stats = problem.stats;
  return terms;
}

void launch_thresholds(const SemiHardState& state, cudaStream_t stream, Launches& launches) {
  const int32_t rows = state.ranked[0].padded > state.ranked[1].padded ? state.ranked[0].padded
                                                                       : state.ranked[1].padded;
  start(launches, "bound_thresholds", bound_thresholds, blocks_for(rows, kThresholdThreads / 8),
        kThresholdThreads, 0, stream, state, view_as<float>(state.query),
        view_as<float>(state.ref));
}

// Of a split: the more columns a thread sees, the more stay in doubt. Of 32768 x 128 normal rows of
// bfloat16 these are 6 on average and 12 at most, by simulation, and it can keep 16.
constexpr int kColumnsEach = 32768;

// Tiles of a split that are surveyed: more would cost more than the candidates that they spare, of
// 4096 rows and of 16384, counted in instructions.
int survey_of(const SemiHardState& state) {
  const int tiles = state.ranked[1].padded / kWgmmaColumns;
  const int share = (tiles + state.tile_splits - 1) / state.tile_splits;
  const int eighth = share / 8 < 8 ? share / 8 : 8;
  const int some = eighth > 2 ? eighth : 2;
  return some < share ? some : share;
}

void launch_looking(SemiHardState state, const DeviceFacts& facts, cudaStream_t stream,
                    Launches& launches) {
  state.ranked[1].slack = state.widest;
  state.survey_tiles = survey_of(state);
  launch_tiles(state, facts, stream, launches);
}

template <Keys keys>
void launch_choosing(const SemiHardState& state, cudaStream_t stream, Launches& launches) {
  const RowView<float> x = view_as<float>(state.query);
  const RowView<float> r = view_as<float>(state.ref);
  start(launches, "choose_semihard", choose_semihard<keys>,
        blocks_for(state.query.n, kChooseThreads / 8), kChooseThreads, 0, stream, state, x, r);
  start(launches, "judge_semihard_rows", judge_semihard_rows<keys>, kRowKeyBlocks, kRowKeyThreads,
        0, stream, state, x, r);
}

}  // namespace

SemiHardTiles::SemiHardTiles(const DenseProblem& problem, Names names, const DeviceFacts& facts)
    : terms(terms_of(problem)) {
  static_cast<Comparison&>(mined) = problem;
  names.reduction = reduction_of(names.dense_reduction);
  static_cast<MineState&>(state) = mine_state(mined, names, facts);
  state.split = true;
  state.drop = problem.drop_without_semihard;
  state.uncovered = problem.uncovered;
  loss = triplet_state(terms, names);
  loss.shift = kPositivesShift;
}

void SemiHardTiles::lay_out_zeros(Arena& arena, const DeviceFacts& facts) {
  cuda::lay_out_zeros(arena, mined, state);
  const TileShape& shape = shape_of(path_of(facts.major, facts.minor));
  state.tile_splits = column_splits(shape, state.ranked[0].padded, state.ranked[1].padded,
                                    facts.multiprocessors, kColumnsEach);
  state.streams = state.tile_splits * shape.streams;
  state.crowded = arena.take<int32_t>(1);
  state.n_valid = arena.take<int32_t>(1);
  state.width = arena.take<uint32_t>(mined.query.n * kMostPositives);
  state.shares_judged = arena.take<int32_t>(kRowKeyBlocks);
  for (const int64_t*& index : loss.index) index = &kNoIndexYet;
  loss.tally = state.tally;
  loss.elsewhere = state.crowded;
  cuda::lay_out_zeros(arena, terms, loss);
}

void SemiHardTiles::lay_out_rest(Arena& arena) {
  cuda::lay_out_rest(arena, mined, state);
  const int64_t positives = int64_t{state.ranked[0].padded} * kMostPositives;
  state.low = arena.take<float>(positives);
  state.certain = arena.take<float>(positives);
  state.widest = arena.take<float>(state.ranked[1].padded);
  state.bests = arena.take<RowBests>(kRowKeyBlocks * kMostPositives);
  for (int64_t*& chosen : state.chosen) chosen = arena.take<int64_t>(terms.n);
  loss.rows[0].numbers = state.query.numbers;
  loss.rows[1].numbers = state.ref.numbers;
  cuda::lay_out_rest(arena, terms, loss);
  for (int role = 0; role < 3; ++role) loss.index[role] = state.chosen[role];
  state.keys[0] = loss.keys[kAP];
  state.keys[1] = loss.keys[kAN];
}

void SemiHardTiles::launch(const DeviceFacts& facts, cudaStream_t stream,
                           Launches& launches) const {
  if (!launches.fine()) return;
  launch_prepare(state, stream, launches);
  launch_thresholds(state, stream, launches);
  launch_looking(state, facts, stream, launches);
  with_value<Keys::difference, Keys::product>(
      keys_of(state.key), [&](auto keys) { launch_choosing<keys.value>(state, stream, launches); });
  start(launches, "evaluate_semihard", evaluate_semihard,
        blocks_for(mined.query.n * kAnchorLanes, kTripletThreads), kTripletThreads, 0, stream, loss,
        state.n_valid);
  launch_gradients(loss, stream, launches);
  count(call_counters.tiles);
}

}  // namespace flashmetric::cuda
