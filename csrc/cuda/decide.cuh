// SPDX-License-Identifier: BSD-3-Clause
// Chooses the positive and the negative of a query by float64 keys: among the candidates that tiles
// left and the rows that tiles could not rank, or, of a query that keys judged, among the bests of
// the splits. Eight lanes, as many as compute a key, decide for one query, those with even numbers
// for its positive; or, where queries are few, four times as many. They write the rows and their
// keys.
#pragma once

#include "row_gate.cuh"

namespace flashmetric::cuda {

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

constexpr int kChooseThreads = 128;
constexpr int kKeyLanes = 8;
// Up to so many queries a warp for each fills a GPU no more than it must.
constexpr int64_t kFewQueries = 8192;

// What one of the lanes of a query knows: the best of its role, and the candidates of both whose
// keys are still to be computed. The lanes of all queries of a warp go together; `teams` of a query
// compute keys at the same time.
template <class T, Keys keys, int teams>
struct Decision {
  static constexpr int kQueryLanes = kKeyLanes * teams;
  static constexpr int kAtOnce = 4;  // streams of a lane whose candidates are read together
  static constexpr int kStreams = kQueryLanes / 2;  // that one reads each
  // Candidates that are collected before keys are computed: as many as come at a time, behind those
  // of the rows that tiles could not rank, or as many again.
  static constexpr int kListed = 4 * kAtOnce * kQueryLanes;

  const MineState& state;
  const RowView<T>& x;
  const RowView<T>& r;
  int64_t i;        // any query that exists, where none is left for these lanes
  int32_t* listed;  // [kListed] 2 * reference + role; at first its position
  BestPair best{0, -1};
  int count = 0;

  __device__ static int rank() { return static_cast<int>(threadIdx.x) % kQueryLanes; }
  __device__ static int role() { return rank() % 2; }
  template <class Value>
  __device__ static Value of_role(const Value (&of)[2]) {
    return role() == kPositive ? of[kPositive] : of[kNegative];
  }

  // Those of the lanes that have one.
  __device__ void collect(bool has, int32_t position, int of_role) {
    const unsigned all = __ballot_sync(kAllLanes, has) >> (lane_of() - rank());
    const unsigned lanes = all & (kAllLanes >> (kWarp - kQueryLanes));
    if (has) listed[count + __popc(lanes & ((1U << rank()) - 1))] = 2 * position + of_role;
    count += __popc(lanes);
  }

  // The keys of two references at a time: what is waited for is memory, and a query is converted
  // once for both.
  template <bool mapped>
  __device__ void add_features(const int64_t (&j)[2], double (&sum)[2]) const {
    constexpr Form form = keys == Keys::product ? Form::product : Form::difference;
    const T* const own = x.row(i);
    const T* const other[2] = {r.row(j[0]), r.row(j[1])};
    Mapping map;
    Mapping other_map[2];
    if constexpr (mapped) {
      map = x.numbers.mapping(state.key, i);
      for (int u = 0; u < 2; ++u) other_map[u] = r.numbers.mapping(state.key, j[u]);
    }
    const auto dim = static_cast<int32_t>(state.dim);
#pragma unroll 8
    for (int32_t k = rank() % kKeyLanes; k < dim; k += kKeyLanes) {
      const double z = mapped ? map.of(widened(own[k])) : widened(own[k]);
#pragma unroll
      for (int u = 0; u < 2; ++u) {
        const double o = widened(other[u][k]);
        sum[u] = accumulated<form>(sum[u], z, mapped ? other_map[u].of(o) : o, 2);
      }
    }
  }
  __device__ void offer(const int64_t (&j)[2], const bool (&wanted)[2]) {
    double sum[2] = {};
    if (state.key.maps_rows()) {
      add_features<true>(j, sum);
    } else {
      add_features<false>(j, sum);
    }
    const double total[2] = {sum8(sum[0]), sum8(sum[1])};
    const bool away = of_role(state.farthest);
#pragma unroll
    for (int u = 0; u < 2; ++u) {
      if (!wanted[u]) continue;
      const double pair = keys == Keys::product ? -total[u] : total[u];
      const double key = finished_key(state.key, pair, x.numbers, i, r.numbers, j[u]);
      best.offer(away ? -key : key, j[u]);
    }
  }

  __device__ void compare() {
    __syncwarp();
    for (int at = rank(); at < count; at += kQueryLanes) {
      listed[at] = 2 * state.ranked[1].order[listed[at] / 2] + listed[at] % 2;
    }
    __syncwarp();
    for (int at = rank() / kKeyLanes * 2; __any_sync(kAllLanes, at < count); at += 2 * teams) {
      int64_t j[2];
      bool wanted[2];
#pragma unroll
      for (int u = 0; u < 2; ++u) {
        const int32_t entry = at + u < count ? listed[at + u] : 0;  // 0: any reference
        j[u] = entry / 2;
        wanted[u] = at + u < count && entry % 2 == role();
      }
      offer(j, wanted);
    }
    __syncwarp();
    count = 0;
  }

