// SPDX-License-Identifier: BSD-3-Clause
// Computes the distances of given pairs of rows, or, from their cotangents, the coefficients of
// their gradients, which gather.cuh then adds up: a pair is a triplet without a negative.
#pragma once

#include "gradient_row.cuh"
#include "triplet_terms.cuh"

namespace flashmetric::cuda {

constexpr int kPairThreads = 256;

// Forward: state.loss[t] = distance. Backward, with a cotangent: state.coefficient, and what
// touches the rows. Eight lanes a pair.
template <class T>
__global__ void __launch_bounds__(kPairThreads)
    evaluate_pairs(const __grid_constant__ TripletState state, RowSets<T> sets) {
  using Out = typename GradientType<T>::type;
  const int64_t thread = int64_t{blockIdx.x} * kPairThreads + threadIdx.x;
  const int64_t t = thread / 8;
  if (thread == 0) *state.scale = 1;
  const bool exists = t < state.n;
  const int64_t i = exists ? state.row_of(0, t) : -1;
  const int64_t j = exists ? state.row_of(1, t) : -1;
  // A pair with a row below 0 is none; beyond the rows it is NaN, which shows and does not crash.
  const bool none = i < 0 || j < 0;
  const bool outside = !none && (i >= state.rows[0].n || j >= state.rows[1].n);
  const bool real = !none && !outside;
  // The lanes of a warp exchange sums: pairs that are not real go along with rows that exist.
  const bool rows = state.rows[0].n > 0 && state.rows[1].n > 0;
  const double key =
      rows ? pair_value(state.key, sets.of[0], real ? i : 0, sets.of[1], real ? j : 0, state.dim)
           : 0;
  if (!exists || threadIdx.x % 8 != 0) return;
  if (state.cotangent == nullptr) {
    const double nothing = outside ? __longlong_as_double(0x7FF8000000000000LL) : 0;
    static_cast<Out*>(state.loss)[t] = static_cast<Out>(real ? state.key.value(key) : nothing);
    return;
  }
  const double weight = number_at<Out>(state.cotangent, t * state.cotangent_stride);
  Term term;
  if (real && weight != 0) term.coefficient[kAP] = weight * state.key.slope(key);
#pragma unroll
  for (int pair = 0; pair < kPairs; ++pair) state.coefficient[pair][t] = term.coefficient[pair];
  if (real) touch_rows(state, t, TripletRows(state, t), term);
}

}  // namespace flashmetric::cuda
