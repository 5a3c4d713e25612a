// SPDX-License-Identifier: BSD-3-Clause
// What a warp has in registers of the query whose pairs it judges: its features and the sums of its
// gradient, four features a lane or up to four times as many.
#pragma once

#include "dense_gradient.cuh"

namespace flashmetric::cuda {

constexpr int kMostPieces = 4;  // of four features that a lane has of a row
constexpr int kPieceFeatures = 4 * kWarp;
constexpr int kPieceBytes = kPieceFeatures * static_cast<int>(sizeof(float));

// What the pairs of one kind add to a gradient: float sums of a few, in float64 behind them.
template <int pieces>
struct MarkedSums {
  float4 part[pieces] = {};
  double whole[pieces][4] = {};
  double weight = 0;
  int terms = 0;

  __device__ static void add(float4& sum, float c, const float4& y) {
    sum = {::fmaf(c, y.x, sum.x), ::fmaf(c, y.y, sum.y), ::fmaf(c, y.z, sum.z),
           ::fmaf(c, y.w, sum.w)};
  }
  __device__ void settle() {
#pragma unroll
    for (int p = 0; p < pieces; ++p) {
      whole[p][0] += static_cast<double>(part[p].x);
      whole[p][1] += static_cast<double>(part[p].y);
      whole[p][2] += static_cast<double>(part[p].z);
      whole[p][3] += static_cast<double>(part[p].w);
      part[p] = {};
    }
    terms = 0;
  }
  // To those of row i, where keys may have left something.
  __device__ void keep(const DenseState& state, int kind, int64_t i, bool weighs) const {
    double* const to = state.sums[kind] + i * state.dim;
    const double unit = 1 / frame_of(state).unit;
    __syncwarp();
#pragma unroll
    for (int p = 0; p < pieces; ++p) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int64_t k = p * kPieceFeatures + 4 * lane_of() + e;
        if (k < state.dim) to[k] += whole[p][e] * unit;
      }
    }
    if (lane_of() == 0) state.weights[kind][i] = weighs ? weight : 0;
  }
};

// What a query has in registers while it is compared: the numbers of its packed row, and a piece of
// four features, or some, a lane.
template <int pieces>
struct MarkedOwn {
  const char* base;  // where the lane's first piece of reference 0 is
  int32_t row_bytes;
  float half, slack;
  float4 y[pieces];

  __device__ MarkedOwn(const DenseState& state, int64_t i)
      : row_bytes(static_cast<int32_t>(state.width * static_cast<int64_t>(sizeof(float)))),
        half(state.rows[0].half[i]),
        slack(state.rows[0].slack[i]) {
    const int first = 16 * lane_of() < row_bytes ? 16 * lane_of() : 0;
    base = reinterpret_cast<const char*>(state.rows[0].y) + first;
#pragma unroll
    for (int p = 0; p < pieces; ++p) y[p] = read(i, p);
    base = reinterpret_cast<const char*>(state.rows[1].y) + first;
  }
  // Behind the last feature, others of the row: nobody looks at what becomes of them.
  __device__ bool exists(int piece) const {
    return 16 * lane_of() + piece * kPieceBytes < row_bytes;
  }
  __device__ float4 read(int64_t j, int piece) const {
    const char* const from = base + j * row_bytes;
    return *reinterpret_cast<const float4*>(from + (exists(piece) ? piece * kPieceBytes : 0));
  }
};

}  // namespace flashmetric::cuda
