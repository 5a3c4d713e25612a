// SPDX-License-Identifier: BSD-3-Clause
// A slot is one pair of an anchor and a positive, and the running choice of its semi-hard negative:
// the nearest negative that is farther than the positive.
//
// In the notation of certificate.h, of a positive p of row i and a negative j
//   upper_j = lower_ij + 2 slack_j  <  low  = lower_ip - 2 slack_i           j is not beyond p
//   lower_ij  >  sure = lower_ip + 2 slack_p + 2 slack_i                      j is beyond p
//   lower_ij  >  high = min of sure columns (lower + 2 slack) + 2 slack_i     j is not the nearest
// and any other column is kept until the float64 keys decide. As in choice.h a row is changed under
// its lock, `high` is read without it, and the result does not depend on threads.
#pragma once

#include "mine.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// Few lie between the bounds of a slot; there are as many lists as positives.
constexpr int kSlotList = 8;

// A row whose lists were pruned by keys this often is full of near-ties: its keys are computed once
// for all, which costs less than pruning on.
constexpr uint8_t kMostPrunes = 8;

template <class T>
struct Slots {
  const MineState<T>* state = nullptr;
  int64_t most = 0;              // of any row
  int64_t stride = 0;            // padded rows; arrays by slot are [most][stride]
  int32_t* chosen = nullptr;     // [stride] the column of the only slot of a row; null: its run
  uint8_t* n = nullptr;          // [stride] slots of a row
  uint8_t* most_of = nullptr;    // [stride / kTileCols] the most of the rows of a group
  T* low = nullptr;              // fixed once the positives are known
  T* sure = nullptr;             // likewise
  T* high = nullptr;             // falls
  Candidate<T>* list = nullptr;  // [most][stride][kSlotList]
  uint8_t* count = nullptr;
  uint8_t* prunes = nullptr;  // [stride]

  FM_INLINE const Ranked<T>& query() const { return state->query; }
  FM_INLINE const Ranked<T>& ref() const { return *state->chooser.ref; }
  FM_INLINE bool given_up(int64_t i) const { return prunes[i] > kMostPrunes; }

  FM_INLINE int32_t column(int32_t i, int k) const {
    return chosen == nullptr ? positive_column(i, k) : chosen[i];
  }
  // Positive k of row i: they are a run of columns, without itself.
  FM_INLINE int32_t positive_column(int32_t i, int k) const {
    const Order& order = state->order;
    const int32_t j = order.run_begin[i] + k;
    return order.self[i] >= order.run_begin[i] && order.self[i] <= j ? j + 1 : j;
  }
  FM_INLINE double key_of(int32_t i, int32_t j) const {
    return state->chooser.signed_key(kNegative, i, j);
  }

  FM_INLINE void reset(int64_t i, int k) const {
    const int64_t at = k * stride + i;
    low[at] = Precision<T>::highest;  // nothing is between
    high[at] = -Precision<T>::highest;
    count[at] = 0;
  }

  // The positive of slot k has this lower bound.
  FM_INLINE void set(int32_t i, int k, T lower) const {
    const int64_t at = k * stride + i;
    const T own = 2 * query().slack[i];
    low[at] = lower - own;
    sure[at] = lower + 2 * ref().slack[column(i, k)] + own;
    high[at] = Precision<T>::highest;
  }

  // The columns j + c of the set bits c may be the choice of slot k.
  __attribute__((noinline)) void offer(int32_t i, int k, int32_t j, uint32_t bits,
                                       const Vec<T> (&lower)[kTileVecs]) const {
    state->chooser.acquire(i);
    const int64_t at = k * stride + i;
    const Vec<T> own = broadcast(2 * query().slack[i]);
    Vec<T> nearest = broadcast(high[at]);
    T spilled[kTileCols<T>];
    for (int v = 0; v < kTileVecs; ++v) {
      const uint32_t beyond = (bits >> (v * kWidth<T>)) & ~le_bits(lower[v], broadcast(sure[at]));
      const Vec<T> upper = lower[v] + 2 * load(ref().slack + j + v * kWidth<T>) + own;
      nearest = minimum(where_bits<T>(beyond, upper, nearest), nearest);
      store(spilled + v * kWidth<T>, lower[v]);
    }
    const T best = lowest_lane<T>(nearest);
    __atomic_store(&high[at], &best, __ATOMIC_RELAXED);
    for (int v = 0; v < kTileVecs; ++v) {
      uint32_t left = (bits >> (v * kWidth<T>)) & le_bits(lower[v], broadcast(best));
      for (; left != 0; left &= left - 1) {
        const int c = v * kWidth<T> + __builtin_ctz(left);
        if (spilled[c] <= high[at]) push(i, k, {spilled[c], j + c});
      }
    }
    state->chooser.release(i);
  }

