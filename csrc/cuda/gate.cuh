// SPDX-License-Identifier: BSD-3-Clause
// What happens to the inner products of a tile: every pair that the bound of certificate.h cannot
// exclude becomes a candidate of its row. Main loops differ in where a thread holds its sums; they
// say so by an accessor acc(slot, block, e): row slot, block of eight columns, one of the two
// columns that the thread has there.
//
// Algorithm: a row's threshold is min(lower + 2 slack_j) + 2 slack_i over the columns seen. A pair
// costs an addition and a minimum; where the minimum of a few columns comes below the threshold,
// which is rare (of n random columns about log n in all), it lowers the threshold, and what is
// still below is stored, without a branch.
//
// Groups of columns where a row of the warp may have positives, or itself, look at who is whose and
// pass once for each role; they lie next to the diagonal of the sorted batch. All other columns are
// negatives of all rows of the warp. Code that stores lies next to code that does not: more of it
// than the instruction cache holds was five times as slow.
#pragma once

#include "../mining.h"
#include "inline.cuh"
#include "state.cuh"

namespace flashmetric::cuda {

// No threshold yet: above every score, below the +inf of padding.
constexpr float kUnknown = 0x1.fffffep+127F;

// Floats in the order of unsigned integers, upside down: 0 is no threshold yet, and atomicMax keeps
// the lowest.
__device__ inline uint32_t lowest_bits(float x) {
  const uint32_t bits = __float_as_uint(x);
  return ~((bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U);
}
__device__ inline float lowest_value(uint32_t stored) {
  if (stored == 0) return kUnknown;
  const uint32_t ordered = ~stored;
  return __uint_as_float((ordered & 0x80000000U) != 0 ? ordered & 0x7FFFFFFFU : ~ordered);
}

// The state of one role of the rows of one thread.
template <int slots>
struct RoleRows {
  float threshold[slots];
  int32_t count[slots];  // candidates kept; more than kCandidates: left to the keys
};

// The rows of one thread.
template <int slots>
struct RowGate {
  int32_t row[slots];  // -1: padding
  int32_t begin[slots], length[slots], self[slots];
  float slack[slots];  // twice slack_i
  int32_t stream;      // of this thread, the same for all of its rows
  int32_t special_begin, special_end;  // columns outside are negatives of all rows of the warp
  RoleRows<slots> role[2];

  FM_DEVICE void start(const MineState& state, int slot, int32_t at) {
    const RankedSet& set = state.ranked[0];
    row[slot] = set.order[at];
    begin[slot] = set.run_begin[at];
    length[slot] = set.run_end[at] - begin[slot];
    slack[slot] = 2 * set.slack[at];
    // A row that is not there, or that keys judge, has no candidates.
    const bool open =
        row[slot] >= 0 && state.query.numbers.norm[row[slot]] <= frame_of(state).max_norm;
    const float none = open ? kUnknown : -__int_as_float(0x7F800000);
    role[0].threshold[slot] = role[1].threshold[slot] = none;
    role[0].count[slot] = role[1].count[slot] = 0;
    const int64_t other = row[slot] < 0 ? -1 : state.labels.self(row[slot]);
    self[slot] = other < 0 ? -1 : state.ranked[1].position[other];
  }

  // After the rows have started.
  FM_DEVICE void find_special() {
    special_begin = INT32_MAX;
    special_end = 0;
#pragma unroll
    for (int s = 0; s < slots; ++s) {
      if (length[s] > 0) {
        special_begin = ::min(special_begin, begin[s]);
        special_end = ::max(special_end, begin[s] + length[s]);
      }
      if (self[s] >= 0) {
        special_begin = ::min(special_begin, self[s]);
        special_end = ::max(special_end, self[s] + 1);
      }
    }
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2) {
      special_begin = ::min(special_begin, __shfl_xor_sync(kAllLanes, special_begin, step));
      special_end = ::max(special_end, __shfl_xor_sync(kAllLanes, special_end, step));
    }
  }

  FM_DEVICE Candidate* kept(const MineState& state, int of_role, int slot) const {
    const int64_t list = int64_t{row[slot]} * state.streams + stream;
    return (of_role == 0 ? state.candidates[0] : state.candidates[1]) + list * kCandidates;
  }
};

// The lowest of the four lanes that share a row.
FM_DEVICE float lowest_of_quad(float x) {
  x = ::fminf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return ::fminf(x, __shfl_xor_sync(kAllLanes, x, 2));
}

FM_DEVICE void store_if(bool wanted, Candidate* to, float lower, int32_t position) {
  asm volatile(
      "{\n"
      ".reg .pred wanted;\n"
      "setp.ne.s32 wanted, %0, 0;\n"
      "@wanted st.global.v2.b32 [%1], {%2, %3};\n"
      "}\n" ::"r"(static_cast<int>(wanted)),
      "l"(to), "r"(__float_as_int(lower)), "r"(position)
      : "memory");
}

// columns: the bounds of the columns of a tile, in shared memory: lower of both roles, and slack,
// `stride` apart.
template <class Miner, int slots, int blocks, int stride, class Acc>
struct TileGate {
  const MineState& state;
  RowGate<slots>& rows;
  const float* columns;
  int32_t first;  // column of the tile
  const Acc& acc;

