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

// What is known of the columns of a tile, in shared memory: one number of each kind per column.
enum ColumnNumber : int { kShift, kColumnSlack, kColumnNumbers };
constexpr int kStartBytes = kStartTerms * 2;  // of a column, beside these

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
    pass<true>();
    drop_excluded();
  }
  // Thresholds of a survey lack the slack of their row: share_thresholds adds it.
  FM_DEVICE void survey() const { pass<false>(); }

 private:
  template <bool stores>
  FM_DEVICE void pass() const {
#pragma unroll
    for (int b = 0; b < blocks; b += kGroup) {
      const int32_t begin = first + 8 * b;
      const int32_t end = begin + 8 * kGroup;
      if (rows.special_begin >= end || rows.special_end <= begin) {
        gate_negatives<stores>(b);
      } else {
        gate_special<stores>(b, begin, end);
      }
    }
  }

  FM_DEVICE static constexpr bool farthest(int role) {
    return (role == kPositive ? Miner::positive : Miner::negative) == Seek::farthest;
  }
  FM_DEVICE int column(int block) const {
    return sum_column(static_cast<int>(threadIdx.x % kWarp), block, 0);
  }

  // Numbers of two columns of this thread, e = 0 and 1, of a block.
  FM_DEVICE float2 numbers(ColumnNumber kind, int block) const {
    return *reinterpret_cast<const float2*>(columns + kind * stride + column(block));
  }

  // Lower bounds of the scores of the columns of a row.
  struct Negatives {
    static constexpr int role = kNegative;
    const TileGate& tile;
    int s;
    FM_DEVICE float lower(int block, int e) const {
      const float sum = tile.acc(s, block, e);
      return farthest(kNegative) ? sum : -sum;
    }
  };
  // The same of one role, +inf for those that do not have it. A column that is never chosen may get
  // NaN, which is below nothing.
  struct Masked {
    const TileGate& tile;
    int s, role;
    int32_t begin, length, self;
    FM_DEVICE float lower(int block, int e) const {
      const int32_t position = tile.first + tile.column(block) + e;
      const auto within = static_cast<uint32_t>(position - begin);
      const bool positive = within < static_cast<uint32_t>(length);
      const bool wanted = positive == (role == kPositive) && position != self;
      const float2 shift = role == kPositive ? tile.numbers(kShift, block) : float2{0, 0};
      // One factor is 1 or -1: the product is exact.
      const float sign = farthest(role) ? 1.0F : -1.0F;
      const float value = (e == 0 ? shift.x : shift.y) + sign * tile.acc(s, block, e);
      return wanted ? value : __int_as_float(0x7F800000);
    }
  };

  // Row by row: this code is seldom run, and registers that it needs are taken from all other.
  template <bool stores>
  FM_DEVICE void gate_special(int b, int32_t begin, int32_t end) const {
#pragma unroll
    for (int s = 0; s < slots; ++s) {
      Masked view{*this,
                  s,
                  kPositive,
                  rows.memory.get(kBegin, s),
                  rows.memory.get(kLength, s),
                  rows.memory.get(kSelf, s)};
      const bool within = view.begin <= begin && view.begin + view.length >= end &&
                          (view.self < begin || view.self >= end);
      const int roles = __all_sync(kAllLanes, within) ? 1 : 2;  // all positive, or mixed
#pragma unroll 1
      for (view.role = kPositive; view.role < roles; ++view.role) {
        const float reach = __int_as_float(rows.memory.get(kReach, s));
        float threshold = view.role == kPositive ? reach : rows.threshold[s];
        const float lowest = lowest_of(view, b);
        if (!stores || __any_sync(kAllLanes, lowest <= threshold)) {
          offer<stores>(view, b, lowest, threshold);
        }
        if (view.role == kPositive) rows.memory.set(kReach, s, __float_as_int(threshold));
        rows.threshold[s] = view.role == kPositive ? rows.threshold[s] : threshold;
      }
    }
  }

  // Forgets candidates that the thresholds of today exclude, where there are many: a row that meets
  // ever nearer columns needs no more room than another.
  FM_DEVICE void drop_excluded() const {
    int32_t most = 0;
#pragma unroll
    for (int at = 0; at < 2 * slots; ++at) {
      most = ::max(most, rows.memory.get(kCount + at % 2, at / 2));
    }
    if (most < kCandidates / 2) return;
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

  template <class View>
  FM_DEVICE float lowest_of(const View& view, int b) const {
    float lowest = ::fminf(view.lower(b, 0), view.lower(b, 1));
#pragma unroll
    for (int g = 1; g < kGroup; ++g) {
      lowest = ::fminf(lowest, ::fminf(view.lower(b + g, 0), view.lower(b + g, 1)));
    }
    return lowest;
  }

  template <bool stores>
  FM_DEVICE void gate_negatives(int b) const {
    float lowest[slots];
    bool hit = false;
#pragma unroll
    for (int s = 0; s < slots; ++s) {
      lowest[s] = lowest_of(Negatives{*this, s}, b);
      hit |= lowest[s] <= rows.threshold[s];
    }
    if (stores && !__any_sync(kAllLanes, hit)) return;
#pragma unroll
    for (int s = 0; s < slots; ++s) {
      if (stores && !__any_sync(kAllLanes, lowest[s] <= rows.threshold[s])) continue;
      offer<stores>(Negatives{*this, s}, b, lowest[s], rows.threshold[s]);
    }
  }

  // Lowers the threshold, and keeps what is not above it.
  template <bool stores, class View>
  FM_DEVICE void offer(const View& view, int b, float lowest, float& threshold) const {
    const float reach = lowest + 2 * largest_slack(b);
    if constexpr (!stores) {
      threshold = ::fminf(threshold, reach);
      return;
    }
    threshold = lowest_of_quad(::fminf(threshold, reach + rows.slack(view.s)));
    Candidate* const kept = rows.kept(state, view.role, view.s);
    const int32_t position = first + column(b);
    auto count = static_cast<uint32_t>(rows.count(view.role, view.s));
#pragma unroll
    for (int v = 0; v < 2 * kGroup; ++v) {
      const float lower = view.lower(b + v / 2, v % 2);
      keep_if(lower <= threshold, kept, count, lower, position + v / 2 * 8 + v % 2);
    }
    rows.set_count(view.role, view.s, static_cast<int32_t>(count));
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
