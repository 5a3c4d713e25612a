// SPDX-License-Identifier: BSD-3-Clause
// What happens to the inner products of a tile: every pair that the bound of certificate.h cannot
// exclude becomes a candidate of its row. Main loops differ in where a thread holds its sums; they
// say so by an accessor acc(slot, block, e): row slot, block of eight columns, one of the two
// columns that the thread has there.
//
// Algorithm: a row's threshold is min(lower + 2 slack_j) + 2 slack_i over the columns seen. Sums of
// products begin with the bound of a negative, so that a sum is its lower, or -lower where the
// nearest is sought: sum = bound_j + <,>, or <,> - bound_j. A pair costs one minimum; where that of
// a few columns comes below the threshold, which is rare, it lowers the threshold, and what is
// still below is stored, without a branch. Of a positive the lower is shift_j + sum or
// shift_j - sum.
//
// Of n random columns about log n lower a threshold that starts from nothing, most of them early: a
// warp with sixteen rows would store in nearly every group of its first 500 columns. So a main loop
// surveys some tiles first, which only lowers thresholds, and sees them again with the others.
//
// Groups of columns where a row of the warp may have positives, or itself, look at who is whose and
// pass once for each role; they lie next to the diagonal of the sorted batch. All other columns are
// negatives of all rows of the warp. Code that stores lies next to code that does not: more of it
// than the instruction cache holds was five times as slow.
#pragma once

#include <type_traits>

#include "../mining.h"
#include "fragments.h"
#include "row_gate.cuh"

namespace flashmetric::cuda {

// The tiles of a block: its share of all, blockIdx.y counting the shares.
struct TileRange {
  int32_t begin, end;

  FM_DEVICE explicit TileRange(int32_t all) {
    const auto share = static_cast<int32_t>((all + gridDim.y - 1) / gridDim.y);
    begin = static_cast<int32_t>(share * blockIdx.y);
    end = begin + share < all ? begin + share : all;
  }
};

// What is known of the columns of a tile, in shared memory: one number of each kind per column, but
// two to start from, last (see RankedSet).
enum ColumnNumber : int { kShift, kColumnSlack, kStart, kColumnNumbers = kStart + 2 };

// columns: their numbers, one kind `stride` after the other.
template <class Miner, int slots, int blocks, int stride, class Rows, class Acc>
struct TileGate {
  const MineState& state;
  Rows& rows;
  const float* columns;
  int32_t first;  // column of the tile
  const Acc& acc;

  static constexpr int kGroup = 8 / slots;  // blocks between two branches: 16 pairs

  FM_DEVICE void run() const {
    if (pass<true>()) drop_excluded();
  }
  // Thresholds of a survey lack the slack of their row: share_thresholds adds it.
  FM_DEVICE void survey() const { pass<false>(); }

 private:
  // Whether something may have been stored.
  template <bool stores>
  FM_DEVICE bool pass() const {
    bool changed = false;
#pragma unroll
    for (int b = 0; b < blocks; b += kGroup) {
      const int32_t begin = first + 8 * b;
      const int32_t end = begin + 8 * kGroup;
      if (rows.special_begin >= end || rows.special_end <= begin) {
        changed |= gate_group<stores>(Negatives{*this}, b, kNegative, rows.threshold);
      } else {
        gate_special<stores>(b, begin, end);
        changed = true;
      }
    }
    return changed;
  }

  FM_DEVICE static constexpr bool farthest(int role) {
    return (role == kPositive ? Miner::positive : Miner::negative) == Seek::farthest;
  }
  FM_DEVICE int column(int block) const {
    return sum_column(static_cast<int>(threadIdx.x) % kWarp, block, 0);
  }

  // Numbers of two columns of this thread, e = 0 and 1, of a block.
  FM_DEVICE float2 numbers(ColumnNumber kind, int block) const {
    return *reinterpret_cast<const float2*>(columns + kind * stride + column(block));
  }

  // Lower bounds of the scores of the columns.
  struct Negatives {
    const TileGate& tile;
    FM_DEVICE float2 shifts(int) const { return {0, 0}; }
    FM_DEVICE float lower(float, int s, int block, int e) const {
      const float sum = tile.acc(s, block, e);
      return farthest(kNegative) ? sum : -sum;
    }
  };
  // The same of one role, +inf for those that do not have it. A column that is never chosen may get
  // NaN, which is below nothing.
  struct Masked {
    const TileGate& tile;
    int role;
    int32_t begin[slots], length[slots], self[slots];
    FM_DEVICE float2 shifts(int block) const {
      return role == kPositive ? tile.numbers(kShift, block) : float2{0, 0};
    }
    FM_DEVICE float lower(float shift, int s, int block, int e) const {
      const int32_t position = tile.first + tile.column(block) + e;
      const auto within = static_cast<uint32_t>(position - begin[s]);
      const bool positive = within < static_cast<uint32_t>(length[s]);
      const bool wanted = positive == (role == kPositive) && position != self[s];
      // One factor is 1 or -1: the product is exact.
      const float sign = farthest(role) ? 1.0F : -1.0F;
      const float value = shift + sign * tile.acc(s, block, e);
      return wanted ? value : __int_as_float(0x7F800000);
    }
  };

  template <bool stores>
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
      float threshold[slots];
#pragma unroll
      for (int s = 0; s < slots; ++s) {
        const float reach = __int_as_float(rows.memory.get(kReach, s));
        threshold[s] = role == kPositive ? reach : rows.threshold[s];
      }
      gate_group<stores>(view, b, role, threshold);
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

  // The largest slack of the columns of this thread in a group.
  FM_DEVICE float largest_slack(int b) const {
    float slack = 0;
#pragma unroll
    for (int g = 0; g < kGroup; ++g) {
      const float2 of = numbers(kColumnSlack, b + g);
      slack = ::fmaxf(slack, ::fmaxf(of.x, of.y));
    }
    return slack;
  }

  // Whether a pair of the warp came below a threshold.
  template <bool stores, class View>
  FM_DEVICE bool gate_group(const View& view, int b, int role, float (&threshold)[slots]) const {
    float value[slots][2 * kGroup];
    float lowest[slots];
    bool hit = false;
#pragma unroll
    for (int g = 0; g < kGroup; ++g) {
      const float2 shift = view.shifts(b + g);
#pragma unroll
      for (int s = 0; s < slots; ++s) {
        value[s][2 * g] = view.lower(shift.x, s, b + g, 0);
        value[s][2 * g + 1] = view.lower(shift.y, s, b + g, 1);
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
    if constexpr (!stores) {
      const float slack = 2 * largest_slack(b);
#pragma unroll
      for (int s = 0; s < slots; ++s) threshold[s] = ::fminf(threshold[s], lowest[s] + slack);
      return false;
    }
    if (!__any_sync(kAllLanes, hit)) return false;
    const float slack = largest_slack(b);
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

// POLICY of a main loop: what it knows of its rows, and does with the sums of a tile. Rows begin in
// registers, or in shared memory.
template <class Miner>
struct SeekExtremes {
  using State = MineState;
  // Whether nobody asks for what tiles find.
  static FM_DEVICE bool idle(const MineState& state) { return state.all_by_keys(); }
  template <int slots, int threads, bool registers>
  using Rows =
      RowGate<slots, std::conditional_t<registers, InRegisters<slots>, InShared<slots, threads>>>;
  template <int slots, int blocks, int stride, class Rows, class Acc>
  using Gate = TileGate<Miner, slots, blocks, stride, Rows, Acc>;
};

}  // namespace flashmetric::cuda
