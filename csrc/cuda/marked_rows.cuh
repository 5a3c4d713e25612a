// SPDX-License-Identifier: BSD-3-Clause
// Judges the pairs of a query that may have a term, and adds up its gradient: a warp a query. It
// reads the packed rows of some pairs at a time, a few features a lane, and has h of all of them by
// one exchange; what has a coefficient is added to the gradient from the same registers. What h
// leaves in doubt, and near pairs, keys judge.
//
// Numerics: docs/numerics-mining.md, "Half squared distances"; of difference keys h is half the sum
// of the squares of float32 differences. Gradients: kSegment terms in float, then float64.
#pragma once

#include "dense_contrastive.cuh"
#include "marked_columns.cuh"
#include "marked_registers.cuh"

namespace flashmetric::cuda {

// Lanes that judge a pair each: as many as rows of one piece a lane has at a time.
constexpr int kMostJudging = 8;

// What the warps of a block have in shared memory: registers are for features.
struct MarkedShared {
  // Rows that wait to be judged; as many as a group may be left, and those of a warp join them.
  int32_t ahead[kPairWarps][2 * kWarp];
  uint32_t entered[kPairWarps][kWindowWords];
  alignas(8) char found[kPairWarps][kMostJudging * sizeof(PairSums<float>)];
  PairBuffer<float> touched;
  RowShared unused;  // by a warp: what a block that judges a row shares, and a DenseRow asks for

  __device__ PairSums<float>* found_by_warp() {
    return reinterpret_cast<PairSums<float>*>(found[warp_of()]);
  }
};

// The pairs of query i with the rows j of the lanes that are open: they add to what is found, and
// to the gradient. Never inlined: it is seldom called, and would take registers all the time.
template <Steps steps>
static __device__ __noinline__ void judge_by_key(const DenseState& state, const RowView<float>& x,
                                                 const RowView<float>& r, MarkedShared& shared,
                                                 int64_t i, int64_t j, bool open, int kind,
                                                 PairSums<float>* found) {
  const DenseRow<float, float> row(state, x, r, shared.unused, i, 0);
  const ContrastiveRow<float, float> pairs(row);
  const double key = row.keys_at(__ballot_sync(kAllLanes, open), j);
  double c = 0;
  if (open) c = kind == 0 ? pairs.positive(j, key, *found) : pairs.negative(j, key, *found);
  const unsigned some = __ballot_sync(kAllLanes, c != 0);
  if (state.grad[0] == nullptr || some == 0) return;
  const GradientRow<float> gradient(state.key, x, i, state.dim);
  double* const sums = state.sums[kind] + i * state.dim;
  const RowPairs<float, steps> by_difference{gradient, r, shared.touched.pairs(), sums};
  by_difference.add(some, j, c, true);
}

// Positives of product keys whose distance floats know to fewer bits are judged by keys, for h does
// not get small with it; those of difference keys are near long before.
constexpr float kPositiveBits = 0x1p+16F;

// A query and its pairs.
template <Steps steps, int pieces>
struct MarkedQuery {
  static constexpr int kGroup = kMostJudging / pieces;  // rows whose features are in registers
  static constexpr int kLanes = kWarp / kGroup;         // that have the h of the same one
  static constexpr bool kDifference = steps == Steps::difference;

  const ContrastiveRow<float, float>& pairs;
  MarkedShared& shared;
  const MarkedOwn<pieces> own;

  __device__ MarkedQuery(const ContrastiveRow<float, float>& of, MarkedShared& block)
      : pairs(of), shared(block), own(of.row.state, of.row.i) {}

  __device__ static float4 minus(const float4& a, const float4& b) {
    return {a.x - b.x, a.y - b.y, a.z - b.z, a.w - b.w};
  }
  __device__ static float product(const float4& a, const float4& b) {
    return ::fmaf(a.w, b.w, ::fmaf(a.z, b.z, ::fmaf(a.y, b.y, a.x * b.x)));
  }

