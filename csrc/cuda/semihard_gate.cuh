// SPDX-License-Identifier: BSD-3-Clause
// What happens to the products of a tile where semi-hard negatives are sought: every negative that
// the windows of semihard_state.cuh do not exclude becomes a candidate of its row.
//
// Algorithm: as bits of an unsigned integer, the difference of an upper bound and the lower end of
// a window is small if it is within, large if it is beyond, and larger still if it is negative. So
// a pair and a positive cost a subtraction and a minimum, and a few columns together a comparison.
// Only where that comes below the width of a window, which is rare after a survey (gate.cuh), is
// something narrowed and stored.
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

  static constexpr int kGroup = 8 / slots;  // blocks between two branches: 16 pairs
  static constexpr int kEach = 2 * kGroup;  // of a row

  FM_DEVICE void run() const {
    bool changed = false;
#pragma unroll
    for (int b = 0; b < blocks; b += kGroup) {
      Group group;
      read(b, group);
#pragma unroll 1
      for (int p = 0; p < rows.most; ++p) changed |= look_beyond(p, b, group);
    }
    if (changed) drop_excluded();
  }

  // Only narrows windows.
  FM_DEVICE void survey() const {
#pragma unroll 1
    for (int p = 0; p < rows.most; ++p) {
      float nearest[slots];
#pragma unroll
      for (int s = 0; s < slots; ++s) nearest[s] = kUnknown;
#pragma unroll
      for (int b = 0; b < blocks; b += kGroup) {
        Group group;
        read(b, group);
#pragma unroll
        for (int s = 0; s < slots; ++s) {
          nearest[s] = ::fminf(nearest[s], nearest_beyond(rows.get(kCertain, p, s), s, group));
        }
      }
#pragma unroll
      for (int s = 0; s < slots; ++s) rows.narrow(p, s, lowest_of_quad(nearest[s]));
    }
  }

 private:
  struct Group {
    float upper[slots][kEach];  // +inf where a column is no negative
    float slack;                // twice the largest
    uint32_t stored[slots];     // bits: columns that are candidates already
  };

  FM_DEVICE int column(int block) const {
    return sum_column(static_cast<int>(threadIdx.x) % kWarp, block, 0);
  }

  FM_DEVICE void read(int b, Group& group) const {
    group.slack = 2 * columns[kColumnSlack * stride + 8 * b];
#pragma unroll
    for (int s = 0; s < slots; ++s) group.stored[s] = 0;
#pragma unroll
    for (int g = 0; g < kGroup; ++g) {
      const auto shift =
          *reinterpret_cast<const float2*>(columns + kShift * stride + column(b + g));
#pragma unroll
      for (int s = 0; s < slots; ++s) {
        group.upper[s][2 * g] = shift.x - acc(s, b + g, 0);
        group.upper[s][2 * g + 1] = shift.y - acc(s, b + g, 1);
      }
    }
    const int32_t begin = first + 8 * b;
    if (rows.special_begin < begin + 8 * kGroup && rows.special_end > begin) mask(b, group);
  }

  FM_DEVICE void mask(int b, Group& group) const {
#pragma unroll
    for (int s = 0; s < slots; ++s) {
      const int32_t begin = rows.memory.get(kBegin, s);
      const auto length = static_cast<uint32_t>(rows.memory.get(kLength, s));
      const int32_t self = rows.memory.get(kSelf, s);
#pragma unroll
      for (int v = 0; v < kEach; ++v) {
        const int32_t position = first + column(b + v / 2) + v % 2;
        const bool positive = static_cast<uint32_t>(position - begin) < length;
        if (positive || position == self) group.upper[s][v] = __int_as_float(0x7F800000);
      }
    }
  }

  // The lowest upper bound of those that are certainly beyond; +inf, or kUnknown, if none is.
  //
  // Numerics: the sum rounds once, and so does what is added for it.
  FM_DEVICE float nearest_beyond(float certain, int s, const Group& group) const {
    float beyond = certain + group.slack;
    beyond += ::fabsf(beyond) * static_cast<float>(4 * Precision<float>::roundoff);
    float nearest = kUnknown;
#pragma unroll
    for (int v = 0; v < kEach; ++v) {
      const float upper = group.upper[s][v];
      nearest = ::fminf(nearest, upper >= beyond ? upper : kUnknown);
    }
    return nearest;
  }

  // Whether a pair of the warp is within the window beyond positive p.
  FM_DEVICE bool look_beyond(int p, int b, Group& group) const {
    bool hit[slots];
    bool any = false;
#pragma unroll
    for (int s = 0; s < slots; ++s) {
      const float low = rows.get(kLow, p, s);
      uint32_t least = __float_as_uint(group.upper[s][0] - low);
#pragma unroll
      for (int v = 1; v < kEach; ++v) {
        least = ::min(least, __float_as_uint(group.upper[s][v] - low));
      }
      hit[s] = least <= __float_as_uint(rows.get(kWidth, p, s) + group.slack);
      any |= hit[s];
    }
    if (!__any_sync(kAllLanes, any)) return false;
#pragma unroll
    for (int s = 0; s < slots; ++s) {
      if (!__any_sync(kAllLanes, hit[s])) continue;
      const float nearest = nearest_beyond(rows.get(kCertain, p, s), s, group);
      rows.narrow(p, s, lowest_of_quad(nearest));
      store(p, s, b, group);
    }
    return true;
  }

  // A thread mostly has one, if any: only then what storing takes.
  FM_DEVICE void store(int p, int s, int b, Group& group) const {
    const float low = rows.get(kLow, p, s);
    const uint32_t width = __float_as_uint(rows.get(kWidth, p, s) + group.slack);
    uint32_t open = 0;
#pragma unroll
    for (int v = 0; v < kEach; ++v) {
      open |= __float_as_uint(group.upper[s][v] - low) <= width ? 1U << v : 0;
    }
    open &= ~group.stored[s];
    group.stored[s] |= open;
#pragma unroll 1
    for (; open != 0; open &= open - 1) {
      const int v = __ffs(static_cast<int>(open)) - 1;
      float upper = group.upper[s][0];
#pragma unroll
      for (int other = 1; other < kEach; ++other) {
        if (v == other) upper = group.upper[s][other];
      }
      const int32_t count = rows.n_kept[s]++;
      if (count >= kCandidates) continue;
      rows.kept(state, 0, s)[count] = {upper, first + column(b + v / 2) + v % 2};
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
  // Forgets the others, where there are many.
  FM_DEVICE void drop_excluded() const {
#pragma unroll
    for (int s = 0; s < slots; ++s) {
      const int32_t count = rows.n_kept[s];
      if (count < kCandidates / 2 || count > kCandidates) continue;
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
