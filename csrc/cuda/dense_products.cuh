// SPDX-License-Identifier: BSD-3-Clause
// Tiles of products of packed rows: a few rows by 4 of them a thread, from shared memory.
#pragma once

#include "dense_state.cuh"

namespace flashmetric::cuda {

__device__ inline void read4(const float* from, float (&to)[4]) {
  const float4 four = *reinterpret_cast<const float4*>(from);
  to[0] = four.x;
  to[1] = four.y;
  to[2] = four.z;
  to[3] = four.w;
}

// sum += x r, for the rows x 4 of a thread.
template <int rows>
__device__ void multiply4(const float (&x)[rows], const float (&r)[4], float (&sum)[rows][4]) {
#pragma unroll
  for (int a = 0; a < rows; ++a) {
#pragma unroll
    for (int b = 0; b < 4; ++b) sum[a][b] = ::fmaf(x[a], r[b], sum[a][b]);
  }
}

}  // namespace flashmetric::cuda
