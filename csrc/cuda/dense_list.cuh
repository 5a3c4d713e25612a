// SPDX-License-Identifier: BSD-3-Clause
// The positives of an anchor, nearest first: negatives find their place among them by bisection, so
// a row costs n log n however many positives it has.
//
// Determinism: warps list positives in any order, but what sorting leaves open are equal numbers.
#pragma once

#include "dense_row.cuh"

namespace flashmetric::cuda {

constexpr int kSharedList = 256;  // positives that need no memory elsewhere

struct PositiveShared {
  double value[kSharedList];
  unsigned long long offer[kSharedList];
  int32_t row[kSharedList];
  int32_t best[kSharedList];
  int32_t scan[kRowWarps];
  int32_t count;
};

// NaN comes last.
__device__ inline bool precedes(double a, double b) { return a < b || (b != b && a == a); }

struct PositiveList {
  double* value;  // distances, or keys
  int32_t* row;
  unsigned long long* offer;  // of semi-hard rows, see dense_offers.cuh
  int32_t* best;
  double* more_value;  // in the workspace: of rows with more than kSharedList
  int32_t* more_row;
  unsigned long long* more_offer;
  int32_t* more_best;
  PositiveShared& shared;
  int count = 0;
  int numbers = 0;  // those before the first NaN

  __device__ PositiveList(const DenseState& state, PositiveShared& block)
      : value(block.value), row(block.row), offer(block.offer), best(block.best), shared(block) {
    const int64_t at = int64_t{blockIdx.x} * state.ref.n;
    more_value = state.list_value + at;
    more_row = state.list_row + at;
    more_offer = state.list_offer + at;
    more_best = state.list_best + at;
  }

  // Before the block lists anything.
  __device__ void open() {
    if (threadIdx.x == 0) shared.count = 0;
    __syncthreads();
  }

  // Those of the lanes that have one. All lanes come.
  __device__ void add(bool has, double number, int64_t j) {
    const unsigned lanes = __ballot_sync(kAllLanes, has);
    int begin = 0;
    if (lane_of() == 0 && lanes != 0) begin = atomicAdd(&shared.count, __popc(lanes));
    begin = __shfl_sync(kAllLanes, begin, 0);
    const int at = begin + __popc(lanes & ((1U << lane_of()) - 1));
    if (!has) return;
    (at < kSharedList ? shared.value : more_value)[at] = number;
    (at < kSharedList ? shared.row : more_row)[at] = static_cast<int32_t>(j);
  }

  // When all are listed: sorts them.
  __device__ void close() {
    __syncthreads();
    count = shared.count;
    if (count > kSharedList) {
      for (int p = static_cast<int>(threadIdx.x); p < kSharedList; p += kRowThreads) {
        more_value[p] = shared.value[p];
        more_row[p] = shared.row[p];
      }
      value = more_value;
      row = more_row;
      offer = more_offer;
      best = more_best;
    }
    __syncthreads();
    sort();
    numbers = first([](double number) { return number != number; });
  }

  // The first position whose number fulfils a condition that all after it fulfil too; else `count`.
  template <class Condition>
  __device__ int first(const Condition& condition) const {
    return first(condition, count);
  }
  template <class Condition>
  __device__ int first(const Condition& condition, int end) const {
    return first_where(end, [&](int at) { return condition(value[at]); });
  }

 private:
  __device__ void sort() {
    sort_in_block<kRowThreads>(count, [&](int64_t a, int64_t b) {
      if (!precedes(value[b], value[a])) return;
      const double number = value[a];
      value[a] = value[b];
      value[b] = number;
      const int32_t other = row[a];
      row[a] = row[b];
      row[b] = other;
    });
  }
};

// Splits the row and lists its positives, by `measure(key)`. Returns whether it has terms: needs a
// negative too.
template <class T, class H, class Measure>
__device__ bool list_positives(const DenseRow<T, H>& row, PositiveList& list,
                               const Measure& measure) {
  list.open();
  row.split(row.gate(), [&](int64_t j, bool has) {
    const double key = row.key_at(j, has);
    list.add(has, has ? measure(key) : 0, j);
  });
  list.close();
  return row.shared.n_positive > 0 && row.shared.n_negative > 0;
}

}  // namespace flashmetric::cuda
