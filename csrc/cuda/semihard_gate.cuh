// SPDX-License-Identifier: BSD-3-Clause
// What happens to the products of a tile where semi-hard negatives are sought: every negative that
// the windows of semihard_state.cuh do not exclude becomes a candidate of its row.
//
// Algorithm: as bits of an unsigned integer, the difference of an upper bound and the lower end of
// a window is small if it is within, large if it is beyond, and larger still if it is negative. So
// a pair and a positive cost a subtraction and a minimum, which the compiler makes one of three,
// and the pairs of a tile a vote. Only where a minimum comes below the width of a window, which is
// rare after a survey (gate.cuh), the thread that has it looks at the pairs one by one.
#pragma once

#include "gate.cuh"
#include "semihard_rows.cuh"

namespace flashmetric::cuda {

template <int slots, int blocks, int stride, class Rows, class Acc>
struct SemiHardGate {
  const SemiHardState& state;
  Rows& rows;
  const float* columns;  // kShift: what a sum is subtracted from; kColumnSlack: of 32 columns
  int32_t first;         // column of the tile
  const Acc& acc;

  static constexpr int kGroup = 4;                 // blocks whose columns share a slack
  static constexpr int kGroups = blocks / kGroup;  // of a tile
  static constexpr int kEach = 2 * kGroup;         // pairs of a row in a group
  static constexpr int kExchange = 8;              // tiles until others are asked what they know

  FM_DEVICE void run() const {
    Tile tile;
    read(tile);
    const int most = positives();
    int32_t before[slots];
#pragma unroll
    for (int s = 0; s < slots; ++s) before[s] = rows.n_kept[s];
    bool changed = false;
#pragma unroll 1
    for (int p = 0; p < most; ++p) changed |= look_beyond(p, tile);
    if (changed) drop_excluded(before);
    if (first / stride % kExchange == kExchange - 1) exchange_widths(state, rows);
  }

  // Only narrows windows.
  FM_DEVICE void survey() const {
    Tile tile;
    read(tile);
    float slack = tile.slack[0];
#pragma unroll
    for (int g = 1; g < kGroups; ++g) slack = ::fmaxf(slack, tile.slack[g]);
    const int most = positives();
#pragma unroll 1
    for (int p = 0; p < most; ++p) {
#pragma unroll
      for (int s = 0; s < slots; ++s) narrow_to_nearest(p, s, slack, tile);
    }
    __syncwarp();
  }

 private:
  // The tile as a thread sees it.
  struct Tile {
    float upper[slots][kGroups][kEach];  // +inf where a column is no negative
    float slack[kGroups];                // twice the largest
    uint32_t stored[slots];              // bits: pairs that are candidates already
  };

  // From one lane: the compiler must see that all loop as often.
  FM_DEVICE int positives() const { return __shfl_sync(kAllLanes, rows.most, 0); }
  FM_DEVICE int column(int block) const {
    return sum_column(static_cast<int>(threadIdx.x % kWarp), block, 0);
  }

  FM_DEVICE void read(Tile& tile) const {
#pragma unroll
    for (int s = 0; s < slots; ++s) tile.stored[s] = 0;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      tile.slack[g] = 2 * columns[kColumnSlack * stride + 8 * kGroup * g];
#pragma unroll
      for (int b = 0; b < kGroup; ++b) {
        const int block = kGroup * g + b;
        const auto shift =
            *reinterpret_cast<const float2*>(columns + kShift * stride + column(block));
#pragma unroll
        for (int s = 0; s < slots; ++s) {
          tile.upper[s][g][2 * b] = shift.x - acc(s, block, 0);
          tile.upper[s][g][2 * b + 1] = shift.y - acc(s, block, 1);
        }
      }
      const int32_t begin = first + 8 * kGroup * g;
      if (rows.special_begin < begin + 8 * kGroup && rows.special_end > begin) mask(g, tile);
    }
  }

  FM_DEVICE void mask(int g, Tile& tile) const {
#pragma unroll
    for (int s = 0; s < slots; ++s) {
      const int32_t begin = rows.memory.get(kBegin, s);
      const auto length = static_cast<uint32_t>(rows.memory.get(kLength, s));
      const int32_t self = rows.memory.get(kSelf, s);
#pragma unroll
      for (int v = 0; v < kEach; ++v) {
        const int32_t position = position_of(g, v);
        const bool positive = static_cast<uint32_t>(position - begin) < length;
        if (positive || position == self) tile.upper[s][g][v] = __int_as_float(0x7F800000);
      }
    }
  }
  FM_DEVICE int32_t position_of(int g, int v) const {
    return first + column(kGroup * g + v / 2) + v % 2;
  }

  // The least of upper - from, as an unsigned integer.
  FM_DEVICE static uint32_t least_above(float from, const float (&upper)[kEach]) {
    uint32_t least = __float_as_uint(upper[0] - from);
#pragma unroll
    for (int v = 1; v < kEach; ++v) least = ::min(least, __float_as_uint(upper[v] - from));
    return least;
  }

