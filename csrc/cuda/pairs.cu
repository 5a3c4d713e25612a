// SPDX-License-Identifier: BSD-3-Clause
// Distances of given pairs, and of all pairs; with their gradients.
#include "paired.cuh"
#include "pairwise.cuh"
#include "stages.h"

namespace flashmetric::cuda {
namespace {

// A pair as a triplet without a negative: what lists its touches and gathers its gradients.
TripletProblem as_triplets(const PairedProblem& pairs) {
  TripletProblem problem;
  problem.distance = pairs.distance;
  problem.normalize = pairs.normalize;
  problem.dtype = pairs.dtype;
  problem.dim = pairs.dim;
  problem.n = pairs.n;
  for (int role = 0; role < 3; ++role) {
    problem.rows[role] = role == 0 ? pairs.x : pairs.r;
    problem.first_role[role] = role == 0 || pairs.shared ? 0 : 1;
    problem.index[role] = pairs.index[role == 0 ? 0 : 1];
  }
  problem.grad[0] = pairs.grad[0];
  problem.grad[1] = pairs.shared ? nullptr : pairs.grad[1];
  problem.cotangent = pairs.cotangent;
  problem.cotangent_stride = pairs.cotangent_stride;
  problem.loss = pairs.out;
  return problem;
}

void launch_pairs(const TripletState& state, cudaStream_t stream, Launches& launches) {
  launch_norms(state, stream, launches);
  if (!launches.fine()) return;
  with_dtype(state.rows[0].dtype, [&](auto type) {
    using T = decltype(type);
    const RowSets<T> sets{
        {view_as<T>(state.rows[0]), view_as<T>(state.rows[1]), view_as<T>(state.rows[2])}};
    evaluate_pairs<<<blocks_for(state.n, kPairThreads / 8), kPairThreads, 0, stream>>>(state, sets);
  });
  launches.check("evaluate_pairs");
  if (state.cotangent != nullptr) launch_gradients(state, stream, launches);
}

PairwiseState pairwise_state(const PairwiseProblem& problem, const Names& names) {
  PairwiseState state;
  state.key = {key_facts(names.distance, names.power, problem.normalize)};
  state.dim = problem.dim;
  state.x = any_rows(problem.x, problem.dtype);
  state.y = any_rows(problem.y, problem.dtype);
  state.swapped = problem.swapped;
  state.mirrored = problem.cotangent.mirrored;
  visit_by_index(Distances{}, names.distance, [&](auto policy) {
    state.constant_slope = decltype(policy)::curve == Curve::linear;
  });
  state.cotangent = problem.cotangent.data;
  state.row_stride = problem.cotangent.row_stride;
  state.col_stride = problem.cotangent.col_stride;
  state.out = problem.out;
  return state;
}

void measure(const PairwiseState& state, cudaStream_t stream, Launches& launches) {
  if (!state.key.needs_norms() && !state.key.needs_means()) return;
  launch_numbers(state.key, state.dim, state.x, stream, launches);
  launch_numbers(state.key, state.dim, state.y, stream, launches);
}

template <class T>
void launch_tiles(const PairwiseState& state, cudaStream_t stream, Launches& launches) {
  const PairwiseSets<T> sets{view_as<T>(state.x), view_as<T>(state.y)};
  const int64_t squares = (state.y.n + kSquare - 1) / kSquare;
  const unsigned blocks = blocks_for((state.x.n + kSquare - 1) / kSquare * squares, 1);
  with_value<Form::difference, Form::product, Form::absolute, Form::power, Form::maximum,
             Form::overlap>(state.key.form, [&](auto form) {
    pairwise_tiles<T, form.value><<<blocks, kPairwiseThreads, 0, stream>>>(state, sets);
  });
  launches.check("pairwise_tiles");
}

template <class T>
void launch_rows(const PairwiseState& state, cudaStream_t stream, Launches& launches) {
  const PairwiseSets<T> sets{view_as<T>(state.x), view_as<T>(state.y)};
  const unsigned wanted = blocks_for(state.x.n, kPairwiseWarps);
  const unsigned blocks = wanted < kPairwiseBlocks ? wanted : kPairwiseBlocks;
  with_value<Steps::difference, Steps::product, Steps::any>(steps_of(state.key), [&](auto steps) {
    pairwise_rows<T, steps.value><<<blocks, kPairwiseThreads, 0, stream>>>(state, sets);
  });
  launches.check("pairwise_rows");
}

// `launch` is called with a number of the type of the rows.
template <class Rest, class Launch>
Status run_pairwise(const char* op, PairwiseProblem& problem, PairwiseState& state,
                    const Device& device, int64_t& counter, const Rest& rest,
                    const Launch& launch) {
  const auto nothing = [](Arena& arena) { return arena.take<int32_t>(1); };
  const auto lay_out = [&](Arena& arena) {
    state.x.numbers = take_numbers(arena, problem.x.n);
    state.y.numbers = take_numbers(arena, problem.y.n);
    rest(arena);
  };
  return run(op, problem.workspace, device, nothing, lay_out,
             [&](cudaStream_t stream, Launches& launches) {
               count(counter);
               if (state.x.n == 0 || state.y.n == 0) return;
               measure(state, stream, launches);
               if (!launches.fine()) return;
               with_dtype(problem.dtype, [&](auto type) { launch(type, stream, launches); });
             });
}

}  // namespace

double* take_row_sums(Arena& arena, int64_t dim) {
  return arena.take<double>(int64_t{kPairwiseBlocks} * kPairwiseWarps * dim);
}

void launch_row_gradients(const PairwiseState& state, DType dtype, cudaStream_t stream,
                          Launches& launches) {
  if (!launches.fine() || state.x.n == 0 || state.y.n == 0 || state.dim == 0) return;
  with_dtype(dtype, [&](auto type) { launch_rows<decltype(type)>(state, stream, launches); });
}

Status paired(PairedProblem& pairs, Names names, Device device) {
  if (Status status = check_triplets("paired", " pairs", pairs.n); !status.empty()) return status;
  return run_triplets("paired", as_triplets(pairs), names, pairs.workspace, device,
                      [](const TripletState& state, cudaStream_t stream, Launches& launches) {
                        launch_pairs(state, stream, launches);
                        count(call_counters.paired);
                      });
}

Status pairwise(PairwiseProblem& problem, Names names, Device device) {
  PairwiseState state = pairwise_state(problem, names);
  return run_pairwise(
      "pairwise", problem, state, device, call_counters.pairwise, [](Arena&) {},
      [&](auto type, cudaStream_t stream, Launches& launches) {
        launch_tiles<decltype(type)>(state, stream, launches);
      });
}

Status pairwise_backward(PairwiseProblem& problem, Names names, Device device) {
  PairwiseState state = pairwise_state(problem, names);
  const auto rest = [&](Arena& arena) { state.sums = take_row_sums(arena, problem.dim); };
  return run_pairwise("pairwise_backward", problem, state, device, call_counters.pairwise_backward,
                      rest, [&](auto type, cudaStream_t stream, Launches& launches) {
                        if (state.dim == 0) return;
                        launch_rows<decltype(type)>(state, stream, launches);
                      });
}

}  // namespace flashmetric::cuda
