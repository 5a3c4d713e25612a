// SPDX-License-Identifier: BSD-3-Clause
// Gradients of dense losses pair by pair, in float64: of all pairs where they are no products of
// matrices (sums over features, distances relative to the query, float64 rows), else of near ones.
// A warp has a row of the chunk, or a column. And the end of all gradients: scales and the norm.
#pragma once

#include "dense_state.cuh"
#include "gradient_pairs.cuh"

namespace flashmetric::cuda {

constexpr int kPairThreads = 256;
constexpr int kPairWarps = kPairThreads / kWarp;
constexpr int kPairBlocks =
    2;  // of a multiprocessor: leaves a lane room to read four pairs at once
// Columns of a warp: near pairs are few, and a block looks at a word for all of its columns.
constexpr int kPairColumns = kWarp / kPairWarps;
// Rows whose words it reads at a time, four each thread.
constexpr int kScannedRows = 4 * kPairThreads;
static_assert(kScannedRows == kWarp * kWarp);  // a bit for each group of rows that lanes look at

// Collects pairs of one row until a warp has as many as it adds at once. All lanes come.
template <class T, Steps steps>
struct PairQueue {
  const RowPairs<T, steps>& pairs;
  bool query;
  int held = 0;

  __device__ void add(unsigned some, int64_t j, double coefficient) {
    const int more = __popc(some);
    if (held + more > kWarp) flush();
    if (more > 0) pairs.put(held, some, j, coefficient, query);
    held += more;
  }
  __device__ void flush() {
    pairs.add_all(held);
    held = 0;
  }
};

template <class T, class H>
struct DensePairs {
  const DenseState& state;
  Chunk chunk;

  __device__ uint32_t word_of(int64_t at, int64_t word) const {
    return state.near[at * (state.stride / kWarp) + word];
  }
  // The coefficient of a pair whose bit is set.
  __device__ double coefficient(bool set, int64_t at, int64_t j) const {
    return set ? static_cast<double>(slots_of<T, H>(state, at)[j].c) : 0;
  }

  // The pairs of a row; a lane looks at a word.
  template <Steps steps>
  __device__ void add_row(const RowPairs<T, steps>& pairs, int64_t at) const {
    PairQueue<T, steps> queue{pairs, true};
    for (int64_t first = 0; first * kWarp < state.ref.n; first += kWarp) {
      const int64_t own = first + lane_of();
      const uint32_t bits = own * kWarp < state.ref.n ? word_of(at, own) : 0;
      for (unsigned left = __ballot_sync(kAllLanes, bits != 0); left != 0; left &= left - 1) {
        const int from = __ffs(static_cast<int>(left)) - 1;
        const uint32_t word = __shfl_sync(kAllLanes, bits, from);
        const int64_t j = (first + from) * kWarp + lane_of();
        const double c = coefficient((word >> lane_of() & 1U) != 0, at, j);
        queue.add(__ballot_sync(kAllLanes, c != 0), j < state.ref.n ? j : 0, c);
      }
    }
    queue.flush();
  }

