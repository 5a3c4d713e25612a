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

// By a warp; behind the rows, and for rows out of range, zeros.
__device__ inline void pack_dense_row(const DenseState& state, const Frame& frame,
                                      const RowView<float>& rows, const PackedRows& set,
                                      int64_t i) {
  const bool regular = i < rows.n && rows.numbers.norm[i] <= frame.max_norm;
  const bool scaled = regular && state.key.needs_norms();
  const double factor = scaled ? 1.0 / rows.numbers.clamped_norm(i) : 1.0;
  const RowMap map{factor, 0, frame.unit, state.key.needs_norms()};
  double square = 0;
  double along = 0;
  for (int64_t k = lane_of(); k < state.width; k += kWarp) {
    const bool exists = regular && k < state.dim;
    const float centre = exists ? state.centre[k] : 0;
    const float y = exists ? map.of(rows.row(i)[k], centre) : 0;
    set.y[i * state.width + k] = y;
    square += widened(y) * widened(y);
    along += widened(y) * widened(centre) * frame.unit;
  }
  square = warp_sum(square);
  along = warp_sum(along);
  if (lane_of() != 0) return;
  set.half[i] = 0;
  set.slack[i] = regular || i >= rows.n ? 0 : -1;
  if (!regular) return;
  const double full = rows.numbers.norm[i] * factor * frame.unit;
  bound_dense_row(state, set, i, {::sqrt(square), full, frame.centre_norm, frame.unit}, along);
}

// By a warp, of 32 references: infinite if keys judge one of them.
__device__ inline void bound_word(const DenseState& state, int64_t word) {
  const int64_t j = word * kWarp + lane_of();
  WordBound bound{state.rows[1].slack[j], state.rows[1].half[j]};
  if (bound.slack < 0) bound.slack = static_cast<float>(kNever);
  for (int mask = 1; mask < kWarp; mask *= 2) {
    const float slack = __shfl_xor_sync(kAllLanes, bound.slack, mask);
    const float half = __shfl_xor_sync(kAllLanes, bound.half, mask);
    bound.slack = slack > bound.slack ? slack : bound.slack;
    bound.half = half > bound.half ? half : bound.half;
  }
  if (lane_of() == 0) state.words[word] = bound;
}

// A warp a row, and a block 32, whose bounds it puts together. And how h become distances.
constexpr int kPackDenseThreads = kWarp * kWarp;
__global__ void __launch_bounds__(kPackDenseThreads)
    pack_dense(const __grid_constant__ DenseState state, RowView<float> rows, int side) {
  await_inputs();
  if (!state.is_asked()) return;
  const PackedRows& set = state.rows[side];
  const Frame frame = frame_of(state);
  for (int64_t word = blockIdx.x; word * kWarp < set.padded; word += gridDim.x) {
    const int64_t i = word * kWarp + warp_of();
    pack_dense_row(state, frame, rows, set, i);
    if (state.packs_zeros() && state.sums[side] != nullptr && i < rows.n) {
      clear_sums(state, side, i);
    }
    __syncthreads();
    if (warp_of() == 0 && (side == 1 || state.labels.symmetric)) bound_word(state, word);
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) *state.scale = HalfScale(state, frame.unit);
}

}  // namespace flashmetric::cuda
