// SPDX-License-Identifier: BSD-3-Clause
// Gradients of packed rows as products of matrices: for the coefficients C of a chunk of queries X,
//   P = C Y for the queries, P = C^T X for the references, and the sums S of rows and columns of C
// of which dense_gradient.cuh makes the gradient S y - P (difference keys) or P (product keys).
// Near pairs are left out.
//
// Algorithm: a block has a tile of 64 rows x 64 features and a split of the terms, 32 at a time.
// Several splits leave partial sums, which add_partial adds up in order. Bits say which
// coefficients there are, so that what is empty costs a bit of each.
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

// Segments that a block looks at together: as many as a warp has lanes.
constexpr int kScanned = kWarp;

// The bits of those segments. Words of a segment lie together: of rows of the chunk one for each
// row of the result, of columns two for each term.
struct SegmentBits {
  uint32_t word[kScanned][kTile + 1];  // one more: a segment in another bank
  unsigned live;                       // segments that have a bit
};

// Reads the bits from term k on, for rows first .. of the result. `by_columns`: terms are rows of
// the chunk.
template <bool by_columns>
__device__ unsigned read_bits(const DenseState& state, const Weighed& weighed, int64_t first,
                              int64_t k, int64_t end, SegmentBits& bits) {
  constexpr int warps = kTileThreads / kWarp;
  const int64_t words = state.stride / kWarp;
  const int64_t last = end < weighed.terms ? end : weighed.terms;
  __syncthreads();
  if (threadIdx.x == 0) bits.live = 0;
  __syncthreads();
  unsigned live = 0;
  if constexpr (by_columns) {
#pragma unroll
    for (int segment = warp_of(); segment < kScanned; segment += warps) {
      const int64_t at = k + segment * kSegment + lane_of();
      unsigned some = 0;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int64_t column = first + half * kWarp;
        const bool exists = at < last && column < weighed.rows;
        const uint32_t word = exists ? state.weighed[at * words + column / kWarp] : 0;
        bits.word[segment][2 * lane_of() + half] = word;
        some |= word;
      }
      live |= __any_sync(kAllLanes, some != 0) ? 1U << segment : 0;
    }
  } else {
    unsigned some = 0;
#pragma unroll
    for (int row = warp_of(); row < kTile; row += warps) {
      const int64_t at = first + row;
      const int64_t column = k + lane_of() * kSegment;
      const bool exists = at < weighed.rows && column < last;
      const uint32_t word = exists ? state.weighed[at * words + column / kWarp] : 0;
      bits.word[lane_of()][row] = word;
      some |= word;
    }
    live = __ballot_sync(kAllLanes, some != 0);
  }
  if (lane_of() == 0 && live != 0) atomicOr(&bits.live, live);
  __syncthreads();
  return bits.live;
}

// Four coefficients that lie together; those without a bit are 0, and memory holds something else.
__device__ inline float4 read_coefficients(const float* c, int step, uint32_t bits) {
  if ((bits & 15U) == 0) return {0, 0, 0, 0};
  float4 four = *reinterpret_cast<const float4*>(c);
  if (step == 2) {
    const float4 more = *reinterpret_cast<const float4*>(c + 4);
    four = {four.x, four.z, more.x, more.z};
  }
  return {(bits & 1U) != 0 ? four.x : 0, (bits & 2U) != 0 ? four.y : 0,
          (bits & 4U) != 0 ? four.z : 0, (bits & 8U) != 0 ? four.w : 0};
}

// What a thread brings from memory for a segment, while the one before is multiplied.
template <bool by_columns>
struct SegmentPart {
  float4 c[2];
  float4 y[2];

  // Threads of a warp have two pieces of 16 rows, which they write to different banks; of columns,
  // two rows of the chunk.
  __device__ static int row(int u) {
    const int item = static_cast<int>(threadIdx.x) + u * kTileThreads;
    return by_columns ? item / 16 : warp_of() % 4 * 16 + lane_of() / 2;
  }
  __device__ static int column(int u) {
    return 4 * (by_columns ? static_cast<int>(threadIdx.x) % 16
                           : warp_of() / 4 * 4 + u * 2 + lane_of() % 2);
  }