  static constexpr int kTileColumns = 8 * blocks;
  static constexpr int kGroup = 8 / slots;  // blocks between two branches: 16 pairs

  FM_DEVICE void run() const {
    bool changed = false;
#pragma unroll
    for (int b = 0; b < blocks; b += kGroup) {
      const int32_t begin = first + 8 * b;
      const int32_t end = begin + 8 * kGroup;
      if (rows.special_begin >= end || rows.special_end <= begin) {
        changed |= gate_group(Negatives{*this}, b, kNegative, rows.role[kNegative]);
      } else {
        changed |= gate_special(b, begin, end);
      }
    }
    if (!__any_sync(kAllLanes, changed)) return;
#pragma unroll
    for (int role = 0; role < 2; ++role) {
#pragma unroll
      for (int s = 0; s < slots; ++s) {
        float& threshold = rows.role[role].threshold[s];
        threshold = lowest_of_quad(threshold);
      }
      drop_excluded(role, rows.role[role]);
    }
  }

 private:
  FM_DEVICE static constexpr bool farthest(int role) {
    return (role == kPositive ? Miner::positive : Miner::negative) == Seek::farthest;
  }
  FM_DEVICE int column(int block) const {
    return block * 8 + static_cast<int>(threadIdx.x) % 4 * 2;
  }

  // Registers have no run-time index.
  FM_DEVICE void select(int role, RoleRows<slots>& to) const {
#pragma unroll
    for (int s = 0; s < slots; ++s) {
      to.threshold[s] = role == 0 ? rows.role[0].threshold[s] : rows.role[1].threshold[s];
      to.count[s] = role == 0 ? rows.role[0].count[s] : rows.role[1].count[s];
    }
  }
  FM_DEVICE void put_back(int role, const RoleRows<slots>& from) const {
#pragma unroll
    for (int s = 0; s < slots; ++s) {
      rows.role[0].threshold[s] = role == 0 ? from.threshold[s] : rows.role[0].threshold[s];
      rows.role[1].threshold[s] = role == 0 ? rows.role[1].threshold[s] : from.threshold[s];
      rows.role[0].count[s] = role == 0 ? from.count[s] : rows.role[0].count[s];
      rows.role[1].count[s] = role == 0 ? rows.role[1].count[s] : from.count[s];
    }
  }

  // Lower bounds of the scores of two columns, e = 0 and 1, of a block.
  struct Negatives {
    const TileGate& tile;
    FM_DEVICE float2 bounds(int block) const {
      return *reinterpret_cast<const float2*>(tile.columns + kNegative * stride + tile.column(block));
    }
    FM_DEVICE float lower(float bound, int s, int block, int e) const {
      const float product = tile.acc(s, block, e);
      return farthest(kNegative) ? bound + product : bound - product;
    }
  };
  // The same of one role, +inf for those that do not have it.
  struct Masked {
    const TileGate& tile;
    int role;
    const float* bound;
    float sign;
    int32_t first;
    FM_DEVICE float2 bounds(int block) const {
      return *reinterpret_cast<const float2*>(bound + tile.column(block));
    }
    FM_DEVICE float lower(float bound, int s, int block, int e) const {
      const int32_t position = first + tile.column(block) + e;
      const auto within = static_cast<uint32_t>(position - tile.rows.begin[s]);
      const bool positive = within < static_cast<uint32_t>(tile.rows.length[s]);
      const bool wanted = positive == (role == kPositive) && position != tile.rows.self[s];
      // One factor is 1 or -1: the product is exact.
      const float value = bound + sign * tile.acc(s, block, e);
      return wanted ? value : __int_as_float(0x7F800000);
    }
  };