  // Rows that tiles could not rank are candidates of everybody.
  __device__ void collect_irregular(bool open) {
    const int n = state.tally->n_irregular;
    for (int first = 0; first < n; first += kQueryLanes) {
      const int32_t position = open && first + rank() < n ? state.irregular[first + rank()] : -1;
      const Role found =
          position < 0 ? kNeither : state.labels.role(i, state.ranked[1].order[position]);
      collect(found != kNeither, position, found);
    }
  }

  // Numbers `at` and at + 1 of some streams.
  __device__ void collect_candidates(int64_t list, const int (&kept)[kAtOnce], int at,
                                     float threshold) {
    Candidate candidate[kAtOnce][2] = {};
#pragma unroll
    for (int s = 0; s < kAtOnce; ++s) {
      if (at >= kept[s]) continue;
      const Candidate* const from =
          of_role(state.candidates) + (list + s * kStreams) * kCandidates + at;
      candidate[s][0] = from[0];
      candidate[s][1] = from[1];  // there is room for an even number
    }
#pragma unroll
    for (int s = 0; s < kAtOnce; ++s) {
      if (!__any_sync(kAllLanes, at < kept[s])) continue;
#pragma unroll
      for (int u = 0; u < 2; ++u) {
        const bool has = at + u < kept[s] && candidate[s][u].lower <= threshold;
        collect(has, candidate[s][u].position, role());
      }
    }
  }

  // Streams keep mostly nothing, all together little more than one candidate of each role. `open`:
  // these lanes have a query. Keys are computed in one place, or there would be no registers left.
  __device__ void rank_candidates(bool open) {
    static_assert(kCandidates % 2 == 0);
    const float threshold = open ? lowest_value(of_role(state.threshold)[i]) : 0;
    collect_irregular(open);
    for (int first = 0; first < state.streams; first += kAtOnce * kStreams) {
      const int stream = first + rank() / 2;
      const int64_t list = i * state.streams + stream;
      int kept[kAtOnce];
      int most = 0;
#pragma unroll
      for (int s = 0; s < kAtOnce; ++s) {
        const bool exists = open && stream + s * kStreams < state.streams;
        kept[s] = exists ? of_role(state.n_candidates)[list + s * kStreams] : 0;
        most = ::max(most, kept[s]);
      }
      bool more = true;
      for (int at = 0; more; at += 2) {
        collect_candidates(list, kept, at, threshold);
        more = __any_sync(kAllLanes, at + 2 < most);
        const bool last = !more && first + kAtOnce * kStreams >= state.streams;
        const bool full = count > kListed - 2 * kAtOnce * kQueryLanes;
        if (last || __any_sync(kAllLanes, full)) compare();
      }
    }
    for (int lanes = kKeyLanes; lanes < kQueryLanes; lanes *= 2) best.offer_lane(lanes);
  }

  // Of a query that keys have judged: the bests of the splits.
  __device__ void merge_splits(bool judged) {
    for (int split = rank() / 2; judged && split < state.key_splits; split += kStreams) {
      const PartialBest partial = of_role(state.partial)[split * state.query.n + i];
      best.offer(partial.key, partial.row);
    }
    for (int lanes = 2; lanes < kQueryLanes; lanes *= 2) best.offer_lane(lanes);
  }
};

// Where choices go.
struct Chosen {
  int64_t* row[2];  // [n_query] by role; -1: has none, -2: an ignored anchor
  double* key[2];   // [n_query], null = not wanted
};

template <class T, Keys keys, int teams>
__global__ void __launch_bounds__(kChooseThreads, teams > 1 ? 8 : 6)
    choose(const __grid_constant__ MineState state, RowView<T> x, RowView<T> r, Chosen chosen) {
  await_inputs();
  using Decides = Decision<T, keys, teams>;
  constexpr int queries = kChooseThreads / Decides::kQueryLanes;
  __shared__ int32_t listed[queries][Decides::kListed];
  const int in_block = static_cast<int>(threadIdx.x) / Decides::kQueryLanes;
  const int64_t i = int64_t{blockIdx.x} * queries + in_block;
  const bool exists = i < state.query.n;
  const bool asked = exists && state.labels.query_takes_part(i);
  Decides decision{state, x, r, exists ? i : 0, listed[in_block]};
  bool judged = asked;
  if constexpr (keys != Keys::any) {
    const bool all = state.all_by_keys();
    judged = asked && (all || state.is_by_keys[i] != 0);
    if (!all) decision.rank_candidates(asked && !judged);
  }
  if (keys == Keys::any || __any_sync(kAllLanes, judged)) decision.merge_splits(judged);
  if (!exists || decision.rank() >= 2) return;
  const int role = decision.role();
  int64_t* const row = role == 0 ? chosen.row[0] : chosen.row[1];
  double* const key = role == 0 ? chosen.key[0] : chosen.key[1];
  row[i] = asked ? decision.best.row : -2;
  if (!asked || key == nullptr) return;
  key[i] = decision.of_role(state.farthest) ? -decision.best.key : decision.best.key;
}

}  // namespace flashmetric::cuda
