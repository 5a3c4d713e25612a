// SPDX-License-Identifier: BSD-3-Clause
// Chooses by float64 keys alone: whole rows of them. For rows that tiles could not decide, for
// distances and relations that they do not rank, for small batches, and for GPUs without bfloat16
// units.
//
// Algorithm: a block takes 32 queries and one split of the references, tile after tile of 32. 16
// features at a time come to shared memory, mapped; each thread adds up the keys of 2 x 2 pairs in
// the order of reference.rank_key: eight partial sums a pair. Bests stay in registers.
#pragma once

#include "state.cuh"

namespace flashmetric::cuda {

constexpr int kKeyTile = 32;
constexpr int kKeyDepth = 16;  // features at a time
constexpr int kKeyThreads = 256;

// Partial sums of the pairs of a thread; an overlap has two each.
template <Form form>
struct KeySums {
  static constexpr int kinds = form == Form::overlap ? 2 : 1;
  double part[2][2][kinds][8];

  __device__ void reset() {
#pragma unroll
    for (int p = 0; p < 4 * kinds * 8; ++p) (&part[0][0][0][0])[p] = 0;
  }
  __device__ void add(int a, int b, int lane, double x, double r, double power) {
    double* sums = part[a][b][0];
    if constexpr (form == Form::overlap) {
      sums[lane] = sums[lane] + lower_of(x, r);
      part[a][b][1][lane] = part[a][b][1][lane] + upper_of(x, r);
    } else {
      sums[lane] = accumulated<form>(sums[lane], x, r, power);
    }
  }
  __device__ double total(int a, int b, int kind) const {
    const double* s = part[a][b][kind];
    if constexpr (form == Form::maximum) {
      double most = s[0];
      for (int lane = 1; lane < 8; ++lane) most = larger(most, s[lane]);
      return most;
    }
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
  }
  __device__ double key(int a, int b) const {
    if constexpr (form == Form::overlap) return -Overlap{total(a, b, 0), total(a, b, 1)}.share();
    return form == Form::product ? -total(a, b, 0) : total(a, b, 0);
  }
};

// Mapped features of 32 rows; a row of zeros where there is none.
struct KeyStage {
  double feature[kKeyDepth][kKeyTile + 1];

  // 8 threads a row, 2 features each.
  __device__ void load(const KeyFacts& key, const AnyRows& rows, int64_t row, int64_t k,
                       int64_t dim) {
    const int r = static_cast<int>(threadIdx.x) / 8;
    const int f = static_cast<int>(threadIdx.x) % 8 * 2;
    const Mapping map = row >= 0 ? rows.numbers.mapping(key, row) : Mapping{};
    for (int e = f; e < f + 2; ++e) {
      const bool exists = row >= 0 && k + e < dim;
      feature[e][r] = exists ? map.of(rows.feature(row, k + e)) : 0;
    }
  }
};

struct KeyRange {
  int64_t begin, end;  // references of this split
};

template <Form form>
__device__ void sum_tile(const Compared& state, int64_t query_row, int64_t ref_row,
                         KeyStage& x_stage, KeyStage& r_stage, KeySums<form>& sums) {
  const int tx = static_cast<int>(threadIdx.x) % 16;
  const int ty = static_cast<int>(threadIdx.x) / 16;
  sums.reset();
  for (int64_t k = 0; k < state.dim; k += kKeyDepth) {
    x_stage.load(state.key, state.query, query_row, k, state.dim);
    r_stage.load(state.key, state.ref, ref_row, k, state.dim);
    __syncthreads();
#pragma unroll
    for (int f = 0; f < kKeyDepth; ++f) {
      const double x[2] = {x_stage.feature[f][ty], x_stage.feature[f][ty + 16]};
      const double r[2] = {r_stage.feature[f][tx], r_stage.feature[f][tx + 16]};
#pragma unroll
      for (int a = 0; a < 2; ++a) {
#pragma unroll
        for (int b = 0; b < 2; ++b) sums.add(a, b, f % 8, x[a], r[b], state.key.power);
      }
    }
    __syncthreads();
  }
}

template <Form form>
__device__ void offer_tile(const MineState& state, const int64_t (&query)[2], int64_t first_ref,
                           const KeyRange& range, const KeySums<form>& sums,
                           BestPair (&best)[2][2]) {
  const int tx = static_cast<int>(threadIdx.x) % 16;
#pragma unroll
  for (int a = 0; a < 2; ++a) {
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      const int64_t i = query[a];
      const int64_t j = first_ref + tx + 16 * b;
      if (i < 0 || j >= range.end) continue;
      const Role role = state.labels.role(i, j);
      if (role == kNeither) continue;
      const double key =
          finished_key(state.key, sums.key(a, b), state.query.numbers, i, state.ref.numbers, j);
      // Written so that no index is known only at run time: bests live in registers.
      if (role == kPositive) {
        best[a][kPositive].offer(state.farthest[kPositive] ? -key : key, j);
      } else {
        best[a][kNegative].offer(state.farthest[kNegative] ? -key : key, j);
      }
    }
  }
}

