// SPDX-License-Identifier: BSD-3-Clause
// Rows of dense losses: they are filled, and judged by a rule.
#include "dense_contrastive.cuh"
#include "dense_counts.cuh"
#include "dense_fill.cuh"
#include "dense_hinges.cuh"
#include "dense_semihard.cuh"
#include "dense_soft.cuh"
#include "dense_stages.h"

namespace flashmetric::cuda {
namespace {

// Blocks of a multiprocessor: as many as hide the latency of their loads and spill in no loop.
template <class Rule, class H>
constexpr int kJudgeBlocks = kWide<H> || std::is_same_v<Rule, TripletHinges> ? 4 : 5;

// A block a row; where positives are listed, as many blocks as have memory for them.
template <class T, class H, class Rule>
__global__ void __launch_bounds__(kRowThreads, kJudgeBlocks<Rule, H>)
    judge_rows(const __grid_constant__ DenseState state, const __grid_constant__ RowView<T> x,
               const __grid_constant__ RowView<T> r, Chunk chunk) {
  await_inputs();
  if (!state.is_asked()) return;
  __shared__ RowShared shared;
  __shared__ PositiveShared list_shared;
  for (int64_t at = blockIdx.x; at < chunk.rows; at += gridDim.x) {
    const DenseRow<T, H> row(state, x, r, shared, chunk.first, at);
    PositiveList list(state, list_shared);
    RowTotals totals;
    if (state.labels.query_takes_part(row.i)) {
      Rule::template judge<T, H>(row, list, totals);
    } else {
      row.clear();
    }
    if (threadIdx.x == 0) state.totals[row.i] = totals;
    __syncthreads();
  }
}

template <class T, class H, class Rule>
void launch_judge(const DenseState& state, Chunk chunk, cudaStream_t stream, Launches& launches) {
  const RowView<T> x = view_as<T>(state.query);
  const RowView<T> r = view_as<T>(state.ref);
  const bool limited = state.lists > 0 && state.lists < chunk.rows;
  const unsigned blocks = blocks_for(limited ? state.lists : chunk.rows, 1);
  start(launches, "judge_rows", judge_rows<T, H, Rule>, blocks, kRowThreads, 0, stream, state, x, r,
        chunk);
}

// Whose rows are keys.
template <class Rule>
void launch_wide(const DenseState& state, Chunk chunk, cudaStream_t stream, Launches& launches) {
  with_wide(state.query.dtype, [&](auto type) {
    launch_judge<decltype(type), double, Rule>(state, chunk, stream, launches);
  });
}

// Whose rows are of any kind.
template <class Rule>
void launch_any(const DenseState& state, Chunk chunk, cudaStream_t stream, Launches& launches) {
  if (!state.wide) return launch_judge<float, float, Rule>(state, chunk, stream, launches);
  launch_wide<Rule>(state, chunk, stream, launches);
}

}  // namespace

void launch_fill(const DenseState& state, Chunk chunk, cudaStream_t stream, Launches& launches) {
  if (!launches.fine()) return;
  if (!state.wide) {
    const int64_t tiles = state.rows[1].padded / kTile * blocks_for(chunk.rows, kTile);
    return start(launches, "fill_halves", fill_halves, few_blocks(state, tiles), kFillThreads, 0,
                 stream, state, chunk);
  }
  const auto keys = static_cast<double*>(state.slots);
  launch_key_rows(state, {chunk.first, chunk.rows, state.stride, keys, nullptr}, stream, launches);
}

void launch_rule(const DenseState& state, DenseRule rule, Chunk chunk, cudaStream_t stream,
                 Launches& launches) {
  if (!launches.fine()) return;
  switch (rule) {
    case DenseRule::contrastive:
      launch_any<Contrastive>(state, chunk, stream, launches);
      break;
    case DenseRule::hinges:
      launch_any<TripletHinges>(state, chunk, stream, launches);
      break;
    case DenseRule::softplus:
      launch_wide<TripletSoftplus>(state, chunk, stream, launches);
      break;
    case DenseRule::soft:
      launch_wide<SoftWeights>(state, chunk, stream, launches);
      break;
    case DenseRule::semihard:
      launch_any<SemiHardPairs>(state, chunk, stream, launches);
      break;
  }
}

void launch_counts(const DenseState& state, cudaStream_t stream, Launches& launches) {
  if (!launches.fine() || state.query.n == 0) return;
  if (state.labels.relation == Relation::classes && state.weight.values == nullptr) {
    const unsigned blocks = blocks_for(state.query.n, kCountRows);
    count_classes<<<blocks, kRowThreads, 0, stream>>>(state);
  } else {
    const unsigned blocks = blocks_for(state.query.n, 1);
    count_pairs<<<blocks, kRowThreads, 0, stream>>>(state);
  }
  launches.check("count_pairs");
}

}  // namespace flashmetric::cuda