  __device__ void load(const DenseState& state, const Weighed& weighed, int64_t first, int64_t k,
                       int64_t feature, const uint32_t* bits) {
    const auto* const slots = static_cast<const float*>(state.slots);
    const PackedRows& terms = state.rows[weighed.side == 0 ? 1 : 0];
    const int64_t begin = k + (weighed.side == 0 ? 0 : weighed.chunk.first);
    const int f = static_cast<int>(threadIdx.x) % 16 * 4;
#pragma unroll
    for (int u = 0; u < 2; ++u) {
      const int64_t at = (by_columns ? k : first) + row(u);
      const int64_t j = (by_columns ? first : k) + column(u);
      const uint32_t word = by_columns ? bits[2 * row(u) + column(u) / kWarp] : bits[row(u)];
      c[u] = read_coefficients(slots + (at * state.stride + j) * weighed.step, weighed.step,
                               word >> (column(u) % kWarp));
      const int term = static_cast<int>(threadIdx.x) / 16 + 16 * u;
      const float* const from = terms.y + (begin + term) * state.width + feature + f;
      y[u] = float4{0, 0, 0, 0};
      if (feature + f < state.width) y[u] = *reinterpret_cast<const float4*>(from);
    }
  }
  __device__ void store(WeighStage& stage) const {
#pragma unroll
    for (int u = 0; u < 2; ++u) {
      if constexpr (by_columns) {
        *reinterpret_cast<float4*>(stage.c[row(u)] + column(u)) = c[u];
      } else {
        stage.c[column(u)][row(u)] = c[u].x;
        stage.c[column(u) + 1][row(u)] = c[u].y;
        stage.c[column(u) + 2][row(u)] = c[u].z;
        stage.c[column(u) + 3][row(u)] = c[u].w;
      }
      const int term = static_cast<int>(threadIdx.x) / 16 + 16 * u;
      *reinterpret_cast<float4*>(stage.y[term] + static_cast<int>(threadIdx.x) % 16 * 4) = y[u];
    }
  }
};

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

// Adds the sums of coefficients of a tile to those of its rows, or leaves a partial sum.
__device__ inline void keep_weights(const DenseState& state, const Weighed& weighed, int64_t first,
                                    double own) {
  __shared__ double quarters[kTileThreads];
  quarters[threadIdx.x] = own;
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

// Products for a tile of the result, of the block's split of the terms.
template <bool by_columns>
__device__ void weigh_tile(const DenseState& state, const Weighed& weighed, int64_t tile,
                           int64_t feature, WeighStage (&stage)[2], SegmentBits& bits) {
  const int64_t first = tile * kTile;
  const int64_t segments = (weighed.terms + kSegment - 1) / kSegment;
  const int64_t begin = segments * blockIdx.y / weighed.splits * kSegment;
  const int64_t end = segments * (blockIdx.y + 1) / weighed.splits * kSegment;
  WeighSums sums;
  SegmentPart<by_columns> part;
  bool some = false;
  for (int64_t k = begin; k < end; k += kScanned * kSegment) {
    // Of hinges that are mostly inactive whole tiles are empty.
    unsigned live = read_bits<by_columns>(state, weighed, first, k, end, bits);
    some = some || live != 0;
    const auto load = [&] {
      const int segment = __ffs(static_cast<int>(live)) - 1;
      part.load(state, weighed, first, k + segment * kSegment, feature, bits.word[segment]);
    };
    if (live != 0) load();
    for (int at = 0; live != 0; at ^= 1) {
      part.store(stage[at]);
      __syncthreads();
      live &= live - 1;
      if (live != 0) load();
      sums.add(stage[at], feature == 0);
    }
  }
  if (weighed.splits > 1 && feature == 0 && threadIdx.x == 0) {
    const int64_t tiles = (weighed.rows + kTile - 1) / kTile;
    state.touched[blockIdx.y * tiles + tile] = some ? 1 : 0;
  }
  if (!some) return;
  keep_sums(state, weighed, first, feature, sums);
  if (feature == 0) keep_weights(state, weighed, first, sums.weight);
}

template <bool by_columns>
__global__ void __launch_bounds__(kTileThreads, 2)
    weigh_rows(const __grid_constant__ DenseState state, Weighed weighed) {
  await_inputs();
  if (!state.is_asked()) return;
  __shared__ WeighStage stage[2];
  __shared__ SegmentBits bits;
  const int64_t tiles = (weighed.rows + kTile - 1) / kTile;
  const int64_t all = tiles * ((state.dim + kTile - 1) / kTile);
  for (int64_t at = blockIdx.x; at < all; at += gridDim.x) {
    weigh_tile<by_columns>(state, weighed, at % tiles, at / tiles * kTile, stage, bits);
  }
}

// A thread a feature, and one for the sum of coefficients.
__global__ void __launch_bounds__(kTileThreads)
    add_partial(const __grid_constant__ DenseState state, Weighed weighed) {
  await_inputs();
  if (!state.is_asked()) return;
  const int64_t columns = state.dim + 1;
  const int64_t at = int64_t{blockIdx.x} * kTileThreads + threadIdx.x;
  if (at >= weighed.rows * columns) return;
  const int64_t tiles = (weighed.rows + kTile - 1) / kTile;
  const int64_t tile = at / columns / kTile;
  double sum = 0;
  bool some = false;
  for (int split = 0; split < weighed.splits; ++split) {
    if (state.touched[split * tiles + tile] == 0) continue;
    sum += state.partial[split * weighed.rows * columns + at];
    some = true;
  }
  if (!some) return;
  const int64_t row = (weighed.side == 0 ? weighed.chunk.first : 0) + at / columns;
  const int64_t k = at % columns;
  double* const to = k < state.dim ? state.sums[weighed.side] + row * state.dim + k
                                   : state.weights[weighed.side] + row;
  *to += sum;
}

}  // namespace flashmetric::cuda
