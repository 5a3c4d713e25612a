// SPDX-License-Identifier: BSD-3-Clause
// Adds pairs with the rows that lanes name to the gradient of one row, whose sums are in memory: a
// warp takes up to 32 pairs at a time.
#pragma once

#include "gradient_row.cuh"

namespace flashmetric::cuda {

template <class T, Steps steps>
struct RowPairs {
  const GradientRow<T>& row;
  const RowView<T>& others;
  TouchedPair<T>* pairs;  // [kWarp], shared by the warp
  double* sums;           // [dim]

  // With row j and the coefficient of each of the lanes that `some` names; `query`: this row is the
  // query of its pairs. All lanes come, with rows that exist.
  __device__ void add(unsigned some, int64_t j, double coefficient, bool query) const {
    put(0, some, j, coefficient, query);
    add_all(__popc(some));
  }

  // The same in steps: behind the `held` pairs that wait already; and all that wait.
  __device__ void put(int held, unsigned some, int64_t j, double coefficient, bool query) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const unsigned below = some & ((1U << lane) - 1);
    if ((some >> lane & 1U) != 0) {
      pairs[held + __popc(below)] = {others.row(j), others.numbers.mapping(row.key, j),
                                     row.key.scaled ? others.numbers.clamped_norm(j) : 1.0,
                                     coefficient};
    }
    __syncwarp();
    if constexpr (steps == Steps::any) complete(held, j, some, query);
  }
  __device__ void add_all(int count) const {
    for (int64_t slice = 0; slice < row.dim && count > 0; slice += kSliceFeatures) {
      double sum[kLaneFeatures];
      row.template add_all<steps>(pairs, count, slice, sum);
#pragma unroll
      for (int f = 0; f < kLaneFeatures; ++f) {
        const int64_t k = slice + f * kWarp + threadIdx.x % kWarp;
        if (k < row.dim) sums[k] += sum[f];
      }
    }
    __syncwarp();
  }

 private:
  __device__ void complete(int at, int64_t j, unsigned some, bool query) const {
    for (unsigned left = some; left != 0; left &= left - 1, ++at) {
      const int64_t other = __shfl_sync(kAllLanes, j, __ffs(static_cast<int>(left)) - 1);
      TouchedPair<T> pair = pairs[at];
      row.complete(pair, others, other, query);
      __syncwarp();
      if (threadIdx.x % kWarp == 0) pairs[at] = pair;
    }
    __syncwarp();
  }
};

}  // namespace flashmetric::cuda
