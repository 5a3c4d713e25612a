// SPDX-License-Identifier: BSD-3-Clause
// The positives of an anchor with their keys, and what becomes of a choice for each: a warp an
// anchor, of whose lanes l the one with l mod 8 = q has positive number q. In each eight lanes all
// are the same, but for the bests these eight have seen.
#pragma once

#include "decide.cuh"
#include "semihard_state.cuh"

namespace flashmetric::cuda {

static_assert(kMostPositives == 8);  // lanes that compute a key

template <Keys keys>
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

  __device__ AnchorPositives(const SemiHardState& of, const RowView<float>& queries,
                             const RowView<float>& refs, int64_t anchor)
      : state(of),
        x(queries),
        r(refs),
        i(anchor),
        position(of.ranked[0].position[anchor]),
        run(of, anchor, position),
        count(run.count()) {
    sort();
    measure();
  }

  __device__ static int own() { return lane_of() % 8; }
  __device__ bool exists() const { return own() < count; }
  __device__ double key_of(int64_t j) const { return ranked_key<float, keys>(state, x, i, r, j); }

  // Chooses, or leaves it open.
  __device__ void write(int64_t negative, double key_an) const {
    if (lane_of() >= 8) return;
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
      const int32_t of_other = __shfl_sync(kAllLanes, given, other);
      rank += exists() && of_other < given ? 1 : 0;
    }
#pragma unroll
    for (int other = 0; other < 8; ++other) {
      const int32_t of_other = __shfl_sync(kAllLanes, given, other);
      if (__shfl_sync(kAllLanes, rank, other) == own()) row = of_other;
    }
  }
  // Four keys at a time.
  __device__ void measure() {
    for (int first = 0; first < count; first += 4) {
      const int32_t j = __shfl_sync(kAllLanes, row, first + lane_of() / 8);
      const double found = key_of(j == kNoRow ? 0 : j);
      const double mine = __shfl_sync(kAllLanes, found, own() % 4 * 8);
      if (own() / 4 * 4 == first) key = mine;
    }
  }
};

}  // namespace flashmetric::cuda
