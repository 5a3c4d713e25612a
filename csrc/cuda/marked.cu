// SPDX-License-Identifier: BSD-3-Clause
// Losses over all pairs with a gradient of the queries alone: prepare -> tiles mark pairs -> a warp
// a query judges them, and adds up its gradient.
#include "dense_stages.h"
#include "marked.h"
#include "marked_rows.cuh"
#include "tiles.h"

namespace flashmetric::cuda {
namespace {

// Marks that the cache keeps for the kernel that reads them next, beside what that reads as well.
int32_t queries_at_a_time(const MarkedState& state, const DeviceFacts& facts) {
  const int32_t padded = state.ranked[0].padded;
  const int64_t row_bytes = state.marks_of_row() * static_cast<int64_t>(sizeof(uint16_t));
  const int64_t wanted = padded / (kept_bytes(facts) / row_bytes + 1) + 1;
  const int64_t most = padded / kPadRows;
  const int64_t parts = wanted < most ? wanted : most;
  return static_cast<int32_t>((padded / parts + kPadRows - 1) / kPadRows * kPadRows);
}

void launch_judge(const MarkedState& state, const DenseState& dense, cudaStream_t stream,
                  Launches& launches) {
  const RowView<float> x = view_as<float>(dense.query);
  const RowView<float> r = view_as<float>(dense.ref);
  const unsigned blocks = blocks_for(state.queries_tiled(), kPairWarps);
  const int64_t pieces = (dense.width + kPieceFeatures - 1) / kPieceFeatures;
  with_value<Steps::difference, Steps::product>(steps_of(dense.key), [&](auto steps) {
    with_value<1, 2, 4>(pieces < 3 ? static_cast<int>(pieces) : kMostPieces, [&](auto some) {
      start(launches, "judge_marked", judge_marked<steps.value, some.value>, blocks, kPairThreads,
            0, stream, state, dense, x, r);
    });
  });
}

}  // namespace

MarkedTiles::MarkedTiles(const DenseProblem& problem, const DenseState& dense, const Names& names,
                         const DeviceFacts& facts) {
  static_cast<Comparison&>(mined) = problem;
  static_cast<MineState&>(state) = mine_state(mined, names, facts);
  state.farthest[kPositive] = state.farthest[kNegative] = false;
  state.survey_tiles = 0;
  state.streams = 0;
  state.key_splits = 1;
  const Labels& labels = problem.labels;
  const bool all_take_part = labels.query_keep == nullptr && labels.ref_keep == nullptr;
  const bool same_scale = dense.key.form == Form::difference || dense.key.equally_long();
  const bool of_queries = dense.mirrored || (!problem.symmetric && problem.grad[1] == nullptr);
  possible = state.by_tiles && dense.packed && !dense.wide && of_queries && all_take_part &&
             same_scale && problem.weights == nullptr && problem.stats == nullptr &&
             dense.width <= kMostPieces * kPieceFeatures;
}

void MarkedTiles::lay_out_zeros(Arena& arena) { cuda::lay_out_zeros(arena, mined, state); }

void MarkedTiles::lay_out_rest(Arena& arena, DenseState& dense) {
  cuda::lay_out_rest(arena, mined, state);
  dense.query.numbers = state.query.numbers;
  dense.ref.numbers = state.ref.numbers;
  dense.centre = state.centre;
  dense.centre_squares = state.centre_squares;
  dense.tally = state.tally;
}

void MarkedTiles::lay_out_marks(Arena& arena, const DenseState& dense, const DeviceFacts& facts) {
  state.half = dense.rows[0].half;
  state.dense_slack = dense.rows[0].slack;
  state.scale = dense.scale;
  state.margin = dense.margin;
  state.bounds = dense.online ? dense.bounds : nullptr;
  state.marks = arena.take<uint16_t>(queries_at_a_time(state, facts) * state.marks_of_row());
}

void MarkedTiles::launch(const DenseState& dense, const DeviceFacts& facts, cudaStream_t stream,
                         Launches& launches) const {
  MarkedState part = state;
  const int32_t padded = state.ranked[0].padded;
  const TileShape& shape = shape_of(path_of(facts.major, facts.minor));
  const int32_t each = queries_at_a_time(state, facts);
  for (int32_t first = 0; first < padded && launches.fine(); first += each) {
    part.first_query = first;
    part.n_query_tiled = padded - first < each ? padded - first : each;
    part.tile_splits =
        column_splits(shape, part.n_query_tiled, state.ranked[1].padded, facts.multiprocessors);
    launch_tiles(part, facts, stream, launches);
    launch_judge(part, dense, stream, launches);
  }
  count(call_counters.tiles);
}

}  // namespace flashmetric::cuda