  FM_DEVICE bool gate_special(int b, int32_t begin, int32_t end) const {
    bool within = true;
#pragma unroll
    for (int s = 0; s < slots; ++s) {
      within &= rows.begin[s] <= begin && rows.begin[s] + rows.length[s] >= end;
      within &= rows.self[s] < begin || rows.self[s] >= end;
    }
    const int roles = __all_sync(kAllLanes, within) ? 1 : 2;  // all positive, or mixed
    bool changed = false;
#pragma unroll 1
    for (int role = 0; role < roles; ++role) {
      RoleRows<slots> of_role;
      select(role, of_role);
      const float* const bound = columns + role * stride;
      const Masked view{*this, role, bound, farthest(role) ? 1.0F : -1.0F, first};
      changed |= gate_group(view, b, role, of_role);
      put_back(role, of_role);
    }
    return changed;
  }

  // Forgets candidates that the thresholds of today exclude, where there are many: a row that meets
  // ever nearer columns needs no more room than another.
  FM_DEVICE void drop_excluded(int role, RoleRows<slots>& of_role) const {
#pragma unroll
    for (int s = 0; s < slots; ++s) {
      const int32_t count = of_role.count[s];
      if (count < kCandidates / 2 || count > kCandidates) continue;
      Candidate* const kept = rows.kept(state, role, s);
      int32_t left = 0;
#pragma unroll 1
      for (int32_t at = 0; at < count; ++at) {
        const Candidate candidate = kept[at];
        if (candidate.lower <= of_role.threshold[s]) kept[left++] = candidate;
      }
      of_role.count[s] = left;
    }
  }

  // Whether a pair came below a threshold.
  template <class View>
  FM_DEVICE bool gate_group(const View& view, int b, int role, RoleRows<slots>& of_role) const {
    float value[slots][2 * kGroup];
    float lowest[slots];
    bool hit = false;
#pragma unroll
    for (int g = 0; g < kGroup; ++g) {
      const float2 bound = view.bounds(b + g);
#pragma unroll
      for (int s = 0; s < slots; ++s) {
        value[s][2 * g] = view.lower(bound.x, s, b + g, 0);
        value[s][2 * g + 1] = view.lower(bound.y, s, b + g, 1);
      }
    }
#pragma unroll
    for (int s = 0; s < slots; ++s) {
      lowest[s] = ::fminf(value[s][0], value[s][1]);
#pragma unroll
      for (int v = 2; v < 2 * kGroup; v += 2) {
        lowest[s] = ::fminf(lowest[s], ::fminf(value[s][v], value[s][v + 1]));
      }
      hit |= lowest[s] <= of_role.threshold[s];
    }
    if (!hit) return false;
    float slack = 0;  // the largest of the columns of this thread
#pragma unroll
    for (int g = 0; g < kGroup; ++g) {
      const float2 of = *reinterpret_cast<const float2*>(columns + 2 * stride + column(b + g));
      slack = ::fmaxf(slack, ::fmaxf(of.x, of.y));
    }
#pragma unroll
    for (int s = 0; s < slots; ++s) {
      float& threshold = of_role.threshold[s];
      threshold = ::fminf(threshold, lowest[s] + 2 * slack + rows.slack[s]);
      Candidate* const kept = rows.kept(state, role, s);
#pragma unroll
      for (int v = 0; v < 2 * kGroup; ++v) {
        const bool wanted = value[s][v] <= threshold;
        const int32_t at = of_role.count[s];
        store_if(wanted && at < kCandidates, kept + at, value[s][v],
                 first + column(b + v / 2) + v % 2);
        of_role.count[s] = at + (wanted ? 1 : 0);
      }
    }
    return true;
  }
};

// What the choice needs to know of the rows of this thread.
template <int slots>
FM_DEVICE void publish_rows(const MineState& state, const RowGate<slots>& rows) {
#pragma unroll
  for (int s = 0; s < slots; ++s) {
    const int32_t row = rows.row[s];
    if (row < 0) continue;
#pragma unroll
    for (int role = 0; role < 2; ++role) {
      const int32_t count = rows.role[role].count[s];
      state.n_candidates[role][int64_t{row} * state.streams + rows.stream] = count;
      if (count > kCandidates) state.judge_by_keys(row);
      const float threshold = rows.role[role].threshold[s];
      if (threadIdx.x % 4 == 0 && ::fabsf(threshold) < kUnknown) {
        atomicMax(state.threshold[role] + row, lowest_bits(threshold));
      }
    }
  }
}

}  // namespace flashmetric::cuda
