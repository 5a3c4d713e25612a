// SPDX-License-Identifier: BSD-3-Clause
// What a thread of a main loop knows of its rows while it looks for semi-hard negatives: a window
// of scores beyond each positive of a row. The four threads that share a row share it, in shared
// memory.
#pragma once

#include "row_gate.cuh"
#include "semihard_state.cuh"

namespace flashmetric::cuda {

// Of a positive: the window is [low, low + width], and scores from `certain` on are beyond it.
enum WindowField : int { kLow, kWidth, kCertain };
struct Window {
  float low, width;
};

// Wider than any score: no negative is known that is certainly beyond.
constexpr float kOpenWidth = kUnknown;

// memory.kReach is the position of the row here. The windows of two slots lie together, in 16 bytes
// that one load reads.
template <int slots, class Memory, int quads>
struct SemiHardRows : RowGate<slots, Memory> {
  static constexpr int kWindowWords = 2 * kMostPositives * slots * quads;
  static constexpr int kCertainWords = kWindowWords / 2;
  static constexpr int kSharedBytes =
      Memory::kBytes + (kWindowWords + kCertainWords) * static_cast<int>(sizeof(float));
  static_assert(slots % 2 == 0);
  using RowGate<slots, Memory>::memory;

  float* window;   // [kMostPositives][slots / 2][quads][2] low, width
  float* certain;  // [kMostPositives][slots][quads]
  int32_t n_kept[slots];
  int most = 0;  // positives of a row of this warp

  FM_DEVICE void attach(int32_t* shared, int thread) {
    const int quad = thread / 4;
    window = reinterpret_cast<float*>(shared) + 4 * quad;
    certain = reinterpret_cast<float*>(shared) + kWindowWords + quad;
    memory.attach(shared + kWindowWords + kCertainWords + quad);
  }
  // The four threads of a row share the work of its positives.
  static constexpr int kShare = kMostPositives / 4;
  FM_DEVICE static int own_positive(int at) { return static_cast<int>(threadIdx.x % 4) + 4 * at; }
  FM_DEVICE float* place(WindowField field, int positive, int slot) const {
    if (field == kCertain) return certain + (positive * slots + slot) * quads;
    return window + (positive * (slots / 2) + slot / 2) * 4 * quads + slot % 2 * 2 + field;
  }
  FM_DEVICE float get(WindowField field, int positive, int slot) const {
    return *place(field, positive, slot);
  }
  FM_DEVICE void set(WindowField field, int positive, int slot, float value) const {
    *place(field, positive, slot) = value;
  }
  FM_DEVICE void read(int positive, Window (&to)[slots]) const {
#pragma unroll
    for (int s = 0; s < slots; s += 2) {
      const float4 two = *reinterpret_cast<const float4*>(place(kLow, positive, s));
      to[s] = {two.x, two.y};
      to[s + 1] = {two.z, two.w};
    }
  }
  // From here on an upper bound tells that a column is certainly beyond, with `slack` for twice its
  // own.
  //
  // Numerics: the sum rounds once, and so does what is added for it.
  FM_DEVICE float beyond(int positive, int slot, float slack) const {
    constexpr auto u = static_cast<float>(4 * Precision<float>::roundoff);
    const float from = get(kCertain, positive, slot) + slack;
    return from + ::fabsf(from) * u;
  }

  FM_DEVICE void start(const SemiHardState& state, int slot, int32_t at) {
    RowGate<slots, Memory>::start(state, slot, at);
    const int32_t row = memory.get(kRow, slot);
    const bool open = this->threshold[slot] == kUnknown && state.is_by_keys[row] == 0;
    memory.set(kReach, slot, at);
    n_kept[slot] = 0;
    const int64_t stride = state.ranked[0].padded;
    const float never = __int_as_float(0x7F800000);
#pragma unroll
    for (int u = 0; u < kShare; ++u) {
      const int p = own_positive(u);
      const float low = open ? state.low[p * stride + at] : never;
      set(kLow, p, slot, low);
      set(kWidth, p, slot, kOpenWidth);
      set(kCertain, p, slot, open ? state.certain[p * stride + at] : never);
      if (low < never) most = ::max(most, p + 1);
    }
  }
  // After the rows have started.
  FM_DEVICE void find_special() {
    RowGate<slots, Memory>::find_special();
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2) {
      most = ::max(most, __shfl_xor_sync(kAllLanes, most, step));
    }
    __syncwarp();
  }

