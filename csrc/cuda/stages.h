// SPDX-License-Identifier: BSD-3-Clause
// The host side of the stages: how the workspace is laid out, and how kernels are launched.
#pragma once

#include <type_traits>

#include "../arena.h"
#include "decide.cuh"
#include "device.h"
#include "launch.cuh"
#include "triplet_state.cuh"

namespace flashmetric::cuda {

struct PairwiseState;

inline unsigned blocks_for(int64_t items, int per_block) {
  const int64_t blocks = (items + per_block - 1) / per_block;
  return static_cast<unsigned>(blocks > 0 ? blocks : 1);
}

// Calls launch with the one of the values that is wanted, as a constant.
template <auto... values, class Value, class Launch>
void with_value(Value wanted, const Launch& launch) {
  ((wanted == values ? launch(std::integral_constant<Value, values>{}) : void()), ...);
}

inline AnyRows any_rows(const Rows& rows, DType dtype) {
  return {rows.data, rows.n, rows.stride, dtype, {}};
}

inline RowNumbers take_numbers(Arena& arena, int64_t rows) {
  return {arena.take<double>(rows), arena.take<double>(rows), arena.take<double>(rows)};
}

inline void count(int64_t& counter) { __atomic_fetch_add(&counter, int64_t{1}, __ATOMIC_RELAXED); }

// Lays the workspace out: first what is zeroed, from the array that `zeros` returns on. With memory
// it clears that and launches.
template <class Zeros, class Rest, class Launch>
Status run(const char* op, Workspace& workspace, const Device& device, const Zeros& zeros,
           const Rest& rest, const Launch& launch) {
  Arena arena(workspace);
  const size_t start = arena.bytes();
  void* const begin = zeros(arena);
  const size_t bytes = arena.bytes() - start;
  rest(arena);
  if (arena.counting()) {
    workspace.bytes = arena.bytes();
    return {};
  }
  Launches launches(op, facts_of(device.index));
  const DeviceGuard guard(device.index);
  launches.note(guard.error(), "cudaSetDevice");
  const auto stream = static_cast<cudaStream_t>(device.stream);
  if (launches.fine()) launches.note(cudaMemsetAsync(begin, 0, bytes, stream), "cudaMemsetAsync");
  launch(stream, launches);
  return launches.status();
}

// Whether what touches a row can be numbered.
Status check_triplets(const char* op, const char* things, int64_t n);

// What must be zero before the first kernel: laid out first, so that one call clears it.
void lay_out_zeros(Arena& arena, const MineProblem& problem, MineState& state);
void lay_out_rest(Arena& arena, const MineProblem& problem, MineState& state);
void lay_out_zeros(Arena& arena, const TripletProblem& problem, TripletState& state);
void lay_out_rest(Arena& arena, const TripletProblem& problem, TripletState& state);

Compared compared_of(const Comparison& problem, const Names& names);
void lay_out_numbers(Arena& arena, Compared& state);
void launch_key_rows(const Compared& state, const KeyRows& to, cudaStream_t stream,
                     Launches& launches);
void lay_out_frame(Arena& arena, Compared& state);
MineState mine_state(const MineProblem& problem, const Names& names, const DeviceFacts& facts);
TripletState triplet_state(const TripletProblem& problem, const Names& names);

// `run` for what is laid out as triplets alone; launch(state, stream, launches).
template <class Launch>
Status run_triplets(const char* op, const TripletProblem& problem, const Names& names,
                    Workspace& workspace, const Device& device, const Launch& launch) {
  TripletState state = triplet_state(problem, names);
  const auto zeros = [&](Arena& arena) {
    lay_out_zeros(arena, problem, state);
    return state.tally;
  };
  const auto rest = [&](Arena& arena) { lay_out_rest(arena, problem, state); };
  return run(op, workspace, device, zeros, rest,
             [&](cudaStream_t stream, Launches& launches) { launch(state, stream, launches); });
}

// Rows measured, grouped and packed.
void launch_prepare(const MineState& state, cudaStream_t stream, Launches& launches);
// Everything up to the candidates.
void launch_mining(const MineState& state, const DeviceFacts& facts, cudaStream_t stream,
                   Launches& launches);
void launch_choices(const MineState& state, const Chosen& chosen, cudaStream_t stream,
                    Launches& launches);
// The numbers of rows that keys need.
void launch_numbers(const KeyFacts& key, int64_t dim, const AnyRows& rows, cudaStream_t stream,
                    Launches& launches);
// Norms of sets of rows that nobody else measures.
void launch_norms(const TripletState& state, cudaStream_t stream, Launches& launches);
// `known`: mining has left the keys of the triplets.
void launch_triplets(const TripletState& state, bool known, cudaStream_t stream,
                     Launches& launches);
// The gradients of the sets of rows, from the coefficients of the pairs.
void launch_gradients(const TripletState& state, cudaStream_t stream, Launches& launches);
// What the next function needs as scratch memory.
double* take_row_sums(Arena& arena, int64_t dim);
// Adds to the gradients of rows x, in float64, from cotangents in float64.
void launch_row_gradients(const PairwiseState& state, DType dtype, cudaStream_t stream,
                          Launches& launches);
// Whether a key as a value is the key of a choice.
bool keeps_keys(const KeyFacts& key, DType dtype);

}  // namespace flashmetric::cuda
