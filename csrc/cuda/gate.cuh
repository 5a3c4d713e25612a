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

// What a thread knows of one of its rows and seldom needs. Counts: candidates kept, by role; more
// than kCandidates leaves the row to the keys.
enum Field : int { kRow, kBegin, kLength, kSelf, kSlack, kReach, kCount, kFields = kCount + 2 };

// It is kept in registers, or, where those are short, in shared memory, [kFields][slots][threads].
template <int slots>
struct InRegisters {
  int32_t word[kFields][slots];
  FM_DEVICE int32_t get(int field, int slot) const { return word[field][slot]; }
  FM_DEVICE void set(int field, int slot, int32_t value) { word[field][slot] = value; }
};
template <int slots, int threads>
struct InShared {
  int32_t* first;  // of this thread
  FM_DEVICE int32_t get(int field, int slot) const {
    return first[(field * slots + slot) * threads];
  }
  FM_DEVICE void set(int field, int slot, int32_t value) {
    first[(field * slots + slot) * threads] = value;
  }
};

// The rows of one thread.
template <int slots, class Memory>
struct RowGate {
  Memory memory;
  int32_t stream;           // of this thread, the same for all of its rows
  float threshold[slots];   // of the negatives; kReach has that of the positives
  int32_t special_begin, special_end;  // columns outside are negatives of all rows of the warp

  FM_DEVICE void start(const MineState& state, int slot, int32_t at) {
    const RankedSet& set = state.ranked[0];
    const int32_t row = set.order[at];
    memory.set(kRow, slot, row);
    memory.set(kBegin, slot, set.run_begin[at]);
    memory.set(kLength, slot, set.run_end[at] - set.run_begin[at]);
    memory.set(kSlack, slot, __float_as_int(2 * set.slack[at]));
    memory.set(kCount, slot, 0);
    memory.set(kCount + 1, slot, 0);
    // A row that is not there, or that keys judge, has no candidates.
    const bool open = row >= 0 && state.query.numbers.norm[row] <= frame_of(state).max_norm;
    threshold[slot] = open ? kUnknown : -__int_as_float(0x7F800000);
    memory.set(kReach, slot, __float_as_int(threshold[slot]));
    const int64_t other = row < 0 ? -1 : state.labels.self(row);
    const bool known = other >= 0 && other < state.ref.n;
    memory.set(kSelf, slot, known ? state.ranked[1].position[other] : -1);
  }

