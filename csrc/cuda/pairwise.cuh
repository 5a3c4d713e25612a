// SPDX-License-Identifier: BSD-3-Clause
// Computes the distance matrix, for those who want it, and its gradient.
//
// Forward: a block of 256 threads has a tile of 32 x 32 distances, four a thread, and reads 32
// features of its rows at a time into shared memory, mapped and widened.
// Backward: a warp has a row. It goes through the other rows 32 at a time: keys by eight lanes a
// pair, then the sum of their directions; rows with a factor of 0 are passed by.
//
// Numerics: differences, in float64, rounded once.
#pragma once

#include "gradient_pairs.cuh"

namespace flashmetric::cuda {

constexpr int kSquare = 32;  // rows and columns of a tile, and features at a time
constexpr int kPairwiseThreads = 256;
constexpr int kPairwiseWarps = kPairwiseThreads / kWarp;
// Warps of the backward that have memory for the sums of a row: two blocks for each
// multiprocessor of an H100.
constexpr int kPairwiseBlocks = 264;

struct PairwiseState {
  KeyForm key{};
  int64_t dim = 0;
  AnyRows x, y;
  bool swapped = false, mirrored = false;
  bool constant_slope = false;  // no key is needed for it
  bool sloped = false;          // the cotangents have the slopes in them, and all is float64
  const void* cotangent = nullptr;
  int64_t row_stride = 0, col_stride = 0;
  void* out = nullptr;
  double* sums = nullptr;  // [kPairwiseBlocks][warps][dim]
};

template <class T>
struct PairwiseSets {
  RowView<T> x, y;
};

// The running sum over features of one pair.
template <Form form>
struct PairSum {
  double sum = 0;
  double other = 0;  // of the larger features

  __device__ void add(double a, double b, double p) {
    if constexpr (form == Form::overlap) {
      sum += lower_of(a, b);
      other += upper_of(a, b);
    } else {
      sum = accumulated<form>(sum, a, b, p);
    }
  }
  __device__ double key() const {
    if constexpr (form == Form::overlap) return -Overlap{sum, other}.share();
    return form == Form::product ? -sum : sum;
  }
};

// Features k .. k + 31 of rows first .. first + 31; what does not exist is 0.
template <class T>
__device__ void load_square(const KeyFacts& key, const RowView<T>& rows, int64_t first, int64_t k,
                            int64_t dim, double (&square)[kSquare][kSquare + 1]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int r = static_cast<int>(threadIdx.x) / kWarp; r < kSquare; r += kPairwiseWarps) {
    double value = 0;
    if (first + r < rows.n && k + lane < dim) {
      const double x = widened(rows.row(first + r)[k + lane]);
      const bool divides = value_differs<T>(key);
      value = divides ? x / rows.numbers.clamped_norm(first + r)
                      : rows.numbers.mapping(key, first + r).of(x);
    }
    square[r][lane] = value;
  }
}

