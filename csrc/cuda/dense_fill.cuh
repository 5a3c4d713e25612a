// SPDX-License-Identifier: BSD-3-Clause
// Fills the rows of a chunk: h of packed rows, by tiles of products.
//
// Numerics: products are added up kProducts at a time, as certificate.h assumes.
#pragma once

#include "dense_products.cuh"

namespace flashmetric::cuda {

// kProducts features of kTile rows, feature by feature. 4 more: what a thread writes and what it
// reads, four rows at a time, then lie in different banks.
struct HalfStage {
  alignas(16) float feature[kProducts][kTile + 4];

  // Four threads a row, four features each.
  __device__ void load(const float* y, int64_t width, int64_t k) {
    const int row = static_cast<int>(threadIdx.x) / 4;
    const int f = static_cast<int>(threadIdx.x) % 4 * 4;
    const float4 four = *reinterpret_cast<const float4*>(y + row * width + k + f);
    feature[f][row] = four.x;
    feature[f + 1][row] = four.y;
    feature[f + 2][row] = four.z;
    feature[f + 3][row] = four.w;
  }
};

static_assert(kTileThreads == kTile * 4 && kProducts == 16);

// A block for each tile of queries and references.
__global__ void __launch_bounds__(kTileThreads)
    fill_halves(const __grid_constant__ DenseState state, Chunk chunk) {
  __shared__ HalfStage x_stage;
  __shared__ HalfStage r_stage;
  const int64_t at = int64_t{blockIdx.y} * kTile;
  const int64_t j = int64_t{blockIdx.x} * kTile;
  const int64_t i = chunk.first + at;
  const int tx = static_cast<int>(threadIdx.x) % 16 * 4;
  const int ty = static_cast<int>(threadIdx.x) / 16 * 4;
  float sum[4][4] = {};
  for (int64_t k = 0; k < state.width; k += kProducts) {
    x_stage.load(state.rows[0].y + i * state.width, state.width, k);
    r_stage.load(state.rows[1].y + j * state.width, state.width, k);
    __syncthreads();
    float part[4][4] = {};
#pragma unroll
    for (int f = 0; f < kProducts; ++f) {
      float x[4], r[4];
      read4(x_stage.feature[f] + ty, x);
      read4(r_stage.feature[f] + tx, r);
      multiply4(x, r, part);
    }
#pragma unroll
    for (int c = 0; c < 16; ++c) sum[c / 4][c % 4] += part[c / 4][c % 4];
    __syncthreads();
  }
  float own[4], other[4];
  read4(state.rows[0].half + i + ty, own);
  read4(state.rows[1].half + j + tx, other);
#pragma unroll
  for (int a = 0; a < 4; ++a) {
    float* const to = static_cast<float*>(state.slots) + (at + ty + a) * state.stride + j + tx;
#pragma unroll
    for (int b = 0; b < 4; ++b) to[b] = (other[b] + own[a]) - sum[a][b];
  }
}

}  // namespace flashmetric::cuda
