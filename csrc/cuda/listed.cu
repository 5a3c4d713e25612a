// SPDX-License-Identifier: BSD-3-Clause
// The triplet loss of what a rule lists, in chunks of anchors: gradients add up in float64.
#include "list_loss.cuh"
#include "lists.h"
#include "pairwise.cuh"

namespace flashmetric::cuda {
namespace {

struct ListedState {
  ListState lists;
  TripletState loss;
  MineState valued;        // the rows with the key of the named distance
  bool own_values = true;  // that are computed beside the keys that rank
  double* sum[2] = {};     // of the gradients of queries and references; null = not wanted
  double* row_sums = nullptr;
};

AnyRows part_of(const AnyRows& rows, int64_t first, int64_t n) {
  AnyRows part = rows;
  with_dtype(rows.dtype, [&](auto type) {
    part.data = static_cast<const decltype(type)*>(rows.data) + first * rows.stride;
  });
  part.n = n;
  part.numbers = {rows.numbers.norm + first, rows.numbers.mean + first,
                  rows.numbers.energy + first};
  return part;
}

void launch_values(const ListedState& state, const ListState& chunk, cudaStream_t stream,
                   Launches& launches) {
  if (!state.own_values || !launches.fine()) return;
  const MineState& valued = state.valued;
  const KeyRows rows{chunk.first, chunk.anchors, valued.ref.n, chunk.value, nullptr};
  if (keeps_keys(valued.key, valued.query.dtype)) {
    return launch_key_rows(valued, rows, stream, launches);
  }
  if (valued.ref.n == 0) return;
  const unsigned blocks = blocks_for(rows.rows * valued.ref.n, kListThreads / 8);
  write_value_rows<<<blocks, kListThreads, 0, stream>>>(valued, view_as<double>(valued.query),
                                                        view_as<double>(valued.ref), rows);
  launches.check("write_value_rows");
}

// Adds what the pairs of a chunk give to the gradients of both sides.
void launch_chunk_gradients(const ListedState& state, const ListState& chunk, cudaStream_t stream,
                            Launches& launches) {
  PairwiseState pairs;
  pairs.key = state.valued.key;
  pairs.dim = state.valued.dim;
  pairs.sloped = true;
  pairs.cotangent = chunk.coefficient;
  pairs.sums = state.row_sums;
  const AnyRows anchors = part_of(state.valued.query, chunk.first, chunk.anchors);
  const AnyRows& refs = state.valued.ref;
  if (state.sum[0] != nullptr) {
    pairs.x = anchors;
    pairs.y = refs;
    pairs.row_stride = refs.n;
    pairs.col_stride = 1;
    pairs.out = state.sum[0] + chunk.first * pairs.dim;
    launch_row_gradients(pairs, refs.dtype, stream, launches);
  }
  double* const of_refs = chunk.problem.symmetric ? state.sum[0] : state.sum[1];
  if (of_refs == nullptr) return;
  pairs.x = refs;
  pairs.y = anchors;
  pairs.swapped = true;
  pairs.row_stride = 1;
  pairs.col_stride = refs.n;
  pairs.out = of_refs;
  launch_row_gradients(pairs, refs.dtype, stream, launches);
}

void launch_chunk(const ListedState& state, int rule, const ListState& chunk, cudaStream_t stream,
                  Launches& launches) {
  if (chunk.key != nullptr) launch_key_rows(chunk.ranking, chunk.key_rows(), stream, launches);
  launch_values(state, chunk, stream, launches);
  if (!launches.fine()) return;
  const auto blocks = static_cast<unsigned>(chunk.anchors);
  with_rule(ListRules{}, rule, [&](auto policy) {
    evaluate_lists<decltype(policy)><<<blocks, kListThreads, 0, stream>>>(chunk, state.loss);
  });
  launches.check("evaluate_lists");
  launch_chunk_gradients(state, chunk, stream, launches);
}

void launch_end(const ListedState& state, cudaStream_t stream, Launches& launches) {
  if (!launches.fine()) return;
  finish_lists<<<1, kFinishThreads, 0, stream>>>(state.loss);
  launches.check("finish_lists");
  for (int set = 0; set < 2; ++set) {
    const int64_t n = state.loss.rows[set].n * state.loss.dim;
    if (state.sum[set] == nullptr || n == 0) continue;
    const unsigned blocks = blocks_for(n, kListThreads);
    void* const out = state.loss.grad[set];
    with_dtype(state.loss.rows[0].dtype, [&](auto type) {
      using Out = typename GradientType<decltype(type)>::type;
      round_gradient<<<blocks, kListThreads, 0, stream>>>(state.sum[set], state.loss.scale, n,
                                                          static_cast<Out*>(out));
    });
    launches.check("round_gradient");
  }
}

ListedState listed_state(const ListProblem& lists, const TripletProblem& loss, const Names& names,
                         const ListNeeds& needs) {
  ListedState state;
  state.lists = list_state(lists, names, needs);
  state.loss = triplet_state(loss, names);
  state.valued = state.lists.ranking;
  state.valued.key = state.loss.key;
  state.own_values = !needs.keys || needs.sphere || !keeps_keys(state.loss.key, loss.dtype);
  return state;
}

void lay_out(Arena& arena, const ListNeeds& needs, int multiprocessors, ListedState& state) {
  ListState& lists = state.lists;
  lay_out_numbers(arena, lists.ranking);
  state.valued.query.numbers = state.loss.rows[0].numbers = lists.ranking.query.numbers;
  state.valued.ref.numbers = lists.ranking.ref.numbers;
  const bool wants = state.loss.grad[0] != nullptr || state.loss.grad[1] != nullptr;
  const bool exact = wants && state.loss.rows[0].dtype == DType::float64;
  lay_out_chunk(arena, needs, 8 * (state.own_values + exact), multiprocessors, lists);
  const int64_t entries = lists.anchors * lists.problem.ref.n;
  lists.value = state.own_values ? arena.take<double>(entries) : lists.key;
  if (exact) lists.lost = arena.take<double>(entries);
  if (wants) {
    lists.coefficient = arena.take<double>(entries);
    state.row_sums = take_row_sums(arena, state.loss.dim);
  }
  state.loss.block_sums = arena.take<TripletSums>(state.loss.n);
  state.loss.scale = arena.take<double>(1);
}

}  // namespace

Status listed_triplet(ListProblem& lists, TripletProblem& loss, Names names, Device device) {
  const ListNeeds needs = list_needs(names.mining, lists);
  ListedState state = listed_state(lists, loss, names, needs);
  const auto zeros = [&](Arena& arena) {
    int32_t* const begin = arena.take<int32_t>(1);
    for (int set = 0; set < 2; ++set) {
      if (loss.grad[set] == nullptr) continue;
      state.sum[set] = arena.take<double>(loss.rows[set].n * loss.dim);
    }
    return begin;
  };
  const int multiprocessors = facts_of(device.index).multiprocessors;
  const auto rest = [&](Arena& arena) { lay_out(arena, needs, multiprocessors, state); };
  return run("listed_triplet", loss.workspace, device, zeros, rest,
             [&](cudaStream_t stream, Launches& launches) {
               const KeyFacts& key = state.loss.key;
               const bool maps = key.needs_norms() || key.needs_means() || needs.sphere;
               if (maps || loss.stats != nullptr) {
                 launch_list_numbers(key, state.lists, stream, launches);
               }
               each_chunk(state.lists, [&](const ListState& chunk) {
                 launch_chunk(state, names.mining, chunk, stream, launches);
               });
               launch_end(state, stream, launches);
               count(call_counters.list_triplets);
               count(call_counters.triplet);
             });
}

}  // namespace flashmetric::cuda