  // Of column j, the rows from `at` on whose words are there; `groups` of kWarp of them have one
  // that may be near.
  template <Steps steps>
  __device__ void add_column(const RowPairs<T, steps>& pairs, int64_t at, int64_t j,
                             unsigned groups, const uint32_t* words) const {
    PairQueue<T, steps> queue{pairs, false};
    for (; groups != 0; groups &= groups - 1) {
      const int place = (__ffs(static_cast<int>(groups)) - 1) * kWarp + lane_of();
      const int64_t own = at + place;
      const double c = coefficient((words[place] >> (j % kWarp) & 1U) != 0, own, j);
      const unsigned some = __ballot_sync(kAllLanes, c != 0);
      queue.add(some, chunk.first + (own < chunk.rows ? own : 0), c);
    }
    queue.flush();
  }
};

template <class T>
struct PairBuffer {
  alignas(16) char of[kPairWarps][kWarp * sizeof(TouchedPair<T>)];
  __device__ TouchedPair<T>* pairs() {
    return reinterpret_cast<TouchedPair<T>*>(of[threadIdx.x / kWarp]);
  }
};

template <class T, class H, Steps steps>
__global__ void __launch_bounds__(kPairThreads, kPairBlocks)
    pairs_of_rows(const __grid_constant__ DenseState state, RowView<T> x, RowView<T> r,
                  Chunk chunk) {
  await_inputs();
  if (!state.is_asked()) return;
  __shared__ PairBuffer<T> buffer;
  const int64_t step = int64_t{gridDim.x} * kPairWarps;
  for (int64_t at = int64_t{blockIdx.x} * kPairWarps + warp_of(); at < chunk.rows; at += step) {
    const int64_t i = chunk.first + at;
    const GradientRow<T> row(state.key, x, i, state.dim);
    const RowPairs<T, steps> pairs{row, r, buffer.pairs(), state.sums[0] + i * state.dim};
    DensePairs<T, H>{state, chunk}.add_row(pairs, at);
  }
}

// The columns of a word; a warp has kPairColumns of them.
template <class T, class H, Steps steps>
__device__ void add_word(const DensePairs<T, H>& dense, const RowView<T>& x, const RowView<T>& r,
                         int64_t word, PairBuffer<T>& buffer, uint32_t (&words)[kScannedRows]) {
  const DenseState& state = dense.state;
  const int64_t rows = dense.chunk.rows;
  const int64_t first = word * kWarp + warp_of() * kPairColumns;
  for (int64_t begin = 0; begin < rows; begin += kScannedRows) {
    bool some = false;
#pragma unroll
    for (int at = static_cast<int>(threadIdx.x); at < kScannedRows; at += kPairThreads) {
      words[at] = begin + at < rows ? dense.word_of(begin + at, word) : 0;
      some = some || words[at] != 0;
    }
    if (__syncthreads_or(some) == 0) continue;
    unsigned groups = 0;
    for (int group = 0; group < kScannedRows / kWarp; ++group) {
      const uint32_t bits = words[group * kWarp + lane_of()] >> (first % kWarp);
      constexpr uint32_t columns = (1U << kPairColumns) - 1;
      groups |= __any_sync(kAllLanes, (bits & columns) != 0) ? 1U << group : 0;
    }
    for (int64_t j = first; groups != 0 && j < first + kPairColumns && j < r.n; ++j) {
      const GradientRow<T> row(state.key, r, j, state.dim);
      const RowPairs<T, steps> pairs{row, x, buffer.pairs(), state.sums[1] + j * state.dim};
      dense.add_column(pairs, begin, j, groups, words);
    }
    __syncthreads();
  }
}

// A block has a word after the other.
template <class T, class H, Steps steps>
__global__ void __launch_bounds__(kPairThreads, kPairBlocks)
    pairs_of_columns(const __grid_constant__ DenseState state, RowView<T> x, RowView<T> r,
                     Chunk chunk) {
  await_inputs();
  if (!state.is_asked()) return;
  __shared__ PairBuffer<T> buffer;
  __shared__ uint32_t words[kScannedRows];
  const DensePairs<T, H> dense{state, chunk};
  for (int64_t word = blockIdx.x; word * kWarp < r.n; word += gridDim.x) {
    add_word<T, H, steps>(dense, x, r, word, buffer, words);
  }
}

// What the sums of a row become, still of the normalised row where there is one. Of packed rows
// S y is added, y once more in float64: the rounding of its packed copy would be multiplied by the
// sum of all its coefficients; of product keys S times the centre, which packed rows lack.
template <class T>
struct DenseGradient {
  const DenseState& state;
  const GradientRow<T>& row;
  double* sums;   // [dim]
  double weight;  // S
  double scale;

  __device__ double at(int64_t k) const {
    if (weight == 0) return sums[k] * scale;
    const auto centre = static_cast<double>(state.centre[k]);
    const bool difference = state.key.form == Form::difference;
    const double z = widened(row.rows.row(row.i)[k]) * row.map.scale;
    return (sums[k] + weight * (difference ? z - centre : centre)) * scale;
  }
};

template <class T>
__device__ void write_gradient(const DenseState& state, const RowView<T>& rows, int side,
                               int64_t i) {
  const GradientRow<T> row(state.key, rows, i, state.dim);
  const auto gradient_of = [&](int which, int kind) {
    return DenseGradient<T>{state, row, state.sums[which] + i * state.dim,
                            state.packed ? state.weights[which][i] : 0,
                            state.scaled ? 1 : state.scales->kind[kind]};
  };
  const DenseGradient<T> gradient = gradient_of(side, 0);
  double* const sums = gradient.sums;
  auto* const out = static_cast<T*>(state.grad[side]) + i * state.dim;
  bool touched = false;
  for (int64_t k = threadIdx.x % kWarp; k < state.dim; k += kWarp) {
    const double all = gradient.at(k);
    sums[k] = state.marked ? all + gradient_of(1, 1).at(k) : all;
    touched = touched || sums[k] != 0;
  }
  // A NaN row without a pair must not come near its norm: its 0 would become NaN.
  touched = __any_sync(kAllLanes, touched);
  const double along = touched ? row.along(sums) : 0;
  for (int64_t k = threadIdx.x % kWarp; k < state.dim; k += kWarp) {
    out[k] = static_cast<T>(touched ? row.through_norm(sums[k], along, k) : 0.0);
  }
}

// A warp a row.
template <class T>
__global__ void __launch_bounds__(kPairThreads)
    write_gradients(const __grid_constant__ DenseState state, RowView<T> rows, int side) {
  await_inputs();
  if (!state.is_asked()) return;
  const int64_t step = int64_t{gridDim.x} * kPairWarps;
  for (int64_t i = int64_t{blockIdx.x} * kPairWarps + warp_of(); i < rows.n; i += step) {
    write_gradient(state, rows, side, i);
  }
}

}  // namespace flashmetric::cuda