  // The sums over the warp of kGroup numbers: lane l has number l / kLanes.
  __device__ static float sum_each(float (&part)[kGroup]) {
    int mask = kWarp / 2;
#pragma unroll
    for (int n = kGroup / 2; n > 0; n /= 2, mask /= 2) {
      const bool upper = (lane_of() & mask) != 0;
#pragma unroll
      for (int v = 0; v < n; ++v) {
        const float sent = upper ? part[v] : part[v + n];
        const float kept = upper ? part[v + n] : part[v];
        part[v] = kept + __shfl_xor_sync(kAllLanes, sent, mask);
      }
    }
#pragma unroll
    for (mask = kLanes / 2; mask > 0; mask /= 2) {
      part[0] += __shfl_xor_sync(kAllLanes, part[0], mask);
    }
    return part[0];
  }

  // A row that waits, as the lanes that will have its h know it.
  struct Other {
    int32_t row;
    bool exists;
    float half, slack;

    __device__ Other(const MarkedQuery& query, int at, int count) {
      const int place = lane_of() / kLanes;
      const PackedRows& rows = query.pairs.row.state.rows[1];
      exists = place < count;
      row = exists ? query.shared.ahead[warp_of()][at + place] : 0;
      half = rows.half[row];
      slack = rows.slack[row];
    }
  };

  // Of `count` rows that wait from `at` on.
  __device__ void judge(int kind, int at, int count, const Edges& edges,
                        MarkedSums<pieces>& sums) const {
    const Other other(*this, at, count);
    float4 y[kGroup][pieces];
#pragma unroll
    for (int u = 0; u < kGroup; ++u) {
      const int32_t row = __shfl_sync(kAllLanes, other.row, u * kLanes);
#pragma unroll
      for (int p = 0; p < pieces; ++p) y[u][p] = own.read(row, p);
    }
    float part[kGroup] = {};
#pragma unroll
    for (int u = 0; u < kGroup; ++u) {
#pragma unroll
      for (int p = 0; p < pieces; ++p) {
        if (kDifference) y[u][p] = minus(own.y[p], y[u][p]);
        const float some = product(kDifference ? y[u][p] : own.y[p], y[u][p]);
        part[u] += own.exists(p) ? some : 0;
      }
    }
    const float sum = sum_each(part);
    const float h = kDifference ? sum / 2 : other.half + own.half - sum;
    const float c = judge_each(kind, other, h, edges);
    if (pairs.row.state.grad[0] == nullptr || !__any_sync(kAllLanes, c != 0)) return;
#pragma unroll
    for (int u = 0; u < kGroup; ++u) {
      const float coefficient = __shfl_sync(kAllLanes, c, u * kLanes);
      if (!kDifference) sums.weight += static_cast<double>(coefficient);
#pragma unroll
      for (int p = 0; p < pieces; ++p) sums.add(sums.part[p], coefficient, y[u][p]);
    }
    sums.terms += kGroup;
    if (sums.terms == kSegment) sums.settle();
  }

  __device__ bool is_vague(float h, float error) const {
    if (kDifference) return false;
    const float d = pairs.row.half_distance(h);
    return !(pairs.row.scale.uncertainty(d, error) * kPositiveBits <= ::fabsf(d));
  }
  // The coefficient of a pair, by the first of its lanes.
  __device__ float judge_each(int kind, const Other& other, float h, const Edges& edges) const {
    const bool leads = other.exists && lane_of() % kLanes == 0;
    PairSums<float>* const found = shared.found_by_warp() + lane_of() / kLanes;
    const bool regular = own.slack >= 0 && other.slack >= 0;
    const bool near = kDifference && h <= near_limit(own.half + other.half);
    const float error = pairs.row.error_of(h, own.slack, other.slack);
    bool open = leads && (near || !regular || (kind == 0 && is_vague(h, error)));
    float c = 0;
    if (leads && !open) {
      c = kind == 0 ? pairs.template by_half<0>(other.row, h, error, edges, open, *found)
                    : pairs.template by_half<1>(other.row, h, error, edges, open, *found);
    }
    if (__any_sync(kAllLanes, open)) {
      const DenseRow<float, float>& row = pairs.row;
      judge_by_key<steps>(row.state, row.x, row.r, shared, row.i, other.row, open, kind, found);
    }
    return c;
  }

