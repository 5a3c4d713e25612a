// SPDX-License-Identifier: BSD-3-Clause
// Chooses the positive and the negative of a query by float64 keys: among the candidates that tiles
// left and the rows that tiles could not rank, or, of a query that keys judged, among the bests of
// the splits. A warp decides for one query; it writes the rows and their keys.
#pragma once

#include "row_gate.cuh"

namespace flashmetric::cuda {

// Candidates that a warp collects before it computes keys: 64 at a time, behind those of the rows
// that tiles could not rank.
constexpr int kListed = 4 * kWarp;

// Which keys compare candidates. Other forms are never ranked by tiles: of them only the bests of
// splits are compared.
enum class Keys { difference, product, any };

inline Keys keys_of(const KeyFacts& key) {
  return key.form == Form::difference ? Keys::difference
         : key.form == Form::product  ? Keys::product
                                      : Keys::any;
}

// The key of a pair, of which it is known that they are difference or product.
template <class T, Keys keys>
__device__ double ranked_key(const Compared& state, const RowView<T>& x, int64_t i,
                             const RowView<T>& r, int64_t j) {
  constexpr Form form = keys == Keys::product ? Form::product : Form::difference;
  const double sum =
      pair_rows(state.key, x, i, r, j, state.dim).template key<form>(2, state.key.maps_rows());
  return finished_key(state.key, form == Form::product ? -sum : sum, x.numbers, i, r.numbers, j);
}

// The best of both roles, and the candidates whose keys are still to be computed. A warp has one,
// its list in shared memory.
template <class T, Keys keys>
struct Decision {
  const MineState& state;
  const RowView<T>& x;
  const RowView<T>& r;
  int64_t i;
  int32_t* listed;  // [kListed] 2 * reference + role
  BestPair best[2];
  int count = 0;

  // Those of the lanes that have one.
  __device__ void collect(bool has, int32_t position, int role) {
    const unsigned lanes = __ballot_sync(kAllLanes, has);
    const unsigned below = lanes & ((1U << lane_of()) - 1);
    if (has) listed[count + __popc(below)] = 2 * state.ranked[1].order[position] + role;
    count += __popc(lanes);
  }

  __device__ double key_of(int64_t j) const { return ranked_key<T, keys>(state, x, i, r, j); }

  // Eight lanes a key, four keys at a time.
  __device__ void compare() {
    __syncwarp();
    for (int at = 0; at < count; at += 4) {
      const int own = at + lane_of() / 8;
      const int32_t entry = listed[own < count ? own : 0];
      const double key = key_of(entry / 2);
      if (own >= count) continue;
      if (entry % 2 == kPositive) {
        best[kPositive].offer(state.farthest[kPositive] ? -key : key, entry / 2);
      } else {
        best[kNegative].offer(state.farthest[kNegative] ? -key : key, entry / 2);
      }
    }
    __syncwarp();
    count = 0;
  }

  // Number `at` of each lane's stream, both roles.
  __device__ void collect_candidates(int64_t list, const int (&kept)[2], int at,
                                     const float (&threshold)[2]) {
    Candidate candidate[2] = {};
#pragma unroll
    for (int role = 0; role < 2; ++role) {
      if (at < kept[role]) candidate[role] = state.candidates[role][list * kCandidates + at];
    }
#pragma unroll
    for (int role = 0; role < 2; ++role) {
      const bool open = at < kept[role] && candidate[role].lower <= threshold[role];
      collect(open, candidate[role].position, role);
    }
  }

  // Rows that tiles could not rank are candidates of everybody.
  __device__ void collect_irregular() {
    if (state.tally->n_irregular == 0) return;
    const int lane = lane_of();
    const int32_t position = lane < state.tally->n_irregular ? state.irregular[lane] : -1;
    const Role role =
        position < 0 ? kNeither : state.labels.role(i, state.ranked[1].order[position]);
    collect(role == kPositive, position, kPositive);
    collect(role == kNegative, position, kNegative);
  }

  // A lane a stream: mostly nothing was kept, in all streams together little more than one
  // candidate of each role. Keys are computed in one place, or there would be no registers left.
  __device__ void rank() {
    const float threshold[2] = {lowest_value(state.threshold[0][i]),
                                lowest_value(state.threshold[1][i])};
    collect_irregular();
    for (int first = 0; first < state.streams; first += kWarp) {
      const int stream = first + lane_of();
      const bool exists = stream < state.streams;
      const int64_t list = i * state.streams + (exists ? stream : 0);
      const int kept[2] = {exists ? state.n_candidates[0][list] : 0,
                           exists ? state.n_candidates[1][list] : 0};
      bool more = true;
      for (int at = 0; more; ++at) {
        collect_candidates(list, kept, at, threshold);
        more = __any_sync(kAllLanes, at + 1 < ::max(kept[0], kept[1]));
        const bool last = !more && first + kWarp >= state.streams;
        if (last || count > kListed - 2 * kWarp) compare();
      }
    }
#pragma unroll
    for (int lanes = 8; lanes < kWarp; lanes *= 2) {
      best[kPositive].offer_lane(lanes);
      best[kNegative].offer_lane(lanes);
    }
  }

  // Of a query that keys have judged: the bests of the splits.
  __device__ void merge_splits() {
    const int lane = lane_of();
#pragma unroll
    for (int role = 0; role < 2; ++role) {
      if (lane < state.key_splits) {
        const PartialBest partial = state.partial[role][lane * state.query.n + i];
        best[role].offer(partial.key, partial.row);
      }
      for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) best[role].offer_lane(lanes);
    }
  }
};

// Where choices go.
struct Chosen {
  int64_t* row[2];  // [n_query] by role; -1: has none, -2: an ignored anchor
  double* key[2];   // [n_query], null = not wanted
};

constexpr int kChooseWarps = 8;

template <class T, Keys keys>
__global__ void __launch_bounds__(kChooseWarps* kWarp, 4)
    choose(const __grid_constant__ MineState state, RowView<T> x, RowView<T> r, Chosen chosen) {
  await_inputs();
  __shared__ int32_t listed[kChooseWarps][kListed];
  const int64_t i = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kWarp;
  if (i >= state.query.n) return;
  const int lane = lane_of();
  if (!state.labels.query_takes_part(i)) {
    if (lane == 0) chosen.row[0][i] = chosen.row[1][i] = -2;
    return;
  }
  Decision<T, keys> decision{state, x, r, i, listed[warp_of()], {{0, -1}, {0, -1}}};
  if constexpr (keys == Keys::any) {
    decision.merge_splits();
  } else if (state.all_by_keys() || state.is_by_keys[i] != 0) {
    decision.merge_splits();
  } else {
    decision.rank();
  }
  if (lane != 0) return;
#pragma unroll
  for (int role = 0; role < 2; ++role) {
    const BestPair& best = decision.best[role];
    chosen.row[role][i] = best.row;
    if (chosen.key[role] != nullptr) {
      chosen.key[role][i] = state.farthest[role] ? -best.key : best.key;
    }
  }
}

}  // namespace flashmetric::cuda