  // The same of rows of a tile as columns: their bounds are lower[c * step].
  template <int step>
  __attribute__((noinline)) void offer(int32_t i, int k, int32_t j, uint32_t bits,
                                       const T* lower) const {
    state->chooser.acquire(i);
    const int64_t at = k * stride + i;
    const T own = 2 * query().slack[i];
    T best = high[at];
    for (uint32_t left = bits; left != 0; left &= left - 1) {
      const int c = __builtin_ctz(left);
      if (!(lower[c * step] > sure[at])) continue;
      const T upper = lower[c * step] + 2 * ref().slack[j + c] + own;
      best = upper < best ? upper : best;
    }
    __atomic_store(&high[at], &best, __ATOMIC_RELAXED);
    for (uint32_t left = bits; left != 0; left &= left - 1) {
      const int c = __builtin_ctz(left);
      if (lower[c * step] <= high[at]) push(i, k, {lower[c * step], j + c});
    }
    state->chooser.release(i);
  }

  // The row of the negative of slot k, or -1 where the keys of the whole row must say.
  inline int64_t decide(int32_t i, int k) const {
    const int64_t at = k * stride + i;
    const Candidate<T>* candidates = list + at * kSlotList;
    const int kept = survivors(at);
    const int32_t* original = state->order.ref;
    if (kept == 1 && candidates[0].lower > sure[at]) return original[candidates[0].column];
    const int best = best_of(i, k, candidates, kept);
    return best < 0 ? -1 : original[candidates[best].column];
  }

 private:
  FM_INLINE int survivors(int64_t at) const {
    Candidate<T>* candidates = list + at * kSlotList;
    int kept = 0;
    for (int c = 0; c < count[at]; ++c) {
      if (candidates[c].lower <= high[at]) candidates[kept++] = candidates[c];
    }
    return kept;
  }

  // Which candidate is the nearest beyond the positive, by the keys; -1: none is.
  inline int best_of(int32_t i, int k, const Candidate<T>* candidates, int n_candidates) const {
    const double threshold = key_of(i, column(i, k));
    BestPair best;
    int which = -1;
    for (int c = 0; c < n_candidates; ++c) {
      const double key = key_of(i, candidates[c].column);
      if (!(key > threshold)) continue;
      const int64_t row = state->order.ref[candidates[c].column];
      best.offer(key, row);
      if (best.row == row) which = c;
    }
    state->chooser.count(0, n_candidates + 1);
    return which;
  }

  // Nothing is offered to the row any more.
  FM_INLINE void give_up(int32_t i) const {
    for (int k = 0; k < n[i]; ++k) reset(i, k);
  }

  FM_INLINE void push(int32_t i, int k, Candidate<T> candidate) const {
    const int64_t at = k * stride + i;
    if (count[at] == kSlotList) prune(i, k);
    if (!given_up(i)) list[at * kSlotList + count[at]++] = candidate;
  }

  // Makes room: first by `high`; if more than half stay, by the keys.
  __attribute__((noinline)) void prune(int32_t i, int k) const {
    const int64_t at = k * stride + i;
    Candidate<T>* candidates = list + at * kSlotList;
    int kept = survivors(at);
    if (kept > kSlotList / 2) {
      const int best = best_of(i, k, candidates, kept);
      kept = best < 0 ? 0 : 1;
      if (best >= 0) {
        candidates[0] = candidates[best];
        const T upper =
            candidates[0].lower + 2 * ref().slack[candidates[0].column] + 2 * query().slack[i];
        high[at] = upper < high[at] ? upper : high[at];
      }
      if (++prunes[i] > kMostPrunes) give_up(i);
    }
    count[at] = static_cast<uint8_t>(kept);
  }
};

template <class T>
FM_INLINE void lay_out_slots(Arena& arena, int64_t queries, int64_t most, Slots<T>& slots) {
  slots.most = most;
  slots.stride = blocks_of(queries) * kBlock;
  slots.n = arena.take<uint8_t>(slots.stride);
  slots.most_of = arena.take<uint8_t>(slots.stride / kTileCols<T>);
  slots.low = arena.take<T>(most * slots.stride);
  slots.sure = arena.take<T>(most * slots.stride);
  slots.high = arena.take<T>(most * slots.stride);
  slots.list = arena.take<Candidate<T>>(most * slots.stride * kSlotList);
  slots.count = arena.take<uint8_t>(most * slots.stride);
  slots.prunes = arena.take<uint8_t>(slots.stride);
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
