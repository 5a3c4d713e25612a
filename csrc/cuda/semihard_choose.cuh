// SPDX-License-Identifier: BSD-3-Clause
// Chooses the negative of each positive by float64 keys: among the candidates that tiles left, a
// warp an anchor.
#pragma once

#include "semihard_positives.cuh"

namespace flashmetric::cuda {

constexpr int kChooseWarps = 8;
// Candidates that a warp collects before it computes keys: 64 at a time.
constexpr int kListed = 4 * kWarp;

template <Keys keys>
struct SemiHardDecision {
  const SemiHardState& state;
  const AnchorPositives<keys>& positives;
  int32_t* listed;   // [kListed] references
  float low, width;  // the windows, in the order of positions
  BestPair best{0, -1};
  int count = 0;

  __device__ SemiHardDecision(const SemiHardState& of, const AnchorPositives<keys>& some,
                              int32_t* list)
      : state(of), positives(some), listed(list) {
    const int64_t stride = state.ranked[0].padded;
    const int own = AnchorPositives<keys>::own();
    low = state.low[own * stride + some.position];
    width = lowest_value(state.width[some.i * kMostPositives + own]);
  }

  // What tiles have found since may have closed it. All lanes come.
  __device__ bool is_open(const Candidate& candidate) const {
    const float slack = 2 * state.widest[candidate.position];
    bool open = false;
    for (int p = 0; p < positives.count; ++p) {
      const float begin = __shfl_sync(kAllLanes, low, p);
      const float length = __shfl_sync(kAllLanes, width, p) + slack;
      open |= __float_as_uint(candidate.lower - begin) <= __float_as_uint(length);
    }
    return open;
  }

  __device__ void collect(bool has, int32_t position) {
    const unsigned lanes = __ballot_sync(kAllLanes, has);
    const unsigned below = lanes & ((1U << lane_of()) - 1);
    if (has) listed[count + __popc(below)] = state.ranked[1].order[position];
    count += __popc(lanes);
  }

  // Eight lanes a key, four keys at a time; a lane compares it with its positive.
  __device__ void compare() {
    __syncwarp();
    for (int at = 0; at < count; at += 4) {
      const int own = at + lane_of() / 8;
      const int32_t j = listed[own < count ? own : 0];
      const double key = positives.key_of(j);
      if (own < count && positives.exists() && key > positives.key) best.offer(key, j);
    }
    __syncwarp();
    count = 0;
  }

  // A lane a stream.
  __device__ void rank() {
    for (int first = 0; first < state.streams; first += kWarp) {
      const int stream = first + lane_of();
      const bool exists = stream < state.streams;
      const int64_t list = positives.i * state.streams + (exists ? stream : 0);
      const int kept = exists ? state.n_candidates[0][list] : 0;
      bool more = __any_sync(kAllLanes, kept > 0);
      for (int at = 0; more; ++at) {
        Candidate candidate{0, 0};
        if (at < kept) candidate = state.candidates[0][list * kCandidates + at];
        const bool open = is_open(candidate);
        collect(at < kept && open, candidate.position);
        more = __any_sync(kAllLanes, at + 1 < kept);
        if (count > kListed - kWarp) compare();
      }
    }
    compare();
#pragma unroll
    for (int lanes = 8; lanes < kWarp; lanes *= 2) best.offer_lane(lanes);
  }
};

template <Keys keys>
__global__ void __launch_bounds__(kChooseWarps* kWarp, 4)
    choose_semihard(const __grid_constant__ SemiHardState state, RowView<float> x,
                    RowView<float> r) {
  await_inputs();
  __shared__ int32_t listed[kChooseWarps][kListed];
  const int64_t i = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kWarp;
  if (i >= state.query.n || *state.crowded != 0) return;
  if (!state.labels.query_takes_part(i)) {
    const int64_t t = i * kMostPositives + lane_of();
    if (lane_of() >= kMostPositives) return;
    state.chosen[0][t] = i;
    state.chosen[1][t] = state.chosen[2][t] = -2;
    return;
  }
  if (state.tally->n_irregular > 0 || state.is_by_keys[i] != 0) return;
  const AnchorPositives<keys> positives(state, x, r, i);
  SemiHardDecision<keys> decision(state, positives, listed[warp_of()]);
  const bool negatives = positives.run.negatives(*state.tally) > 0;
  if (negatives && positives.count > 0) decision.rank();
  const bool none_beyond = negatives && positives.exists() && decision.best.row < 0;
  if (__any_sync(kAllLanes, none_beyond) && !state.drop) {
    if (lane_of() == 0) state.judge_by_keys(i);  // which knows the farthest
    return;
  }
  positives.write_best(decision.best, {0, -2});
}

}  // namespace flashmetric::cuda