  // After the rows have started.
  FM_DEVICE void find_special() {
    special_begin = INT32_MAX;
    special_end = 0;
#pragma unroll
    for (int s = 0; s < slots; ++s) {
      const int32_t begin = memory.get(kBegin, s);
      const int32_t length = memory.get(kLength, s);
      const int32_t self = memory.get(kSelf, s);
      if (length > 0) {
        special_begin = ::min(special_begin, begin);
        special_end = ::max(special_end, begin + length);
      }
      if (self >= 0) {
        special_begin = ::min(special_begin, self);
        special_end = ::max(special_end, self + 1);
      }
    }
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2) {
      special_begin = ::min(special_begin, __shfl_xor_sync(kAllLanes, special_begin, step));
      special_end = ::max(special_end, __shfl_xor_sync(kAllLanes, special_end, step));
    }
  }

  // Of a role known only at run time: registers have no index.
  FM_DEVICE int32_t count(int role, int slot) const {
    const int32_t counts[2] = {memory.get(kCount, slot), memory.get(kCount + 1, slot)};
    return role == 0 ? counts[0] : counts[1];
  }
  FM_DEVICE void set_count(int role, int slot, int32_t value) {
    if (role == 0) memory.set(kCount, slot, value);
    if (role == 1) memory.set(kCount + 1, slot, value);
  }
  FM_DEVICE float slack(int slot) const { return __int_as_float(memory.get(kSlack, slot)); }
  FM_DEVICE Candidate* kept(const MineState& state, int role, int slot) const {
    const int64_t list = int64_t{memory.get(kRow, slot)} * state.streams + stream;
    return (role == 0 ? state.candidates[0] : state.candidates[1]) + list * kCandidates;
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
template <class Miner, int slots, int blocks, int stride, class Memory, class Acc>
struct TileGate {
  const MineState& state;
  RowGate<slots, Memory>& rows;
  const float* columns;
  int32_t first;  // column of the tile
  const Acc& acc;

  static constexpr int kGroup = 8 / slots;  // blocks between two branches: 16 pairs

  FM_DEVICE void run() const {
    bool changed = false;
#pragma unroll
    for (int b = 0; b < blocks; b += kGroup) {
      const int32_t begin = first + 8 * b;
      const int32_t end = begin + 8 * kGroup;
      if (rows.special_begin >= end || rows.special_end <= begin) {
        changed |= gate_group(Negatives{*this}, b, kNegative, rows.threshold);
      } else {
        gate_special(b, begin, end);
        changed = true;
      }
    }
    if (changed) drop_excluded();
  }

 private:
  FM_DEVICE static constexpr bool farthest(int role) {
    return (role == kPositive ? Miner::positive : Miner::negative) == Seek::farthest;
  }
  FM_DEVICE int column(int block) const {
    return block * 8 + static_cast<int>(threadIdx.x) % 4 * 2;
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
    int32_t begin[slots], length[slots], self[slots];
    FM_DEVICE float2 bounds(int block) const {
      return *reinterpret_cast<const float2*>(bound + tile.column(block));
    }
    FM_DEVICE float lower(float bound, int s, int block, int e) const {
      const int32_t position = tile.first + tile.column(block) + e;
      const auto within = static_cast<uint32_t>(position - begin[s]);
      const bool positive = within < static_cast<uint32_t>(length[s]);
      const bool wanted = positive == (role == kPositive) && position != self[s];
      // One factor is 1 or -1: the product is exact.
      const float value = bound + sign * tile.acc(s, block, e);
      return wanted ? value : __int_as_float(0x7F800000);
    }
  };

  FM_DEVICE void gate_special(int b, int32_t begin, int32_t end) const {
    Masked view{*this};
    bool within = true;
#pragma unroll
    for (int s = 0; s < slots; ++s) {
      view.begin[s] = rows.memory.get(kBegin, s);
      view.length[s] = rows.memory.get(kLength, s);
      view.self[s] = rows.memory.get(kSelf, s);
      within &= view.begin[s] <= begin && view.begin[s] + view.length[s] >= end;
      within &= view.self[s] < begin || view.self[s] >= end;
    }
    const int roles = __all_sync(kAllLanes, within) ? 1 : 2;  // all positive, or mixed
#pragma unroll 1
    for (int role = 0; role < roles; ++role) {
      view.role = role;
      view.bound = columns + role * stride;
      view.sign = farthest(role) ? 1.0F : -1.0F;
      float threshold[slots];
#pragma unroll
      for (int s = 0; s < slots; ++s) {
        const float reach = __int_as_float(rows.memory.get(kReach, s));
        threshold[s] = role == kPositive ? reach : rows.threshold[s];
      }
      gate_group(view, b, role, threshold);
#pragma unroll
      for (int s = 0; s < slots; ++s) {
        if (role == kPositive) rows.memory.set(kReach, s, __float_as_int(threshold[s]));
        rows.threshold[s] = role == kPositive ? rows.threshold[s] : threshold[s];
      }
    }
  }

  // Forgets candidates that the thresholds of today exclude, where there are many: a row that meets
  // ever nearer columns needs no more room than another.
  FM_DEVICE void drop_excluded() const {
#pragma unroll
    for (int at = 0; at < 2 * slots; ++at) {
      const int role = at % 2;
      const int slot = at / 2;
      const int32_t count = rows.memory.get(kCount + role, slot);
      if (count < kCandidates / 2 || count > kCandidates) continue;
      const float reach = __int_as_float(rows.memory.get(kReach, slot));
      const float threshold = role == kPositive ? reach : rows.threshold[slot];
      Candidate* const kept = rows.kept(state, role, slot);
      int32_t left = 0;
#pragma unroll 1
      for (int32_t c = 0; c < count; ++c) {
        const Candidate candidate = kept[c];
        if (candidate.lower <= threshold) kept[left++] = candidate;
      }
      rows.memory.set(kCount + role, slot, left);
    }
  }

  // Whether a pair of the warp came below a threshold.
  template <class View>
  FM_DEVICE bool gate_group(const View& view, int b, int role, float (&threshold)[slots]) const {
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
      hit |= lowest[s] <= threshold[s];
    }
    if (!__any_sync(kAllLanes, hit)) return false;
    float slack = 0;  // the largest of the columns of this thread
#pragma unroll
    for (int g = 0; g < kGroup; ++g) {
      const float2 of = *reinterpret_cast<const float2*>(columns + 2 * stride + column(b + g));
      slack = ::fmaxf(slack, ::fmaxf(of.x, of.y));
    }
#pragma unroll
    for (int s = 0; s < slots; ++s) {
      const float reach = lowest[s] + 2 * slack + rows.slack(s);
      threshold[s] = lowest_of_quad(::fminf(threshold[s], reach));
      Candidate* const kept = rows.kept(state, role, s);
      int32_t count = rows.count(role, s);
#pragma unroll
      for (int v = 0; v < 2 * kGroup; ++v) {
        const bool wanted = value[s][v] <= threshold[s];
        store_if(wanted && count < kCandidates, kept + count, value[s][v],
                 first + column(b + v / 2) + v % 2);
        count += wanted ? 1 : 0;
      }
      rows.set_count(role, s, count);
    }
    return true;
  }
};

// What the choice needs to know of the rows of this thread.
template <int slots, class Memory>
FM_DEVICE void publish_rows(const MineState& state, const RowGate<slots, Memory>& rows) {
#pragma unroll
  for (int s = 0; s < slots; ++s) {
    const int32_t row = rows.memory.get(kRow, s);
    if (row < 0) continue;
    const float threshold[2] = {__int_as_float(rows.memory.get(kReach, s)), rows.threshold[s]};
#pragma unroll
    for (int role = 0; role < 2; ++role) {
      const int32_t count = rows.memory.get(kCount + role, s);
      state.n_candidates[role][int64_t{row} * state.streams + rows.stream] = count;
      if (count > kCandidates) state.judge_by_keys(row);
      if (threadIdx.x % 4 == 0 && ::fabsf(threshold[role]) < kUnknown) {
        atomicMax(state.threshold[role] + row, lowest_bits(threshold[role]));
      }
    }
  }
}

}  // namespace flashmetric::cuda
