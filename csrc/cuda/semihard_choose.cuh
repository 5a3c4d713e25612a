// SPDX-License-Identifier: BSD-3-Clause
// Chooses the negative of each positive by float64 keys: among the candidates that tiles left,
// eight lanes an anchor. Of the time most is latency: four anchors in a warp wait together.
#pragma once

#include "semihard_positives.cuh"

namespace flashmetric::cuda {

// References that eight lanes collect before they compute keys.
constexpr int kEachListed = 32;

// What threads of the main loop have kept of an anchor, four of their lists each lane.
struct KeptCandidates {
  const SemiHardState* state;
  int64_t list;  // the first of four
  int left[4] = {};

  __device__ KeptCandidates(const SemiHardState& of, int64_t i, int first, bool has) : state(&of) {
    const int own = first + 4 * (lane_of() % 8);
    list = i * of.streams + own;
#pragma unroll
    for (int u = 0; u < 4; ++u) {
      if (has && own + u < of.streams) left[u] = of.n_candidates[0][list + u];
    }
  }
  __device__ bool any() const { return (left[0] | left[1] | left[2] | left[3]) != 0; }
  __device__ Candidate next() {
    int64_t place = -1;
#pragma unroll
    for (int u = 0; u < 4; ++u) {
      const bool takes = place < 0 && left[u] > 0;
      left[u] -= takes ? 1 : 0;
      if (takes) place = (list + u) * kCandidates + left[u];
    }
    return place < 0 ? Candidate{0, 0} : state->candidates[0][place];
  }
};

template <Keys keys>
struct SemiHardDecision {
  const SemiHardState& state;
  const AnchorPositives<keys, 8>& positives;
  int32_t* listed;   // [kEachListed] references
  float low, width;  // the windows, in the order of positions
  KeptCandidates kept;
  BestPair best{0, -1};
  int count = 0;

  __device__ SemiHardDecision(const SemiHardState& of, const AnchorPositives<keys, 8>& some,
                              int32_t* list, bool has)
      : state(of), positives(some), listed(list), kept(of, some.i, 0, has) {
    const int64_t stride = state.ranked[0].padded;
    const int own = AnchorPositives<keys, 8>::own();
    low = state.low[own * stride + some.position];
    width = lowest_value(state.width[some.i * kMostPositives + own]);
  }

  // What tiles have found since may have closed it. All lanes come.
  __device__ bool is_open(const Candidate& candidate, float slack) const {
    bool open = false;
    for (int p = 0; __any_sync(kAllLanes, p < positives.count); ++p) {
      const int lane = AnchorPositives<keys, 8>::lane(p);
      const float begin = __shfl_sync(kAllLanes, low, lane);
      const float length = __shfl_sync(kAllLanes, width, lane) + slack;
      open |= __float_as_uint(candidate.lower - begin) <= __float_as_uint(length);
    }
    return open;
  }

  __device__ void collect(bool has, int32_t row) {
    const unsigned lanes = __ballot_sync(kAllLanes, has) >> AnchorPositives<keys, 8>::lane(0) & 255;
    const unsigned below = lanes & ((1U << AnchorPositives<keys, 8>::own()) - 1);
    if (has) listed[count + __popc(below)] = row;
    count += __popc(lanes);
  }

  // A lane compares each key with its positive.
  __device__ void compare() {
    __syncwarp();
    for (int at = 0; __any_sync(kAllLanes, at < count); at += 2) {
      const int32_t j[2] = {at < count ? listed[at] : 0, at + 1 < count ? listed[at + 1] : 0};
      const TwoKeys<keys> found = positives.keys_of(j);
#pragma unroll
      for (int u = 0; u < 2; ++u) {
        const double key = found.part[u];
        if (at + u < count && positives.exists() && key > positives.key) best.offer(key, j[u]);
      }
    }
    __syncwarp();
    count = 0;
  }

  __device__ void rank(bool has) {
    constexpr int at_once = 4 * 8;
    for (int first = 0; first < state.streams; first += at_once) {
      if (first > 0) kept = {state, positives.i, first, has};
      while (__any_sync(kAllLanes, kept.any())) {
        const bool some = kept.any();
        const Candidate candidate = kept.next();
        const float slack = 2 * state.widest[candidate.position];
        const int32_t row = state.ranked[1].order[candidate.position];
        collect(is_open(candidate, slack) && some, row);
        if (__any_sync(kAllLanes, count > kEachListed - 8)) compare();
      }
    }
    compare();
  }
};

// Anchors that keys judge are left to them.
template <Keys keys>
__device__ void choose_beyond(const SemiHardState& state, const RowView<float>& x,
                              const RowView<float>& r, int64_t i, bool has, int32_t* listed) {
  AnchorPositives<keys, 8> positives(state, x, r, i, has);
  const bool negatives = positives.run.negatives(*state.tally) > 0;
  const bool ranks = negatives && positives.count > 0;
  SemiHardDecision<keys> decision(state, positives, listed, ranks);
  positives.measure();
  decision.rank(ranks);
  const bool none_beyond = negatives && positives.exists() && decision.best.row < 0;
  const unsigned lanes = __ballot_sync(kAllLanes, none_beyond) >> positives.lane(0) & 255;
  if (!has) return;
  if (lanes != 0 && !state.drop) {
    if (positives.own() == 0) state.judge_by_keys(i);  // which knows the farthest
    return;
  }
  positives.write_best(decision.best, {0, -2});
}

template <Keys keys>
__global__ void __launch_bounds__(kChooseThreads)
    choose_semihard(const __grid_constant__ SemiHardState state, RowView<float> x,
                    RowView<float> r) {
  await_inputs();
  __shared__ int32_t listed[kChooseThreads / 8][kEachListed];
  if (*state.crowded != 0) return;
  const int64_t i = (int64_t{blockIdx.x} * kChooseThreads + threadIdx.x) / 8;
  const bool takes_part = i < state.query.n && state.labels.query_takes_part(i);
  if (i < state.query.n && !takes_part) {
    const int64_t t = i * kMostPositives + lane_of() % 8;
    state.chosen[0][t] = i;
    state.chosen[1][t] = state.chosen[2][t] = -2;
  }
  if (state.tally->n_irregular > 0) return;
  const bool has = takes_part && state.is_by_keys[i] == 0;
  if (!__any_sync(kAllLanes, has)) return;
  choose_beyond<keys>(state, x, r, has ? i : 0, has, listed[threadIdx.x / 8]);
}

}  // namespace flashmetric::cuda
