// SPDX-License-Identifier: BSD-3-Clause
// Gradients of packed rows as products of matrices: for the coefficients C of a chunk of queries X,
//   P = C Y for the queries, P = C^T X for the references, and the sums S of rows and columns of C
// of which dense_gradient.cuh makes the gradient S y - P (difference keys) or P (product keys).
// Near pairs are left out.
//
// Algorithm: a block has a tile of 64 rows x 64 features and a split of the terms, 32 at a time.
// Several splits leave partial sums, which add_partial adds up in order.
//
// Numerics: kSegment products in float, then float64, as cpu/weighted_sums.h has it.
#pragma once

#include "dense_products.cuh"

namespace flashmetric::cuda {

static_assert(kSegment == 32);

// kSegment terms of kTile rows of the result.
struct WeighStage {
  alignas(16) float c[kSegment][kTile + 4];  // 4 more, as in HalfStage
  alignas(16) float y[kSegment][kTile];
};

// What the product is of: rows of the chunk, or columns.
struct Weighed {
  Chunk chunk;
  int64_t rows;  // of the result
  int64_t terms;
  int side;  // of the result
  int splits;
  int step;  // floats from one coefficient to the next
};

// Coefficients of terms k .. and rows first ..; whether any is not 0. `by_columns`: terms are rows
// of the chunk. Threads of a warp read what lies together, and write to different banks.
template <bool by_columns>
__device__ bool load_coefficients(const DenseState& state, const Weighed& weighed, int64_t first,
                                  int64_t k, WeighStage& stage) {
  const auto* const c = static_cast<const float*>(state.slots);
  const int64_t words = state.stride / kWarp;
  const auto t = static_cast<int>(threadIdx.x);
  bool some = false;
#pragma unroll
  for (int u = 0; u < kTile * kSegment / kTileThreads; ++u) {
    const int group = t / kWarp * 8 + u;  // of 64: 8 terms of 4 rows, or half a row of one term
    const int term = by_columns ? group / 2 : group % 4 * 8 + t % 8;
    const int row = by_columns ? group % 2 * kWarp + t % kWarp : group / 4 * 4 + t % kWarp / 8;
    const bool exists = k + term < weighed.terms && first + row < weighed.rows;
    const int64_t at = by_columns ? k + term : first + row;
    const int64_t column = by_columns ? first + row : k + term;
    float one = 0;
    if (exists && (state.weighed[at * words + column / kWarp] >> (column % kWarp) & 1U) != 0) {
      one = c[(at * state.stride + column) * weighed.step];
    }
    stage.c[term][row] = one;
    some = some || one != 0;
  }
  return some;
}

__device__ inline void load_terms(const DenseState& state, const Weighed& weighed, int64_t k,
                                  int64_t feature, WeighStage& stage) {
  const int64_t begin = weighed.side == 0 ? 0 : weighed.chunk.first;
  const PackedRows& terms = weighed.side == 0 ? state.rows[1] : state.rows[0];
#pragma unroll
  for (int u = 0; u < 2; ++u) {
    const int term = static_cast<int>(threadIdx.x) / 16 + 16 * u;
    const int f = static_cast<int>(threadIdx.x) % 16 * 4;
    float4 four = {0, 0, 0, 0};
    if (k + term < weighed.terms && feature + f < state.width) {
      four = *reinterpret_cast<const float4*>(terms.y + (begin + k + term) * state.width + feature +
                                              f);
    }
    *reinterpret_cast<float4*>(stage.y[term] + f) = four;
  }
}

struct WeighSums {
  double total[4][4] = {};
  double weight = 0;  // of row t % 64, a quarter of the terms

