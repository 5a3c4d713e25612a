// SPDX-License-Identifier: BSD-3-Clause
// What a thread of a main loop knows of its rows while it ranks: thresholds, candidates kept, and
// which columns are not simply negatives.
#pragma once

#include "ptx.cuh"
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
  static constexpr int kBytes = 0;  // of shared memory, for all threads
  int32_t word[kFields][slots];
  FM_DEVICE void attach(int32_t*) {}
  FM_DEVICE int32_t get(int field, int slot) const { return word[field][slot]; }
  FM_DEVICE void set(int field, int slot, int32_t value) { word[field][slot] = value; }
};
template <int slots, int threads>
struct InShared {
  static constexpr int kBytes = kFields * slots * threads * static_cast<int>(sizeof(int32_t));
  int32_t* first;  // of this thread
  FM_DEVICE void attach(int32_t* own) { first = own; }
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
  static constexpr int kSharedBytes = Memory::kBytes;
  Memory memory;
  int32_t stream;                      // of this thread, the same for all of its rows
  float threshold[slots];              // of the negatives; kReach has that of the positives
  int32_t special_begin, special_end;  // columns outside are negatives of all rows of the warp

  // Words of shared memory for the rows of all threads.
  FM_DEVICE void attach(int32_t* shared, int thread) { memory.attach(shared + thread); }

  FM_DEVICE void start(const MineState& state, int slot, int32_t at) {
    const RankedSet& set = state.ranked[0];
    const int32_t row = set.order[at];
    const float slack = set.slack[at];
    memory.set(kRow, slot, row);
    memory.set(kBegin, slot, set.run_begin[at]);
    memory.set(kLength, slot, set.run_end[at] - set.run_begin[at]);
    memory.set(kSlack, slot, __float_as_int(2 * slack));
    memory.set(kCount, slot, 0);
    memory.set(kCount + 1, slot, 0);
    // A row that is not there, or that keys judge, has no candidates.
    threshold[slot] = slack >= 0 ? kUnknown : -__int_as_float(0x7F800000);
    memory.set(kReach, slot, __float_as_int(threshold[slot]));
    memory.set(kSelf, slot, row < 0 ? -1 : self_of(state, row, at));
  }
  // Its position among the references. Of one set of rows it is its own: a small batch would wait
  // for memory longer than for a tile.
  FM_DEVICE static int32_t self_of(const MineState& state, int32_t row, int32_t at) {
    return state.labels.symmetric ? at : static_cast<int32_t>(state.known_position(row));
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
    // Unsigned: one instruction multiplies and adds.
    const auto row = static_cast<uint32_t>(memory.get(kRow, slot));
    const uint64_t list =
        uint64_t{row} * static_cast<uint32_t>(state.streams) + static_cast<uint32_t>(stream);
    return (role == 0 ? state.candidates[0] : state.candidates[1]) + list * kCandidates;
  }
};

// The lowest of the four lanes that share a row.
FM_DEVICE float lowest_of_quad(float x) {
  x = ::fminf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return ::fminf(x, __shfl_xor_sync(kAllLanes, x, 2));
}

// Its thresholds, to all threads that see the row.
template <int slots, class Memory>
FM_DEVICE void publish_thresholds(const MineState& state, const RowGate<slots, Memory>& rows) {
  if (threadIdx.x % 4 != 0) return;
#pragma unroll
  for (int s = 0; s < slots; ++s) {
    const int32_t row = rows.memory.get(kRow, s);
    if (row < 0) continue;
    const float threshold[2] = {__int_as_float(rows.memory.get(kReach, s)), rows.threshold[s]};
#pragma unroll
    for (int role = 0; role < 2; ++role) {
      if (::fabsf(threshold[role]) < kUnknown) {
        atomicMax(state.threshold[role] + row, lowest_bits(threshold[role]));
      }
    }
  }
}

// Until all splits of these rows have surveyed theirs, or some 20 us: nobody depends on it, and
// blocks that wait for a multiprocessor must get it some time.
__device__ inline void await_splits(const MineState& state) {
  constexpr int patience = 200;
  __threadfence();
  int32_t* const surveyed = state.surveyed + blockIdx.x;
  const auto all = static_cast<int32_t>(gridDim.y);
  int32_t done = atomicAdd(surveyed, 1) + 1;
  for (int turn = 0; turn < patience && done < all; ++turn) {
    __nanosleep(64);
    done = atomicAdd(surveyed, 0);
  }
  __threadfence();
}

// After a survey: thresholds of all threads that see a row. `sync` is a barrier of those of the
// block; one of them leads.
template <int slots, class Memory, class Sync>
FM_DEVICE void share_thresholds(const MineState& state, RowGate<slots, Memory>& rows, bool leads,
                                const Sync& sync) {
#pragma unroll
  for (int s = 0; s < slots; ++s) {
    const float reach = __int_as_float(rows.memory.get(kReach, s));
    rows.threshold[s] = lowest_of_quad(rows.threshold[s] + rows.slack(s));
    rows.memory.set(kReach, s, __float_as_int(lowest_of_quad(reach + rows.slack(s))));
  }
  if (gridDim.y == 1) return;
  publish_thresholds(state, rows);
  sync();
  if (leads) await_splits(state);
  sync();
#pragma unroll
  for (int s = 0; s < slots; ++s) {
    const int32_t row = rows.memory.get(kRow, s);
    if (row < 0) continue;
    const float reach = __int_as_float(rows.memory.get(kReach, s));
    const float shared[2] = {lowest_value(__ldcg(state.threshold[0] + row)),
                             lowest_value(__ldcg(state.threshold[1] + row))};
    rows.memory.set(kReach, s, __float_as_int(::fminf(reach, shared[0])));
    rows.threshold[s] = ::fminf(rows.threshold[s], shared[1]);
  }
}

// What the choice needs to know of the rows of this thread.
template <int slots, class Memory>
FM_DEVICE void publish_rows(const MineState& state, const RowGate<slots, Memory>& rows) {
  publish_thresholds(state, rows);
#pragma unroll
  for (int s = 0; s < slots; ++s) {
    const int32_t row = rows.memory.get(kRow, s);
    if (row < 0) continue;
#pragma unroll
    for (int role = 0; role < 2; ++role) {
      const int32_t count = rows.memory.get(kCount + role, s);
      state.n_candidates[role][int64_t{row} * state.streams + rows.stream] = count;
      if (count > kCandidates) state.judge_by_keys(row);
    }
  }
}

}  // namespace flashmetric::cuda
