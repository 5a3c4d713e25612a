// SPDX-License-Identifier: BSD-3-Clause
// The positives of an anchor with their keys, and what becomes of a choice for each. Of every eight
// lanes that have the anchor, number q has positive number q; all else is the same in them, but for
// the bests that they have seen.
#pragma once

#include "decide.cuh"
#include "semihard_state.cuh"

namespace flashmetric::cuda {

static_assert(kMostPositives == 8);  // lanes that compute a key

// Keys of two references at once, for what takes long is to wait for memory.
template <Keys keys>
struct TwoKeys {
  static constexpr Form kForm = keys == Keys::product ? Form::product : Form::difference;
  double part[2] = {};

  template <class Visit>
  __device__ void add(const PairRows<float, float>& a, const PairRows<float, float>& b,
                      const Visit& visit) {
#pragma unroll 8
    for (int64_t k = threadIdx.x % 8; k < a.dim; k += 8) {
      visit(widened(a.x[k]), widened(a.r[k]), widened(b.r[k]));
    }
  }

  __device__ TwoKeys(const SemiHardState& state, const RowView<float>& x, int64_t i,
                     const RowView<float>& r, const int32_t (&j)[2]) {
    const auto a = pair_rows(state.key, x, i, r, j[0], state.dim);
    const auto b = pair_rows(state.key, x, i, r, j[1], state.dim);
    const auto sum = [&](double own, double first, double second) {
      part[0] = accumulated<kForm>(part[0], own, first, 2);
      part[1] = accumulated<kForm>(part[1], own, second, 2);
    };
    if (state.key.maps_rows()) {
      add(a, b, [&](double own, double first, double second) {
        sum(a.x_map.of(own), a.r_map.of(first), b.r_map.of(second));
      });
    } else {
      add(a, b, sum);
    }
#pragma unroll
    for (int u = 0; u < 2; ++u) {
      const double all = sum8(part[u]);
      part[u] = finished_key(state.key, kForm == Form::product ? -all : all, x.numbers, i,
                             r.numbers, j[u]);
    }
  }
};

// `lanes` have an anchor: all of a warp, or eight.
template <Keys keys, int lanes>
struct AnchorPositives {
  const SemiHardState& state;
  const RowView<float>& x;
  const RowView<float>& r;
  int64_t i;
  int32_t position;
  PositiveRun run;
  int count;
  int32_t row = kNoRow;  // in ascending order
  double key = 0;

  static constexpr int32_t kNoRow = INT32_MAX;

  // Lanes that have none come along with any, and find no positive.
  __device__ AnchorPositives(const SemiHardState& of, const RowView<float>& queries,
                             const RowView<float>& refs, int64_t anchor, bool has = true)
      : state(of),
        x(queries),
        r(refs),
        i(anchor),
        position(has ? of.ranked[0].position[anchor] : 0),
        run(of, anchor, position),
        count(has ? run.count() : 0) {
    sort();
  }
  // Their keys, before which others may ask for what they will wait for as well. Two at a time.
  __device__ void measure() {
    for (int first = 0; __any_sync(kAllLanes, first < count); first += 2) {
      int32_t j[2];
#pragma unroll
      for (int u = 0; u < 2; ++u) {
        j[u] = __shfl_sync(kAllLanes, row, lane(first + u));
        if (j[u] == kNoRow) j[u] = 0;
      }
      const TwoKeys<keys> found = keys_of(j);
      if (own() == first) key = found.part[0];
      if (own() == first + 1) key = found.part[1];
    }
  }

  __device__ static int own() { return lane_of() % 8; }
  // Lane number q of the eight.
  __device__ static int lane(int q) { return lane_of() / 8 * 8 + q; }
  __device__ bool exists() const { return own() < count; }
  __device__ double key_of(int64_t j) const { return ranked_key<float, keys>(state, x, i, r, j); }
  __device__ TwoKeys<keys> keys_of(const int32_t (&j)[2]) const { return {state, x, i, r, j}; }

  // Chooses, or leaves it open.
  __device__ void write(int64_t negative, double key_an) const {
    if (lane_of() % lanes >= 8) return;
    constexpr int64_t absent = -2;
    const int64_t t = i * kMostPositives + own();
    const bool counts = exists() && negative > absent;
    state.chosen[0][t] = i;
    state.chosen[1][t] = counts ? row : absent;
    state.chosen[2][t] = counts ? negative : absent;
    state.keys[0][t] = key;
    state.keys[1][t] = key_an;
  }
  // With what was found beyond each positive, and the farthest of all negatives.
  __device__ void write_best(const BestPair& beyond, const BestPair& farthest) const {
    if (run.negatives(*state.tally) == 0) return write(state.uncovered ? -1 : -2, 0);
    if (beyond.row >= 0) return write(beyond.row, beyond.key);
    write(state.drop ? -2 : farthest.row, -farthest.key);
  }

 private:
  __device__ void sort() {
    const int32_t given = exists() ? state.ranked[1].order[run.of(own())] : kNoRow;
    int rank = exists() ? 0 : own();
#pragma unroll
    for (int other = 0; other < 8; ++other) {
      const int32_t of_other = __shfl_sync(kAllLanes, given, lane(other));
      rank += exists() && of_other < given ? 1 : 0;
    }
#pragma unroll
    for (int other = 0; other < 8; ++other) {
      const int32_t of_other = __shfl_sync(kAllLanes, given, lane(other));
      if (__shfl_sync(kAllLanes, rank, lane(other)) == own()) row = of_other;
    }
  }
};

}  // namespace flashmetric::cuda