  __device__ void add(const WeighStage& stage, bool weighs) {
    const int tx = static_cast<int>(threadIdx.x) % 16 * 4;
    const int ty = static_cast<int>(threadIdx.x) / 16 * 4;
    float part[4][4] = {};
#pragma unroll 8
    for (int s = 0; s < kSegment; ++s) {
      float c[4], y[4];
      read4(stage.c[s] + ty, c);
      read4(stage.y[s] + tx, y);
      multiply4(c, y, part);
    }
#pragma unroll
    for (int p = 0; p < 16; ++p) total[p / 4][p % 4] += static_cast<double>(part[p / 4][p % 4]);
    if (!weighs) return;
    const int quarter = static_cast<int>(threadIdx.x) / kTile * (kSegment / 4);
    for (int s = 0; s < kSegment / 4; ++s) {
      weight += static_cast<double>(stage.c[quarter + s][threadIdx.x % kTile]);
    }
  }
};

// Adds to the sums of the rows, or leaves a partial sum. Rows of the result are in the frame: their
// sums are not, and near pairs have added to these already.
__device__ inline void keep_sums(const DenseState& state, const Weighed& weighed, int64_t first,
                                 int64_t feature, const WeighSums& sums) {
  const int tx = static_cast<int>(threadIdx.x) % 16 * 4;
  const int ty = static_cast<int>(threadIdx.x) / 16 * 4;
  const double unit = frame_of(state).unit;
  const double sign = state.key.form == Form::difference ? -1 / unit : 1 / unit;
  const int64_t begin = weighed.side == 0 ? weighed.chunk.first : 0;
  for (int p = 0; p < 16; ++p) {
    const int64_t row = first + ty + p / 4;
    const int64_t k = feature + tx + p % 4;
    if (row >= weighed.rows || k >= state.dim) continue;
    const double sum = sums.total[p / 4][p % 4] * sign;
    if (weighed.splits == 1) {
      state.sums[weighed.side][(begin + row) * state.dim + k] += sum;
    } else {
      state.partial[(blockIdx.y * weighed.rows + row) * (state.dim + 1) + k] = sum;
    }
  }
}

template <bool by_columns>
__global__ void __launch_bounds__(kTileThreads)
    weigh_rows(const __grid_constant__ DenseState state, Weighed weighed) {
  __shared__ WeighStage stage;
  __shared__ double quarters[kTileThreads];
  const int64_t tiles = (weighed.rows + kTile - 1) / kTile;
  const int64_t first = blockIdx.x % tiles * kTile;
  const int64_t feature = blockIdx.x / tiles * kTile;
  const int64_t segments = (weighed.terms + kSegment - 1) / kSegment;
  const int64_t begin = segments * blockIdx.y / weighed.splits * kSegment;
  const int64_t end = segments * (blockIdx.y + 1) / weighed.splits * kSegment;
  WeighSums sums;
  for (int64_t k = begin; k < end; k += kSegment) {
    const bool some = load_coefficients<by_columns>(state, weighed, first, k, stage);
    load_terms(state, weighed, k, feature, stage);
    // Of hinges that are mostly inactive whole tiles are empty.
    if (__syncthreads_or(some) != 0) sums.add(stage, feature == 0);
    __syncthreads();
  }
  keep_sums(state, weighed, first, feature, sums);
  if (feature != 0) return;
  quarters[threadIdx.x] = sums.weight;
  __syncthreads();
  const int64_t row = first + threadIdx.x;
  if (threadIdx.x >= kTile || row >= weighed.rows) return;
  double weight = 0;
  for (int q = 0; q < 4; ++q) weight += quarters[q * kTile + threadIdx.x];
  if (weighed.splits == 1) {
    state.weights[weighed.side][(weighed.side == 0 ? weighed.chunk.first : 0) + row] += weight;
  } else {
    state.partial[(blockIdx.y * weighed.rows + row) * (state.dim + 1) + state.dim] = weight;
  }
}

// A thread a feature, and one for the sum of coefficients.
__global__ void __launch_bounds__(kTileThreads)
    add_partial(const __grid_constant__ DenseState state, Weighed weighed) {
  const int64_t columns = state.dim + 1;
  const int64_t at = int64_t{blockIdx.x} * kTileThreads + threadIdx.x;
  if (at >= weighed.rows * columns) return;
  double sum = 0;
  for (int split = 0; split < weighed.splits; ++split) {
    sum += state.partial[split * weighed.rows * columns + at];
  }
  const int64_t row = (weighed.side == 0 ? weighed.chunk.first : 0) + at / columns;
  const int64_t k = at % columns;
  double* const to = k < state.dim ? state.sums[weighed.side] + row * state.dim + k
                                   : state.weights[weighed.side] + row;
  *to += sum;
}

}  // namespace flashmetric::cuda
