// SPDX-License-Identifier: BSD-3-Clause
// Writes whole rows of float64 keys, in the tiles and the order of reduce_keys.cuh.
#pragma once

#include "reduce_keys.cuh"

namespace flashmetric::cuda {

// A block for each tile of queries and references.
template <Form form>
__global__ void __launch_bounds__(kKeyThreads)
    write_key_rows(const __grid_constant__ Compared state, KeyRows to) {
  __shared__ KeyStage x_stage;
  __shared__ KeyStage r_stage;
  if (!state.is_asked()) return;
  const int64_t tiles = (state.ref.n + kKeyTile - 1) / kKeyTile;
  const int64_t at = blockIdx.x / tiles * kKeyTile;
  const int64_t j = blockIdx.x % tiles * kKeyTile;
  const int loaded = static_cast<int>(threadIdx.x) / 8;
  KeySums<form> sums;
  sum_tile(state, at + loaded < to.rows ? to.first + at + loaded : -1,
           j + loaded < state.ref.n ? j + loaded : -1, x_stage, r_stage, sums);
#pragma unroll
  for (int a = 0; a < 2; ++a) {
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      const int64_t row = at + threadIdx.x / 16 + 16 * a;
      const int64_t column = j + threadIdx.x % 16 + 16 * b;
      if (row >= to.rows || column >= state.ref.n) continue;
      const double key = finished_key(state.key, sums.key(a, b), state.query.numbers,
                                      to.first + row, state.ref.numbers, column);
      to.key[row * to.stride + column] = key;
      if (to.distance != nullptr) to.distance[row * to.stride + column] = state.key.value(key);
    }
  }
}

}  // namespace flashmetric::cuda