  // Numerics: the difference rounds once, so does the sum with it, and so does what is added for
  // both.
  FM_DEVICE void narrow_to_nearest(int p, int s, float slack, const Tile& tile) const {
    constexpr auto u = static_cast<float>(4 * Precision<float>::roundoff);
    const float beyond = rows.beyond(p, s, slack);
    uint32_t least = least_above(beyond, tile.upper[s][0]);
#pragma unroll
    for (int g = 1; g < kGroups; ++g) least = ::min(least, least_above(beyond, tile.upper[s][g]));
    const float gap = __uint_as_float(least);
    if (least >= 0x7F800000U) return;  // negative, or none: NaN or infinite
    rows.narrow(p, s, (beyond + gap) + u * (::fabsf(beyond) + gap));
  }

  // Whether a pair of the warp is within the window beyond positive p.
  FM_DEVICE bool look_beyond(int p, Tile& tile) const {
    Window window[slots];
    rows.read(p, window);
    bool hit[kGroups][slots];
    bool any = false;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
#pragma unroll
      for (int s = 0; s < slots; ++s) {
        const uint32_t least = least_above(window[s].low, tile.upper[s][g]);
        hit[g][s] = least <= __float_as_uint(window[s].width + tile.slack[g]);
        any |= hit[g][s];
      }
    }
    if (!__any_sync(kAllLanes, any)) return false;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
#pragma unroll
      for (int s = 0; s < slots; ++s) {
        if (hit[g][s]) keep(p, g, s, tile);
      }
    }
    __syncwarp();
    return true;
  }

  // What lies within the window. A thread mostly has one pair there, if any.
  FM_DEVICE void keep(int p, int g, int s, Tile& tile) const {
    const float low = rows.get(kLow, p, s);
    const uint32_t width = __float_as_uint(rows.get(kWidth, p, s) + tile.slack[g]);
    uint32_t open = 0;
#pragma unroll
    for (int v = 0; v < kEach; ++v) {
      open |= __float_as_uint(tile.upper[s][g][v] - low) <= width ? 1U << v : 0;
    }
    open &= ~(tile.stored[s] >> (kEach * g));
    tile.stored[s] |= open << (kEach * g);
    const float beyond = rows.beyond(p, s, tile.slack[g]);
#pragma unroll 1
    for (; open != 0; open &= open - 1) {
      const int v = __ffs(static_cast<int>(open)) - 1;
      float upper = tile.upper[s][g][0];
#pragma unroll
      for (int other = 1; other < kEach; ++other) {
        if (v == other) upper = tile.upper[s][g][other];
      }
      if (upper >= beyond) rows.narrow(p, s, upper);
      const int32_t count = rows.n_kept[s]++;
      if (count < kCandidates) rows.kept(state, 0, s)[count] = {upper, position_of(g, v)};
    }
  }

  // Whether the windows of today leave a candidate open.
  FM_DEVICE bool is_open(int slot, const Candidate& candidate) const {
    const float slack = 2 * state.widest[candidate.position];
    for (int p = 0; p < rows.most; ++p) {
      const uint32_t width = __float_as_uint(rows.get(kWidth, p, slot) + slack);
      if (__float_as_uint(candidate.lower - rows.get(kLow, p, slot)) <= width) return true;
    }
    return false;
  }
  // Forgets the others, where there are many, and more than before the tile: of thousands of
  // columns some eight stay open, and to look at them for each tile takes longer than the tile.
  FM_DEVICE void drop_excluded(const int32_t (&before)[slots]) const {
#pragma unroll
    for (int s = 0; s < slots; ++s) {
      const int32_t count = rows.n_kept[s];
      if (count < kCandidates / 2 || count > kCandidates || count == before[s]) continue;
      Candidate* const kept = rows.kept(state, 0, s);
      int32_t left = 0;
#pragma unroll 1
      for (int32_t c = 0; c < count; ++c) {
        const Candidate candidate = kept[c];
        if (is_open(s, candidate)) kept[left++] = candidate;
      }
      rows.n_kept[s] = left;
    }
  }
};

// POLICY of a main loop.
struct SeekSemiHard {
  using State = SemiHardState;
  static FM_DEVICE bool idle(const SemiHardState& state) {
    return *state.crowded != 0 || state.tally->n_irregular > 0;
  }
  template <int slots, int threads, bool registers>
  using Rows =
      SemiHardRows<slots,
                   std::conditional_t<registers, InRegisters<slots>, InShared<slots, threads / 4>>,
                   threads / 4>;
  template <int slots, int blocks, int stride, class Rows, class Acc>
  using Gate = SemiHardGate<slots, blocks, stride, Rows, Acc>;
};

}  // namespace flashmetric::cuda