  // All pairs of a kind.
  __device__ void judge_all(int kind, MarkedColumns& columns) const {
    const DenseState& state = pairs.row.state;
    const Edges edges = kind == 0 ? pairs.template edges<0>() : pairs.template edges<1>();
    MarkedSums<pieces> sums;
    for (int32_t window = 0; window < state.ref.n; window += kWindow) {
      columns.open(kind, window);
      judge_window(kind, columns, edges, sums);
    }
    if (state.grad[0] == nullptr) return;
    sums.settle();
    sums.keep(state, kind, pairs.row.i, !kDifference);
  }
  __device__ void judge_window(int kind, MarkedColumns& columns, const Edges& edges,
                               MarkedSums<pieces>& sums) const {
    int32_t* const ahead = shared.ahead[warp_of()];
    int held = 0;
    for (bool more = true; more;) {
      int32_t j = -1;
      more = columns.next(j);
      const unsigned lanes = __ballot_sync(kAllLanes, j >= 0);
      if (j >= 0) ahead[held + __popc(lanes & ((1U << lane_of()) - 1))] = j;
      __syncwarp();
      held += __popc(lanes);
      int at = 0;
      for (; held - at >= (more ? kGroup : 1); at += kGroup) {
        judge(kind, at, ::min(kGroup, held - at), edges, sums);
      }
      held = ::max(held - at, 0);
      const int32_t left = lane_of() < held ? ahead[at + lane_of()] : 0;
      __syncwarp();
      if (lane_of() < held) ahead[lane_of()] = left;
      __syncwarp();
    }
  }
};

// Nothing is found yet.
__device__ inline void clear_query(const DenseState& state, MarkedShared& shared, int64_t i) {
  if (lane_of() < kMostJudging) shared.found_by_warp()[lane_of()] = {};
  for (int kind = 0; kind < 2 && state.grad[0] != nullptr; ++kind) clear_sums(state, kind, i);
  __syncwarp();
}

// What the query adds to the loss. Its negatives are all that are not of its class.
__device__ inline RowTotals totals_of(const MarkedColumns& columns, const PairSums<float>* found,
                                      const DenseState& state, double weight) {
  __syncwarp();
  PairSums<float> own;
  if (lane_of() < kMostJudging) own = found[lane_of()];
  double sums[7];
#pragma unroll
  for (int v = 0; v < 6; ++v) sums[v] = warp_sum(own.of[v].sum);
  sums[6] = warp_sum(own.live);
  const auto positives = static_cast<double>(columns.run.count());
  const auto negatives = static_cast<double>(columns.run.negatives(*columns.state.tally));
  RowTotals totals;
  take_pairs(sums, totals);
  if (!state.online) totals.counted[1] = weight * negatives;
  totals.members = positives + negatives;
  return totals;
}

// A block on a multiprocessor: with two, registers spill, and of 16384 x 128 a forward and backward
// took 2.13 ms instead of 1.62 on an H200.
template <Steps steps, int pieces>
__global__ void __launch_bounds__(kPairThreads, 1)
    judge_marked(const __grid_constant__ MarkedState marked,
                 const __grid_constant__ DenseState state, const __grid_constant__ RowView<float> x,
                 const __grid_constant__ RowView<float> r) {
  await_inputs();
  alignas(16) __shared__ char memory[sizeof(MarkedShared)];
  auto& shared = *reinterpret_cast<MarkedShared*>(memory);
  const auto at = static_cast<int32_t>(blockIdx.x * kPairWarps) + warp_of();
  if (at >= marked.queries_tiled()) return;
  const int32_t i = marked.ranked[0].order[marked.first_query + at];
  if (i < 0) return;
  clear_query(state, shared, i);
  const DenseRow<float, float> row(state, x, r, shared.unused, i, 0);
  const ContrastiveRow<float, float> pairs(row);
  MarkedColumns columns(marked, shared.entered[warp_of()], i, marked.first_query + at);
  const MarkedQuery<steps, pieces> query(pairs, shared);
#pragma unroll 1
  for (int kind = 0; kind < 2; ++kind) query.judge_all(kind, columns);
  const RowTotals totals = totals_of(columns, shared.found_by_warp(), state, pairs.weight);
  if (lane_of() == 0) state.totals[i] = totals;
}

}  // namespace flashmetric::cuda