  // A negative with this upper bound is certainly beyond the positive. The four threads of the row
  // do not wait for each other: widths are no less than 0, and ordered like integers.
  //
  // Numerics: three roundings of at most u (|upper + slack| + |low|) each, for which 4 are added.
  FM_DEVICE void narrow(int positive, int slot, float upper) const {
    constexpr auto u = static_cast<float>(4 * Precision<float>::roundoff);
    const float low = get(kLow, positive, slot);
    const float high = upper + this->slack(slot);
    const float width = (high - low) + u * (::fabsf(high) + ::fabsf(low));
    atomicMin(reinterpret_cast<uint32_t*>(place(kWidth, positive, slot)), __float_as_uint(width));
  }
};

// The widths of the windows, to all threads that see the row.
template <int slots, class Memory, int quads>
FM_DEVICE void publish_widths(const SemiHardState& state,
                              const SemiHardRows<slots, Memory, quads>& rows) {
#pragma unroll
  for (int s = 0; s < slots; ++s) {
    const int32_t row = rows.memory.get(kRow, s);
    if (row < 0) continue;
    uint32_t* const width = state.width + int64_t{row} * kMostPositives;
#pragma unroll
    for (int u = 0; u < rows.kShare; ++u) {
      const int p = rows.own_positive(u);
      const float own = rows.get(kWidth, p, s);
      if (own < kOpenWidth) atomicMax(width + p, lowest_bits(own));
    }
  }
}

// The same, and back: what threads that see other columns have found spares candidates. In between,
// without waiting for anybody.
template <int slots, class Memory, int quads>
FM_DEVICE void exchange_widths(const SemiHardState& state,
                               const SemiHardRows<slots, Memory, quads>& rows) {
  uint32_t known[slots][SemiHardRows<slots, Memory, quads>::kShare] = {};
#pragma unroll
  for (int s = 0; s < slots; ++s) {
    const int32_t row = rows.memory.get(kRow, s);
    uint32_t* const width = state.width + int64_t{row} * kMostPositives;
#pragma unroll
    for (int u = 0; u < rows.kShare; ++u) {
      const int p = rows.own_positive(u);
      if (row < 0 || p >= rows.most) continue;
      const float own = rows.get(kWidth, p, s);
      known[s][u] = atomicMax(width + p, own < kOpenWidth ? lowest_bits(own) : 0);
    }
  }
  // All are asked before the first answer is waited for.
#pragma unroll
  for (int s = 0; s < slots; ++s) {
#pragma unroll
    for (int u = 0; u < rows.kShare; ++u) {
      const int p = rows.own_positive(u);
      rows.set(kWidth, p, s, ::fminf(rows.get(kWidth, p, s), lowest_value(known[s][u])));
    }
  }
  __syncwarp();
}

// After a survey.
template <int slots, class Memory, int quads, class Sync>
FM_DEVICE void share_thresholds(const SemiHardState& state,
                                SemiHardRows<slots, Memory, quads>& rows, bool leads,
                                const Sync& sync) {
  publish_widths(state, rows);
  sync();
  if (leads) await_splits(state);
  sync();
#pragma unroll
  for (int s = 0; s < slots; ++s) {
    const int32_t row = rows.memory.get(kRow, s);
    if (row < 0) continue;
    const uint32_t* const width = state.width + int64_t{row} * kMostPositives;
#pragma unroll
    for (int u = 0; u < rows.kShare; ++u) {
      const int p = rows.own_positive(u);
      const float shared = lowest_value(__ldcg(width + p));
      rows.set(kWidth, p, s, ::fminf(rows.get(kWidth, p, s), shared));
    }
  }
  __syncwarp();
}

template <int slots, class Memory, int quads>
FM_DEVICE void publish_rows(const SemiHardState& state,
                            const SemiHardRows<slots, Memory, quads>& rows) {
  publish_widths(state, rows);
#pragma unroll
  for (int s = 0; s < slots; ++s) {
    const int32_t row = rows.memory.get(kRow, s);
    if (row < 0) continue;
    state.n_candidates[0][int64_t{row} * state.streams + rows.stream] = rows.n_kept[s];
    if (rows.n_kept[s] > kCandidates) state.judge_by_keys(row);
  }
}

}  // namespace flashmetric::cuda