// The best of the sixteen lanes that share a query.
__device__ inline void merge_lanes(BestPair (&best)[2][2]) {
#pragma unroll
  for (int lanes = 8; lanes > 0; lanes /= 2) {
    best[0][0].offer_lane(lanes);
    best[0][1].offer_lane(lanes);
    best[1][0].offer_lane(lanes);
    best[1][1].offer_lane(lanes);
  }
}

// Rows of the list, or all.
__device__ inline int64_t listed_row(const MineState& state, bool all, int64_t n, int64_t at) {
  if (at >= n) return -1;
  const int64_t i = all ? at : state.by_keys[at];
  return state.labels.query_takes_part(i) ? i : -1;
}

template <Form form>
__global__ void __launch_bounds__(kKeyThreads) reduce_keys(MineState state) {
  await_inputs();
  __shared__ KeyStage x_stage;
  __shared__ KeyStage r_stage;
  const bool all = state.all_by_keys();
  const int64_t n = all ? state.query.n : state.tally->n_by_keys;
  const int64_t share = (state.ref.n + gridDim.y - 1) / gridDim.y;
  const int64_t begin = share * blockIdx.y;
  const KeyRange range{begin, begin + share < state.ref.n ? begin + share : state.ref.n};
  const int loaded = static_cast<int>(threadIdx.x) / 8;
  const int ty = static_cast<int>(threadIdx.x) / 16;
  for (int64_t group = int64_t{blockIdx.x} * kKeyTile; group < n;
       group += int64_t{gridDim.x} * kKeyTile) {
    const int64_t query[2] = {listed_row(state, all, n, group + ty),
                              listed_row(state, all, n, group + ty + 16)};
    const int64_t query_row = listed_row(state, all, n, group + loaded);
    BestPair best[2][2];
    // Written out: nvcc 13.0 gives the second row of such an array zeros instead.
    best[0][0] = best[0][1] = best[1][0] = best[1][1] = BestPair{0, -1};
    for (int64_t j = range.begin; j < range.end; j += kKeyTile) {
      KeySums<form> sums;
      sum_tile(state, query_row, j + loaded < range.end ? j + loaded : -1, x_stage, r_stage, sums);
      offer_tile(state, query, j, range, sums, best);
    }
    merge_lanes(best);
    if (threadIdx.x % 16 != 0) continue;
#pragma unroll
    for (int a = 0; a < 2; ++a) {
      if (query[a] < 0) continue;
      const int64_t at = blockIdx.y * state.query.n + query[a];
      state.partial[0][at] = {best[a][0].key, best[a][0].row};
      state.partial[1][at] = {best[a][1].key, best[a][1].row};
    }
  }
}

}  // namespace flashmetric::cuda
