// SPDX-License-Identifier: BSD-3-Clause
// Measures rows and groups their classes: the first two kernels of `prepare`.
//
// Algorithm: eight lanes a row compute the numbers that its keys need; one of them enters the class
// of the row into a hash table and counts it. Then every class that exists takes a range of
// positions, of queries and references alike. The order of classes, and of rows within a class, is
// that in which atomics happen to arrive: no result depends on it, for keys decide every choice,
// and of equal keys the lowest row.
#pragma once

#include "../certificate.h"
#include "state.cuh"

namespace flashmetric::cuda {

constexpr int kMeasureThreads = 256;

template <class T>
__device__ double measure_row(const KeyFacts& key, const RowView<T>& rows, int64_t i, int64_t dim,
                              bool writes) {
  const T* x = rows.row(i);
  const double norm =
      ::sqrt(PairRows<T, T>{x, x, {}, {}, dim}.template key<Form::product>(2, false));
  if (writes) rows.numbers.norm[i] = norm;
  if (!key.needs_means()) return norm;
  const double scale = key.scaled ? 1.0 / (norm < kMinNorm ? kMinNorm : norm) : 1.0;
  double part = 0;
#pragma unroll 8
  for (int64_t k = threadIdx.x % 8; k < dim; k += 8) part += widened(x[k]) * scale;
  const double mean = dim == 0 ? 0 : sum8(part) / static_cast<double>(dim);
  if (writes) rows.numbers.mean[i] = mean;
  if (!key.relative) return norm;
  const Mapping map{scale, mean};
  const double energy = PairRows<T, T>{x, x, map, map, dim}.template key<Form::product>(2);
  if (writes) rows.numbers.energy[i] = energy;
  return norm;
}

// One atomic a block: those of all rows to one address would take longer than the norms.
__device__ inline void keep_longest(const Compared& state, double norm) {
  __shared__ double of_warp[kMeasureThreads / kWarp];
  for (int step = kWarp / 2; step > 0; step /= 2) {
    norm = ::fmax(norm, __shfl_xor_sync(kAllLanes, norm, step));
  }
  if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = norm;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (const double other : of_warp) norm = ::fmax(norm, other);
  atomicMax(&state.tally->longest, static_cast<unsigned long long>(__double_as_longlong(norm)));
}

__device__ inline uint32_t hashed(int64_t label) {
  uint64_t bits = static_cast<uint64_t>(label) * 0x9E3779B97F4A7C15ULL;  // 2^64 / golden ratio
  bits ^= bits >> 29;
  bits *= 0xBF58476D1CE4E5B9ULL;
  return static_cast<uint32_t>(bits >> 32);
}

// The slot of a class, new or known. `number` names a row that has it.
__device__ inline int32_t enter_class(const ClassTable& table, const LabelView& labels,
                                      int64_t label, int32_t number) {
  const auto mask = static_cast<uint32_t>(table.slots - 1);
  for (uint32_t slot = hashed(label) & mask;; slot = (slot + 1) & mask) {
    const int32_t owner = atomicCAS(table.owner + slot, 0, number + 1);
    if (owner == 0) return static_cast<int32_t>(slot);
    const int64_t row = owner - 1;
    const int64_t known = row < labels.n_ref
                              ? static_cast<const int64_t*>(labels.ref)[row]
                              : static_cast<const int64_t*>(labels.query)[row - labels.n_ref];
    if (known == label) return static_cast<int32_t>(slot);
  }
}

// side 0: queries, 1: references.
template <class T>
__global__ void __launch_bounds__(kMeasureThreads)
    measure_rows(MineState state, RowView<T> rows, int side) {
  const int64_t i = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / 8;
  const bool exists = i < rows.n;
  const int64_t row = exists ? i : 0;
  const bool writes = exists && threadIdx.x % 8 == 0;
  const double norm = measure_row(state.key, rows, row, state.dim, writes);
  if (!state.by_tiles) return;
  keep_longest(state, exists && norm <= Precision<float>::max_norm ? norm : 0);
  if (!writes) return;
  const LabelView& labels = state.labels;
  const bool kept = side == 0 ? labels.query_takes_part(row) : labels.ref_takes_part(row);
  int32_t slot = -1;
  if (kept) {
    const void* ids = side == 0 ? labels.query : labels.ref;
    const auto number = static_cast<int32_t>(side == 0 ? labels.n_ref + row : row);
    slot = enter_class(state.classes, labels, static_cast<const int64_t*>(ids)[row], number);
    atomicAdd(state.classes.count[side] + slot, 1);
  }
  state.ranked[side].slot[row] = slot;
}

// Ranges of positions for the classes: one atomic a warp.
__device__ inline void place_classes(const MineState& state, int64_t slot) {
  const ClassTable& table = state.classes;
  const bool exists = slot < table.slots;
  const auto queries = static_cast<unsigned long long>(exists ? table.count[0][slot] : 0);
  const auto refs = static_cast<unsigned long long>(exists ? table.count[1][slot] : 0);
  const unsigned long long own = queries << 32 | refs;
  const unsigned long long before = sum_through_lane(own);  // halves do not carry
  const unsigned long long all = __shfl_sync(kAllLanes, before, kWarp - 1);
  unsigned long long base = 0;
  if (lane_of() == 0 && all != 0) base = atomicAdd(&state.tally->cursor, all);
  base = __shfl_sync(kAllLanes, base, 0) + before - own;
  if (!exists) return;
  table.begin[0][slot] = static_cast<int32_t>(base >> 32);
  table.begin[1][slot] = static_cast<int32_t>(base & 0xFFFFFFFFULL);
}

constexpr int kSlice = 128;  // features at a time
constexpr int kSample = 64;  // rows; their mean is within 1/8 of the spread of the true mean

// Which rows of the sample make the centre, and what multiplies and moves their features.
struct Sample {
  double norm[kSample];  // -1: not regular
  double weight[kSample];
  double shift[kSample];
  double limit;
};

__device__ inline void weigh_sample(const Compared& state, const RowNumbers& numbers, int n,
                                    int64_t spacing, Sample& sample) {
  const auto t = static_cast<int>(threadIdx.x);
  if (t < n) {
    const double measured = numbers.norm[t * spacing];
    sample.norm[t] = measured <= Precision<float>::max_norm ? measured : -1;
  }
  if (t == 0) sample.limit = 0;
  __syncthreads();
  if (t < n && sample.norm[t] >= 0) {
    int below = 0;
    int regular = 0;
    for (int s = 0; s < n; ++s) {
      const double other = sample.norm[s];
      regular += other >= 0;
      below += other >= 0 && (other < sample.norm[t] || (other == sample.norm[t] && s < t));
    }
    // 8 medians: a row so long would move the mean of 64 rows by more than their length / 8.
    if (below == regular / 2) sample.limit = 8 * sample.norm[t];
  }
  __syncthreads();
  const bool used = t < n && sample.norm[t] >= 0 && sample.norm[t] <= sample.limit;
  const int count = __syncthreads_count(used);
  if (t >= n) return;
  const double scale = state.key.needs_norms() ? 1.0 / numbers.clamped_norm(t * spacing) : 1.0;
  sample.weight[t] = used ? scale / count : 0;
  sample.shift[t] = used && state.key.relative ? numbers.mean[t * spacing] / count : 0;
}

// 128 features of the centre: the mean of a sample without outliers. A warp adds up its eight rows
// of the sample, then come the sums of all warps.
template <class T>
__device__ void choose_centre(const Compared& state, const RowView<T>& refs, int64_t slice) {
  constexpr int warps = kMeasureThreads / kWarp;
  __shared__ Sample sample;
  __shared__ double share[warps][kSlice];
  const int n = refs.n < kSample ? static_cast<int>(refs.n) : kSample;
  if (n == 0) return;  // nobody to compare with
  const int64_t spacing = refs.n / n;
  weigh_sample(state, refs.numbers, n, spacing, sample);
  __syncthreads();
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  double sum[kSlice / kWarp] = {};
#pragma unroll
  for (int s = 0; s < kSample / warps; ++s) {
    const int at = warp * (kSample / warps) + s;
    const T* const row = refs.row(at < n ? at * spacing : 0);
    const bool used = at < n && sample.weight[at] != 0;
#pragma unroll
    for (int f = 0; f < kSlice / kWarp; ++f) {
      const int64_t k = slice + f * kWarp + lane;
      const double x = widened(row[k < state.dim ? k : 0]);
      sum[f] += used ? x * sample.weight[at] - sample.shift[at] : 0;
    }
  }
#pragma unroll
  for (int f = 0; f < kSlice / kWarp; ++f) share[warp][f * kWarp + lane] = sum[f];
  __syncthreads();
  if (threadIdx.x >= kSlice) return;
  double square = 0;
  if (slice + threadIdx.x < state.dim) {
    double total = 0;
    for (int w = 0; w < warps; ++w) total += share[w][threadIdx.x];
    const auto rounded = static_cast<float>(total);
    state.centre[slice + threadIdx.x] = rounded;
    square = static_cast<double>(rounded) * static_cast<double>(rounded);
  }
  square = warp_sum(square);
  const int64_t first = slice + warp * kWarp;
  if (lane == 0 && first < state.dim) state.centre_squares[first / kWarp] = square;
}

template <class T>
__global__ void __launch_bounds__(kMeasureThreads)
    group_classes(const __grid_constant__ MineState state, RowView<T> refs, unsigned slices) {
  if (blockIdx.x < slices) return choose_centre(state, refs, int64_t{blockIdx.x} * kSlice);
  place_classes(state, int64_t{blockIdx.x - slices} * blockDim.x + threadIdx.x);
}

}  // namespace flashmetric::cuda
