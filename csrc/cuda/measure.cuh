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
  const double scale = key.scaled ? 1.0 / clamped(norm) : 1.0;
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

// Whether bfloat16 holds the features of a row that these eight lanes read.
template <class T>
__device__ bool is_fine(const T* x, int64_t dim) {
  bool fine = false;
#pragma unroll 8
  for (int64_t k = threadIdx.x % 8; k < dim; k += 8) {
    const auto narrow = __float2bfloat16_rn(static_cast<float>(x[k]));
    fine |= widened(narrow) != widened(x[k]);
  }
  return fine;
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
  if (state.split) {
    const bool fine = __syncthreads_or(exists && is_fine(rows.row(row), state.dim)) != 0;
    if (fine && threadIdx.x == 0) atomicExch(&state.tally->is_fine, 1);
  }
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

// Four threads a row of the sample.
__device__ inline void weigh_sample(const Compared& state, const RowNumbers& numbers, int n,
                                    int64_t spacing, Sample& sample) {
  static_assert(kMeasureThreads == 4 * kSample);
  const int t = static_cast<int>(threadIdx.x) / 4;
  const int part = static_cast<int>(threadIdx.x) % 4;
  const bool leads = part == 0 && t < n;
  if (leads) {
    const double measured = numbers.norm[t * spacing];
    sample.norm[t] = measured <= Precision<float>::max_norm ? measured : -1;
  }
  if (threadIdx.x == 0) sample.limit = 0;
  __syncthreads();
  const double own = t < n ? sample.norm[t] : -1;
  int below = 0;
  int regular = 0;
  for (int s = part; s < n; s += 4) {
    const double other = sample.norm[s];
    regular += other >= 0;
    below += other >= 0 && (other < own || (other == own && s < t));
  }
  for (int lanes = 1; lanes < 4; lanes *= 2) {
    below += __shfl_xor_sync(kAllLanes, below, lanes);
    regular += __shfl_xor_sync(kAllLanes, regular, lanes);
  }
  // 8 medians: a row so long would move the mean of 64 rows by more than their length / 8.
  if (leads && own >= 0 && below == regular / 2) sample.limit = 8 * own;
  __syncthreads();
  const bool used = leads && own >= 0 && own <= sample.limit;
  const int count = __syncthreads_count(used);
  if (!leads) return;
  const double scale = state.key.needs_norms() ? 1.0 / numbers.clamped_norm(t * spacing) : 1.0;
  sample.weight[t] = used ? scale / count : 0;
  sample.shift[t] = used && state.key.relative ? numbers.mean[t * spacing] / count : 0;
}

// What a thread reads of the sample: its features of the eight rows of its warp.
template <class T>
struct SampleShare {
  static constexpr int kWarps = kMeasureThreads / kWarp;
  static constexpr int kRows = kSample / kWarps;
  static constexpr int kEach = kSlice / kWarp;
  T x[kRows][kEach];

  __device__ static int row(int s) { return warp_of() * kRows + s; }

  __device__ void read(const RowView<T>& refs, int n, int64_t spacing, int64_t slice, int64_t dim) {
#pragma unroll
    for (int s = 0; s < kRows; ++s) {
      const T* const from = refs.row(row(s) < n ? row(s) * spacing : 0);
#pragma unroll
      for (int f = 0; f < kEach; ++f) {
        const int64_t k = slice + f * kWarp + lane_of();
        x[s][f] = from[k < dim ? k : 0];
      }
    }
  }
  __device__ void add_up(const Sample& sample, int n, double (&to)[kSlice]) const {
    double sum[kEach] = {};
#pragma unroll
    for (int s = 0; s < kRows; ++s) {
      const int at = row(s);
      const bool used = at < n && sample.weight[at] != 0;
#pragma unroll
      for (int f = 0; f < kEach; ++f) {
        sum[f] += used ? widened(x[s][f]) * sample.weight[at] - sample.shift[at] : 0;
      }
    }
#pragma unroll
    for (int f = 0; f < kEach; ++f) to[f * kWarp + lane_of()] = sum[f];
  }
};

// 128 features of the centre: the mean of a sample without outliers. Rows are read before their
// weights are known: what is waited for here is memory.
template <class T>
__device__ void choose_centre(const Compared& state, const RowView<T>& refs, int64_t slice) {
  using Share = SampleShare<T>;
  __shared__ Sample sample;
  __shared__ double sums[Share::kWarps][kSlice];
  const int n = refs.n < kSample ? static_cast<int>(refs.n) : kSample;
  if (n == 0) return;  // nobody to compare with
  const int64_t spacing = refs.n / n;
  Share share;
  share.read(refs, n, spacing, slice, state.dim);
  weigh_sample(state, refs.numbers, n, spacing, sample);
  __syncthreads();
  share.add_up(sample, n, sums[warp_of()]);
  __syncthreads();
  if (threadIdx.x >= kSlice) return;
  double square = 0;
  if (slice + threadIdx.x < state.dim) {
    double total = 0;
#pragma unroll
    for (int w = 0; w < Share::kWarps; ++w) total += sums[w][threadIdx.x];
    const auto rounded = static_cast<float>(total);
    state.centre[slice + threadIdx.x] = rounded;
    square = static_cast<double>(rounded) * static_cast<double>(rounded);
  }
  square = warp_sum(square);
  const int64_t first = slice + warp_of() * kWarp;
  if (lane_of() == 0 && first < state.dim) state.centre_squares[first / kWarp] = square;
}

template <class T>
__global__ void __launch_bounds__(kMeasureThreads)
    group_classes(const __grid_constant__ MineState state, RowView<T> refs, unsigned slices) {
  await_inputs();
  if (blockIdx.x < slices) return choose_centre(state, refs, int64_t{blockIdx.x} * kSlice);
  place_classes(state, int64_t{blockIdx.x - slices} * blockDim.x + threadIdx.x);
}

}  // namespace flashmetric::cuda
