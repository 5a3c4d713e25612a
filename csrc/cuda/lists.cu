// SPDX-License-Identifier: BSD-3-Clause
// Lists of triplets: chunks of anchors, in order.
#include "list_rows.cuh"
#include "lists.h"
#include "reduce_keys.cuh"

namespace flashmetric::cuda {
namespace {

// Memory for the rows of a chunk: of 4096 references some 600 anchors, four blocks for each
// multiprocessor of an H100. But not fewer anchors than a tile of keys has: then a reference takes
// 32 * 28 bytes, what its row does if it has 224 features in float32.
constexpr int64_t kChunkBytes = int64_t{1} << 26;
// Anchors for each multiprocessor: a few times as many blocks as it has room for.
constexpr int64_t kAnchorsEach = 16;

void launch_lists(int rule, const ListState& chunk, cudaStream_t stream, Launches& launches) {
  if (!launches.fine()) return;
  const auto blocks = static_cast<unsigned>(chunk.anchors);
  with_rule(ListRules{}, rule, [&](auto policy) {
    count_triplets<decltype(policy)><<<blocks, kListThreads, 0, stream>>>(chunk);
    launches.check("count_triplets");
    place_triplets<<<1, kListThreads, 0, stream>>>(chunk);
    launches.check("place_triplets");
    write_triplets<decltype(policy)><<<blocks, kListThreads, 0, stream>>>(chunk);
    launches.check("write_triplets");
  });
}

}  // namespace

ListNeeds list_needs(int rule, const ListProblem& problem) {
  ListNeeds needs{};
  with_rule(ListRules{}, rule, [&](auto policy) {
    using Policy = decltype(policy);
    const Measure measure = Policy::measure(problem);
    constexpr bool semihard = std::is_same_v<Policy, SemiHard>;
    needs.keys = measure != Measure::none;
    needs.distances =
        measure == Measure::distance || (semihard && problem.hardness_value != nullptr);
    needs.sphere = measure == Measure::sphere;
    needs.chosen = semihard || needs.sphere;
    needs.running = needs.sphere;
  });
  return needs;
}

ListState list_state(const ListProblem& problem, const Names& names, const ListNeeds& needs) {
  ListState state;
  state.problem = problem;
  static_cast<Compared&>(state.ranking) = compared_of(problem, names);
  if (needs.sphere) state.ranking.key = {KeyFacts{Form::difference, false, true}};
  return state;
}

void lay_out_chunk(Arena& arena, const ListNeeds& needs, int64_t more, int multiprocessors,
                   ListState& state) {
  const int64_t n_ref = state.problem.ref.n;
  const int64_t bytes = 12 + (needs.keys ? 8 : 0) + (needs.distances ? 8 : 0) +
                        (needs.chosen ? 4 : 0) + (needs.running ? 8 : 0) + more;
  int64_t anchors = kChunkBytes / (bytes * (n_ref > 0 ? n_ref : 1));
  const int64_t most = kAnchorsEach * multiprocessors;
  anchors = anchors < most ? anchors : most;
  anchors = anchors > kKeyTile ? anchors : kKeyTile;
  state.anchors = anchors < state.problem.query.n ? anchors : state.problem.query.n;
  const int64_t entries = state.anchors * n_ref;
  state.ranges = arena.take<Ranges>(state.anchors);
  state.rows = arena.take<int32_t>(entries);
  if (needs.keys) state.key = arena.take<double>(entries);
  if (needs.distances) state.distance = arena.take<double>(entries);
  if (needs.chosen) state.chosen = arena.take<int32_t>(entries);
  if (needs.running) state.running = arena.take<double>(entries);
}

void launch_list_numbers(const KeyFacts& named, const ListState& state, cudaStream_t stream,
                         Launches& launches) {
  launch_numbers(named, state.ranking.dim, state.ranking.query, stream, launches);
  if (!state.problem.symmetric) {
    launch_numbers(named, state.ranking.dim, state.ranking.ref, stream, launches);
  }
}

Status list_triplets(ListProblem& problem, Names names, Device device) {
  const ListNeeds needs = list_needs(names.mining, problem);
  const KeyFacts named = key_facts(names.distance, names.power, problem.normalize);
  ListState state = list_state(problem, names, needs);
  const auto nothing = [](Arena& arena) { return arena.take<int32_t>(1); };
  const auto rest = [&](Arena& arena) {
    lay_out_numbers(arena, state.ranking);
    lay_out_chunk(arena, needs, 0, facts_of(device.index).multiprocessors, state);
    state.listed = arena.take<int64_t>(state.anchors);
    state.before = arena.take<int64_t>(state.anchors * problem.ref.n);
  };
  return run("list_triplets", problem.workspace, device, nothing, rest,
             [&](cudaStream_t stream, Launches& launches) {
               const bool maps = named.needs_norms() || named.needs_means() || needs.sphere;
               if (needs.keys && maps) launch_list_numbers(named, state, stream, launches);
               each_chunk(state, [&](const ListState& chunk) {
                 if (needs.keys) {
                   launch_key_rows(chunk.ranking, chunk.key_rows(), stream, launches);
                 }
                 launch_lists(names.mining, chunk, stream, launches);
               });
               count(call_counters.list_triplets);
             });
}

}  // namespace flashmetric::cuda