template <class T, Form form>
__global__ void __launch_bounds__(kPairwiseThreads)
    pairwise_tiles(const __grid_constant__ PairwiseState state, PairwiseSets<T> sets) {
  using Out = typename GradientType<T>::type;
  __shared__ double x[kSquare][kSquare + 1];  // one more: columns lie in different banks
  __shared__ double y[kSquare][kSquare + 1];
  const int64_t squares = (state.y.n + kSquare - 1) / kSquare;
  const int64_t i_first = blockIdx.x / squares * kSquare;
  const int64_t j_first = blockIdx.x % squares * kSquare;
  const int row = static_cast<int>(threadIdx.x) / kWarp;
  const int col = static_cast<int>(threadIdx.x) % kWarp;
  PairSum<form> pairs[kSquare / kPairwiseWarps];
  for (int64_t k = 0; k < state.dim; k += kSquare) {
    load_square(state.key, sets.x, i_first, k, state.dim, x);
    load_square(state.key, sets.y, j_first, k, state.dim, y);
    __syncthreads();
    const int features = state.dim - k < kSquare ? static_cast<int>(state.dim - k) : kSquare;
    for (int f = 0; f < features; ++f) {
#pragma unroll
      for (int u = 0; u < kSquare / kPairwiseWarps; ++u) {
        pairs[u].add(x[row + u * kPairwiseWarps][f], y[col][f], state.key.power);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int u = 0; u < kSquare / kPairwiseWarps; ++u) {
    const int64_t i = i_first + row + u * kPairwiseWarps;
    const int64_t j = j_first + col;
    if (i >= state.x.n || j >= state.y.n) continue;
    const double key =
        finished_key(state.key, pairs[u].key(), sets.x.numbers, i, sets.y.numbers, j);
    static_cast<Out*>(state.out)[i * state.y.n + j] = static_cast<Out>(state.key.value(key));
  }
}

// The gradient of one row by one warp.
template <class T, Steps steps>
struct PairwiseRow {
  using Out = typename GradientType<T>::type;
  const PairwiseState& state;
  const PairwiseSets<T>& sets;
  const GradientRow<T>& row;
  RowPairs<T, steps> pairs;

  __device__ double factor(int64_t i, int64_t j) const {
    const int64_t at = i * state.row_stride + j * state.col_stride;
    return state.sloped ? static_cast<const double*>(state.cotangent)[at]
                        : widened(static_cast<const Out*>(state.cotangent)[at]);
  }

  // The slope of the pair with row j of each lane, of those that `some` names.
  __device__ double slope(int64_t j, unsigned some) const {
    if (state.sloped) return 1;
    if (state.constant_slope) return state.key.slope(1);
    return lane_keys(some, j, [&](int64_t other) {
      return state.key.slope(pair_value(state.key, sets.x, row.i, sets.y, other, state.dim));
    });
  }

  // Adds the pairs with row j of each lane where the weight is not 0; `query`: this row is the
  // query of its pairs. Returns whether there are any.
  __device__ bool add(int64_t j, double weight, bool query) const {
    const unsigned some = __ballot_sync(kAllLanes, weight != 0);
    if (some == 0) return false;
    pairs.add(some, j, weight * slope(j, some), query);
    return true;
  }

  // Whether any pair was added.
  __device__ bool add_all_rows() const {
    bool touched = false;
    for (int64_t k = threadIdx.x % kWarp; k < state.dim; k += kWarp) pairs.sums[k] = 0;
    for (int64_t first = 0; first < state.y.n; first += kWarp) {
      const int64_t lane = first + threadIdx.x % kWarp;
      const bool exists = lane < state.y.n;
      const int64_t j = exists ? lane : state.y.n - 1;
      double own = exists ? factor(row.i, j) : 0;
      if (state.mirrored) {
        const double mirrored = exists ? factor(j, row.i) : 0;
        if (state.key.relative) {  // whose pairs are not symmetric
          touched |= add(j, mirrored, false);
        } else {
          own += mirrored;
        }
      }
      touched |= add(j, own, !state.swapped);
    }
    return touched;
  }

  __device__ void write() const {
    const double* const sums = pairs.sums;
    const double along = row.along(sums);
    for (int64_t k = threadIdx.x % kWarp; k < state.dim; k += kWarp) {
      const double more = row.through_norm(sums[k], along, k);
      const int64_t at = row.i * state.dim + k;
      if (state.sloped) {
        static_cast<double*>(state.out)[at] += more;
      } else {
        Out& out = static_cast<Out*>(state.out)[at];
        out = static_cast<Out>(widened(out) + more);
      }
    }
  }
};

template <class T, Steps steps>
__global__ void __launch_bounds__(kPairwiseThreads)
    pairwise_rows(const __grid_constant__ PairwiseState state, PairwiseSets<T> sets) {
  alignas(16) __shared__ char shared[kPairwiseWarps][kWarp * sizeof(TouchedPair<T>)];
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t slot = int64_t{blockIdx.x} * kPairwiseWarps + warp;
  for (int64_t i = slot; i < state.x.n; i += int64_t{gridDim.x} * kPairwiseWarps) {
    const GradientRow<T> row(state.key, sets.x, i, state.dim);
    const RowPairs<T, steps> pairs{row, sets.y, reinterpret_cast<TouchedPair<T>*>(shared[warp]),
                                   state.sums + slot * state.dim};
    const PairwiseRow<T, steps> own{state, sets, row, pairs};
    // A NaN row without a pair must not come near its norm: its 0 would become NaN.
    if (own.add_all_rows()) own.write();
  }
}

}  // namespace flashmetric::cuda
