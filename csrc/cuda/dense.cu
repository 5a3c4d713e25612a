// SPDX-License-Identifier: BSD-3-Clause
// A loss over all triplets or pairs, and its dense gradient: chunks of anchors whose rows are
// filled, judged and added up (dense_state.cuh).
#include "dense_layout.h"
#include "dense_pack.cuh"
#include "semihard.h"

namespace flashmetric::cuda {
namespace {

void launch_packing(const DenseState& state, cudaStream_t stream, Launches& launches) {
  const RowView<float> rows[2] = {view_as<float>(state.query), view_as<float>(state.ref)};
  for (int side = 0; side < (state.labels.symmetric ? 1 : 2); ++side) {
    const unsigned blocks = few_blocks(state, blocks_for(state.rows[side].padded, kWarp));
    start(launches, "pack_dense", pack_dense, blocks, kPackDenseThreads, 0, stream, state,
          rows[side], side);
  }
}

void launch_measures(const DenseState& state, cudaStream_t stream, Launches& launches) {
  const Compared& compared = state;
  const RowView<float> rows[2] = {view_as<float>(state.query), view_as<float>(state.ref)};
  for (int side = 0; side < (state.labels.symmetric ? 1 : 2); ++side) {
    const unsigned blocks = blocks_for(rows[side].n, kMeasureThreads / 8);
    measure_packed<<<blocks, kMeasureThreads, 0, stream>>>(compared, rows[side]);
  }
  launches.check("measure_packed");
  const unsigned slices = blocks_for(state.dim, kSlice);
  centre_rows<<<slices, kMeasureThreads, 0, stream>>>(compared, rows[1]);
  launches.check("centre_rows");
}

// Where rows are seldom asked for, or pairs marked, the other path has measured them.
void prepare(const DenseState& state, cudaStream_t stream, Launches& launches) {
  if (!launches.fine()) return;
  if (state.packed && state.query.n > 0 && state.ref.n > 0) {
    if (!state.seldom && !state.marked) launch_measures(state, stream, launches);
    return launch_packing(state, stream, launches);
  }
  if (state.seldom) return;
  launch_numbers(state.key, state.dim, state.query, stream, launches);
  if (!state.labels.symmetric) {
    launch_numbers(state.key, state.dim, state.ref, stream, launches);
  }
}

// Where the kernels of one call go.
struct DenseLaunch {
  const DenseState& state;
  DenseRule rule;
  int multiprocessors;
  cudaStream_t stream;
  Launches& launches;

  void visit_all(bool with_gradient) const {
    const bool columns = !state.mirrored && state.grad[state.labels.symmetric ? 0 : 1] != nullptr;
    if (state.ref.n == 0) return clear_totals();
    for (int64_t first = 0; first < state.query.n && launches.fine(); first += state.chunk) {
      const int64_t left = state.query.n - first;
      const Chunk chunk{first, left < state.chunk ? left : state.chunk};
      launch_fill(state, chunk, stream, launches);
      launch_rule(state, rule, chunk, stream, launches);
      if (!with_gradient) continue;
      launch_sums(state, state.grad[0] != nullptr, columns, chunk, multiprocessors, stream,
                  launches);
    }
  }
  void clear_totals() const { launch_counts(state, stream, launches); }

  unsigned total_blocks() const {
    const unsigned blocks = blocks_for(state.query.n, kTotalRows);
    return blocks < kTotalBlocks ? blocks : kTotalBlocks;
  }
  void find(bool counts) const {
    if (!launches.fine()) return;
    const unsigned blocks = total_blocks();
    find_scales<<<blocks, kTotalThreads, 0, stream>>>(state, counts);
    launches.check("find_scales");
  }

  void visit() const {
    const bool gradient = wants_gradient(state);
    if (state.by_kind) {
      launch_counts(state, stream, launches);
      find(true);
      if (gradient && state.reduction == DenseReduction::mean_active) {
        visit_all(false);
        find(false);
      }
    }
    visit_all(gradient);
  }
  void finish() const {
    if (!launches.fine()) return;
    with_wide(state.query.dtype, [&](auto type) {
      start(launches, "finish_dense", finish_dense<decltype(type)>, total_blocks(), kTotalThreads,
            0, stream, state);
    });
    launch_writes(state, stream, launches);
  }
};

// Of pairs that tiles mark.
Status by_marks(DenseProblem& problem, MarkedTiles& marks, DenseState& state, Device device) {
  const DeviceFacts& facts = facts_of(device.index);
  state.marked = true;
  state.scaled = false;
  const auto zeros = [&](Arena& arena) {
    marks.lay_out_zeros(arena);
    return marks.state.tally;
  };
  const auto rest = [&](Arena& arena) { lay_out_marked(arena, marks, facts, state); };
  return run("dense", problem.workspace, device, zeros, rest,
             [&](cudaStream_t stream, Launches& launches) {
               launch_prepare(marks.state, stream, launches);
               prepare(state, stream, launches);
               marks.launch(state, facts, stream, launches);
               const DenseLaunch rows{state, DenseRule::contrastive, facts.multiprocessors, stream,
                                      launches};
               rows.finish();
               count(call_counters.dense);
             });
}

}  // namespace

Status dense(DenseProblem& problem, Names names, Device device) {
  if (problem.dtype != DType::float32 && problem.dtype != DType::float64) {
    return "[dense] takes float32 or float64 rows.";
  }
  const DenseRule rule = rule_of(problem);
  const DeviceFacts& facts = facts_of(device.index);
  SemiHardTiles tiles(problem, names, facts);
  const bool by_tiles = rule == DenseRule::semihard && tiles.possible();
  DenseState state = dense_state(problem, names, rule, by_tiles ? kSeldomBytes : kept_bytes(facts));
  state.seldom = by_tiles;
  state.room = 4 * static_cast<unsigned>(facts.multiprocessors);
  if (rule == DenseRule::contrastive) {
    MarkedTiles marks(problem, state, names, facts);
    if (marks.possible) return by_marks(problem, marks, state, device);
  }
  const auto zeros = [&](Arena& arena) {
    lay_out_zeros(arena, state);
    Tally* const begin = state.tally;
    if (by_tiles) {
      tiles.lay_out_zeros(arena, facts);
      state.asked = tiles.state.crowded;
      state.tally = tiles.state.tally;
    }
    return begin;
  };
  const auto rest = [&](Arena& arena) {
    // The same memory: whatever the labels, one of the two has no use for it. But of its begin both
    // have: the numbers of the rows, and the centre.
    Arena other = arena;
    lay_out_rest(arena, rule, facts, state);
    if (by_tiles) tiles.lay_out_rest(other);
    if (other.bytes() > arena.bytes()) arena = other;
  };
  return run("dense", problem.workspace, device, zeros, rest,
             [&](cudaStream_t stream, Launches& launches) {
               if (by_tiles) tiles.launch(facts, stream, launches);
               const DenseLaunch rows{state, rule, facts.multiprocessors, stream, launches};
               prepare(state, stream, launches);
               rows.visit();
               rows.finish();
               count(call_counters.dense);
             });
}

}  // namespace flashmetric::cuda
