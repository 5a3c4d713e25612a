// SPDX-License-Identifier: BSD-3-Clause
// Fills the rows of a chunk: h of packed rows, by tiles of products.
//
// Algorithm: a thread has 8 x 4 products, of 12 features read from shared memory 32: half of what
// that memory could deliver meanwhile. The next features are on their way to it.
//
// Numerics: products are added up kProducts at a time, as certificate.h assumes.
#pragma once

#include "dense_products.cuh"

namespace flashmetric::cuda {

constexpr int kFillThreads = 128;
constexpr int kFillRows = 8;  // of a thread

// kProducts features of kTile rows, feature by feature. 4 more: what a thread writes and what it
// reads, four rows at a time, then lie in different banks.
struct HalfStage {
  alignas(16) float feature[kProducts][kTile + 4];
};

// Four threads a row, four features each, and half of the rows at a time.
struct HalfPart {
  float4 four[2];

  __device__ static int row(int half) { return static_cast<int>(threadIdx.x) / 4 + 32 * half; }
  __device__ static int feature() { return static_cast<int>(threadIdx.x) % 4 * 4; }
  __device__ void load(const float* y, int64_t width, int64_t k) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      four[half] = *reinterpret_cast<const float4*>(y + row(half) * width + k + feature());
    }
  }
  __device__ void store(HalfStage& stage) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      stage.feature[feature()][row(half)] = four[half].x;
      stage.feature[feature() + 1][row(half)] = four[half].y;
      stage.feature[feature() + 2][row(half)] = four[half].z;
      stage.feature[feature() + 3][row(half)] = four[half].w;
    }
  }
};

static_assert(kFillThreads == kTile * 2 && kProducts == 16);

__device__ inline void read_rows(const float* from, float (&to)[kFillRows]) {
#pragma unroll
  for (int a = 0; a < kFillRows; a += 4) {
    read4(from + a, *reinterpret_cast<float (*)[4]>(to + a));
  }
}

__device__ inline void add_stage(const HalfStage& x_stage, const HalfStage& r_stage,
                                 float (&sum)[kFillRows][4]) {
  const int tx = static_cast<int>(threadIdx.x) % 16 * 4;
  const int ty = static_cast<int>(threadIdx.x) / 16 * kFillRows;
  float part[kFillRows][4] = {};
#pragma unroll
  for (int f = 0; f < kProducts; ++f) {
    float x[kFillRows], r[4];
#pragma unroll
    for (int a = 0; a < kFillRows; a += 4) {
      read4(x_stage.feature[f] + ty + a, *reinterpret_cast<float (*)[4]>(x + a));
    }
    read4(r_stage.feature[f] + tx, r);
    multiply4(x, r, part);
  }
#pragma unroll
  for (int c = 0; c < 4 * kFillRows; ++c) sum[c / 4][c % 4] += part[c / 4][c % 4];
}

// Products of a tile of queries and references. `stage` is the next to write to.
__device__ inline void fill_tile(const DenseState& state, const Chunk& chunk, int64_t at, int64_t j,
                                 HalfStage (&x_stage)[2], HalfStage (&r_stage)[2], int& stage) {
  const int64_t i = chunk.first + at;
  const float* const x = state.rows[0].y + i * state.width;
  const float* const r = state.rows[1].y + j * state.width;
  HalfPart x_part, r_part;
  x_part.load(x, state.width, 0);
  r_part.load(r, state.width, 0);
  float sum[kFillRows][4] = {};
  for (int64_t k = kProducts; k <= state.width; k += kProducts, stage ^= 1) {
    x_part.store(x_stage[stage]);
    r_part.store(r_stage[stage]);
    __syncthreads();
    if (k < state.width) {
      x_part.load(x, state.width, k);
      r_part.load(r, state.width, k);
    }
    add_stage(x_stage[stage], r_stage[stage], sum);
  }
  const int tx = static_cast<int>(threadIdx.x) % 16 * 4;
  const int ty = static_cast<int>(threadIdx.x) / 16 * kFillRows;
  float own[kFillRows], other[4];
  read_rows(state.rows[0].half + i + ty, own);
  read4(state.rows[1].half + j + tx, other);
  auto* to = reinterpret_cast<float4*>(static_cast<float*>(state.slots) + (at + ty) * state.stride +
                                       j + tx);
#pragma unroll
  for (int a = 0; a < kFillRows; ++a, to += state.stride / 4) {
    *to = float4{(other[0] + own[a]) - sum[a][0], (other[1] + own[a]) - sum[a][1],
                 (other[2] + own[a]) - sum[a][2], (other[3] + own[a]) - sum[a][3]};
  }
}

// A block has a tile after the other.
__global__ void __launch_bounds__(kFillThreads, 4)
    fill_halves(const __grid_constant__ DenseState state, Chunk chunk) {
  await_inputs();
  if (!state.is_asked()) return;
  __shared__ HalfStage x_stage[2];
  __shared__ HalfStage r_stage[2];
  const int64_t across = state.rows[1].padded / kTile;
  const int64_t tiles = across * ((chunk.rows + kTile - 1) / kTile);
  int stage = 0;
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    fill_tile(state, chunk, tile / across * kTile, tile % across * kTile, x_stage, r_stage, stage);
  }
}

}  // namespace flashmetric::cuda
