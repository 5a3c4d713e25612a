// SPDX-License-Identifier: BSD-3-Clause
// Evaluates triplets and adds them up, in one kernel.
#pragma once

#include "triplet_terms.cuh"
#include "triplet_totals.cuh"

namespace flashmetric::cuda {

__global__ void __launch_bounds__(kTripletThreads)
    evaluate_triplets(const __grid_constant__ TripletState state) {
  await_inputs();
  __shared__ TripletSums shared[kTripletThreads / kWarp];
  TripletSums sums;
  Term term;
  const int64_t t = int64_t{blockIdx.x} * kTripletThreads + threadIdx.x;
  const TripletRows rows(state, t);
  if (t < state.n) {
    term = evaluate(state, t, rows, StoredKeys(state, t));
    if (state.reduction == Reduction::none) {
      keep_value(state, t, term.value);
      multiply_by_cotangent(state, t, term);
    }
    count_term(state, t, term, sums);
#pragma unroll
    for (int pair = 0; pair < kPairs; ++pair) state.coefficient[pair][t] = term.coefficient[pair];
  }
  // Nobody waits for these places but who writes there, and sums take as long.
  const TouchPlaces places(state, rows, term);
  sum_in_block(sums, shared, state.stats != nullptr);
  if (threadIdx.x == 0) state.block_sums[blockIdx.x] = sums;
  finish_sums(state, shared, static_cast<int>(gridDim.x));
  list_touches(state, t, rows, places);
}

}  // namespace flashmetric::cuda
