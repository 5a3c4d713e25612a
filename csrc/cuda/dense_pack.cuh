// SPDX-License-Identifier: BSD-3-Clause
// Prepares float32 rows for products: norms and the longest of them, the centre, then
//   y = (x * scale - centre) * unit
// with half the square of each row (of product keys half the product with itself), and the bound of
// certificate.h on what rounding may do to h.
#pragma once

#include "dense_scale.cuh"
#include "measure.cuh"
#include "pack.cuh"

namespace flashmetric::cuda {

__global__ void __launch_bounds__(kMeasureThreads)
    measure_packed(const __grid_constant__ Compared state, RowView<float> rows) {
  if (!state.is_asked()) return;
  const int64_t i = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / 8;
  const bool exists = i < rows.n;
  const bool writes = exists && threadIdx.x % 8 == 0;
  const double norm = measure_row(state.key, rows, exists ? i : 0, state.dim, writes);
  keep_longest(state, exists && norm <= Precision<float>::max_norm ? norm : 0);
}

__global__ void __launch_bounds__(kMeasureThreads)
    centre_rows(const __grid_constant__ Compared state, RowView<float> refs) {
  if (!state.is_asked()) return;
  choose_centre(state, refs, int64_t{blockIdx.x} * kSlice);
}

// Half and slack of a row.
__device__ inline void bound_dense_row(const DenseState& state, const PackedRows& set, int64_t i,
                                       const RowLengths& lengths, double along) {
  const KeyFacts& key = state.key;
  const double square = lengths.centred * lengths.centred / 2;
  const double centre = lengths.centre * lengths.centre / 2;
  set.half[i] = static_cast<float>(key.form == Form::difference ? square : -(centre + along));
  set.slack[i] = segmented_slack<float>(key, lengths, static_cast<double>(state.dim), kProducts);
}

// A warp a row; behind the rows, and for rows out of range, zeros.
__global__ void __launch_bounds__(kPackThreads)
    pack_dense(const __grid_constant__ DenseState state, RowView<float> rows, int side) {
  if (!state.is_asked()) return;
  const int64_t i = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kWarp;
  const PackedRows& set = state.rows[side];
  if (i >= set.padded) return;
  const Frame frame = frame_of(state);
  const bool regular = i < rows.n && rows.numbers.norm[i] <= frame.max_norm;
  const bool scaled = regular && state.key.needs_norms();
  const double factor = scaled ? 1.0 / rows.numbers.clamped_norm(i) : 1.0;
  const RowMap map{factor, 0, frame.unit, state.key.needs_norms()};
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  double square = 0;
  double along = 0;
  for (int64_t k = lane; k < state.width; k += kWarp) {
    const bool exists = regular && k < state.dim;
    const float centre = exists ? state.centre[k] : 0;
    const float y = exists ? map.of(rows.row(i)[k], centre) : 0;
    set.y[i * state.width + k] = y;
    square += widened(y) * widened(y);
    along += widened(y) * widened(centre) * frame.unit;
  }
  square = warp_sum(square);
  along = warp_sum(along);
  if (lane != 0) return;
  set.half[i] = 0;
  set.slack[i] = regular || i >= rows.n ? 0 : -1;
  if (!regular) return;
  const double full = rows.numbers.norm[i] * factor * frame.unit;
  bound_dense_row(state, set, i, {::sqrt(square), full, frame.centre_norm, frame.unit}, along);
}

// Bounds of 32 references each: infinite if keys judge one of them. And how h become distances.
__global__ void __launch_bounds__(kTileThreads)
    bound_words(const __grid_constant__ DenseState state) {
  if (!state.is_asked()) return;
  const int64_t j = int64_t{blockIdx.x} * kTileThreads + threadIdx.x;
  const PackedRows& set = state.rows[1];
  const bool exists = j < set.padded;
  WordBound bound{exists ? set.slack[j] : 0, exists ? set.half[j] : 0};
  if (bound.slack < 0) bound.slack = static_cast<float>(kNever);
  for (int mask = 1; mask < kWarp; mask *= 2) {
    const float slack = __shfl_xor_sync(kAllLanes, bound.slack, mask);
    const float half = __shfl_xor_sync(kAllLanes, bound.half, mask);
    bound.slack = slack > bound.slack ? slack : bound.slack;
    bound.half = half > bound.half ? half : bound.half;
  }
  if (exists && lane_of() == 0) state.words[j / kWarp] = bound;
  if (j == 0) *state.scale = HalfScale(state, frame_of(state).unit);
}

}  // namespace flashmetric::cuda
