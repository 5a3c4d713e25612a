// SPDX-License-Identifier: BSD-3-Clause
// The running choice of every query row, for both roles: a threshold that only falls, and a short
// list of the columns that are below it, any of which the keys may still prefer.
//
// Rows are offered columns by whichever thread has the tile. A row is changed under its own lock;
// thresholds are read without it, because a stale one is merely higher. What is finally chosen is
// the best key among all columns that cannot be excluded, a set that contains the true choice
// whatever the order of offers: the result does not depend on threads.
#pragma once

#include "prepare.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

template <class T>
struct Candidate {
  T lower;
  int32_t column;
};

// 16: random batches leave 1 to 2 columns within the bound of bfloat16, and 2 to 8 within that of 8
// bits; a list that fills is pruned (below).
constexpr int kList = 16;

// 2: a list may fill by chance, and 16 keys make room in 1 us, where ranking the row again takes
// 3 us, and 38 us with the register tile that it shares (4096 x 128, Zen 4). A row that fills it a
// third time has more near-ties than keys should judge.
constexpr int kKeyedPrunes = 2;

template <class T>
struct RowChoices {
  T* threshold = nullptr;        // [padded rows]
  Candidate<T>* list = nullptr;  // [padded rows][kList]
  uint8_t* count = nullptr;      // [padded rows]
  uint8_t* crowded = nullptr;    // [padded rows] prunes that needed keys

  FM_INLINE bool given_up(int64_t i) const { return crowded[i] > kKeyedPrunes; }
};

template <class T>
struct Chooser {
  KeyForm key{};
  int64_t dim = 0;
  const Ranked<T>* query = nullptr;
  const Ranked<T>* ref = nullptr;
  bool farthest[2] = {};
  Inner inner = Inner::product;
  T exponent = 2;
  T spread = 0;  // of a score, relative to itself
  // Of the best score that the key of a candidate allows, where `bounded` (threshold_by_key):
  bool bounded = false;
  double per_key = 0;  // of the score
  double base = 0;     // what is the same for all rows
  double unit = 1;     // as Frame has it
  double centre_norm = 0;
  RowChoices<T> role[2] = {};
  uint8_t* lock = nullptr;        // [padded rows]
  int64_t* rescored = nullptr;    // counts keys computed to decide
  int64_t* candidates = nullptr;  // counts columns that neither bound nor key excluded
  bool last = false;  // there is no better bound to come: keys decide, however many candidates

  FM_INLINE double signed_key(int role_index, int32_t i, int32_t j) const {
    const double pair = pair_key(key, query->rows, query->order[i], ref->rows, ref->order[j], dim);
    return farthest[role_index] ? -pair : pair;
  }
  FM_INLINE void count(int64_t n_candidates, int64_t keys) const {
    __atomic_fetch_add(candidates, n_candidates, __ATOMIC_RELAXED);
    __atomic_fetch_add(rescored, keys, __ATOMIC_RELAXED);
  }

  // Columns j + c of the set bits c are candidates with the given lower bounds.
  __attribute__((noinline)) void offer(int role_index, int32_t i, int32_t j, uint32_t bits,
                                       const T* lower) const {
    acquire(i);
    const RowChoices<T>& choices = role[role_index];
    const T own = 2 * query->slack[i];
    T best = choices.threshold[i];
    for (uint32_t left = bits; left != 0; left &= left - 1) {
      const int c = __builtin_ctz(left);
      const T wider = spread * (lower[c] < 0 ? -lower[c] : lower[c]);
      const T upper = lower[c] + 2 * ref->slack[j + c] + own + wider;
      best = upper < best ? upper : best;
    }
    __atomic_store(&choices.threshold[i], &best, __ATOMIC_RELAXED);
    for (uint32_t left = bits; left != 0; left &= left - 1) {
      const int c = __builtin_ctz(left);
      if (lower[c] <= best) push(role_index, i, {lower[c], j + c});
    }
    release(i);
  }

  // The same of one register tile's columns: bits as many as its lanes.
  __attribute__((noinline)) void offer(int role_index, int32_t i, int32_t j, uint32_t bits,
                                       const Vec<T> (&lower)[kTileVecs]) const {
    acquire(i);
    const RowChoices<T>& choices = role[role_index];
    const Vec<T> own = broadcast(2 * query->slack[i]);
    Vec<T> lowest = broadcast(choices.threshold[i]);
    T spilled[kTileCols<T>];
    for (int v = 0; v < kTileVecs; ++v) {
      const Vec<T> wider = spread * absolute<T>(lower[v]);
      const Vec<T> slack = load(ref->slack + j + v * kWidth<T>);
      const Vec<T> upper = lower[v] + 2 * slack + own + wider;
      lowest = minimum(where_bits<T>(bits >> (v * kWidth<T>), upper, lowest), lowest);
      store(spilled + v * kWidth<T>, lower[v]);
    }
    const T best = lowest_lane<T>(lowest);
    __atomic_store(&choices.threshold[i], &best, __ATOMIC_RELAXED);
    for (int v = 0; v < kTileVecs; ++v) {
      uint32_t left = (bits >> (v * kWidth<T>)) & le_bits(lower[v], broadcast(best));
      for (; left != 0; left &= left - 1) {
        const int c = v * kWidth<T> + __builtin_ctz(left);
        push(role_index, i, {spilled[c], j + c});
      }
    }
    release(i);
  }

  FM_INLINE void offer_one(int role_index, int32_t i, int32_t j, T lower) const {
    offer(role_index, i, j, 1, &lower);
  }

  // The candidates that the final threshold cannot exclude, compacted to the front of the list.
  FM_INLINE int survivors(int role_index, int32_t i) const {
    const RowChoices<T>& choices = role[role_index];
    Candidate<T>* list = choices.list + int64_t{i} * kList;
    int kept = 0;
    for (int c = 0; c < choices.count[i]; ++c) {
      if (list[c].lower <= choices.threshold[i]) list[kept++] = list[c];
    }
    return kept;
  }

  // Compares the listed candidates by keys, the most promising first: its key excludes others.
  // Returns how many keys that took; the first of the list is then the best of them.
  inline int compare_listed(int role_index, int32_t i, int count, BestPair& best) const {
    const RowChoices<T>& choices = role[role_index];
    Candidate<T>* list = choices.list + int64_t{i} * kList;
    for (int c = 1; c < count; ++c) {
      if (list[c].lower < list[0].lower) exchange(list[0], list[c]);
    }
    T limit = choices.threshold[i];
    int keys = 0;
    for (int c = 0; c < count; ++c) {
      if (list[c].lower > limit) continue;
      const double pair = signed_key(role_index, i, list[c].column);
      const int32_t row = ref->order[list[c].column];
      best.offer(pair, row);
      if (best.row == row) {
        limit = lower_of(limit, threshold_by_key(role_index, i, pair));
        exchange(list[0], list[c]);
      }
      ++keys;
    }
    __atomic_store(&choices.threshold[i], &limit, __ATOMIC_RELAXED);
    return keys;
  }

  // Held for tens of nanoseconds, contended when two tiles hit one row at the same time.
  FM_INLINE void acquire(int32_t i) const {
    while (__atomic_exchange_n(&lock[i], uint8_t{1}, __ATOMIC_ACQUIRE) != 0) {
    }
  }
  FM_INLINE void release(int32_t i) const {
    __atomic_store_n(&lock[i], uint8_t{0}, __ATOMIC_RELEASE);
  }

 private:
  static FM_INLINE void exchange(Candidate<T>& a, Candidate<T>& b) {
    const Candidate<T> other = a;
    a = b;
    b = other;
  }
  static FM_INLINE T lower_of(T a, T b) { return b < a ? b : a; }

  // No column with a higher lower bound has a key as good as this one. docs/numerics-mining.md.
  inline T threshold_by_key(int role_index, int32_t i, double signed_key) const {
    const double norm = query->norm[query->order[i]];
    if (!bounded || (key.needs_norms() && norm < kMinNorm)) return Precision<T>::highest;
    const auto low = static_cast<double>(query->lower[role_index][i] + query->slack[i]);
    if (!(absolute_of(low) <= Precision<T>::highest)) {
      return Precision<T>::highest;  // redundant as a reference (decide.h)
    }
    const double own = farthest[role_index] ? -low : low;  // |y_i|^2 / 2
    const double rest = base - own;
    const double score = per_key * signed_key + (farthest[role_index] ? -rest : rest);
    const double scale = key.needs_norms() ? 1 / norm : 1;
    const RowLengths row{square_root(own > 0 ? 2 * own : 0), norm * scale * unit, centre_norm,
                         unit};
    const double n = static_cast<double>(dim);
    const double slack = static_cast<double>(query->slack[i]) +
                         static_cast<double>(FullTiles<T>::slack(key, row, 0, n)) * slack_factor;
    const double rounding =
        8 * Precision<T>::roundoff * (absolute_of(score) + absolute_of(own) + slack);
    return static_cast<T>(score + slack + rounding);
  }
  static FM_INLINE double absolute_of(double value) { return value < 0 ? -value : value; }

  FM_INLINE void push(int role_index, int32_t i, Candidate<T> candidate) const {
    const RowChoices<T>& choices = role[role_index];
    if (choices.count[i] == kList) prune(role_index, i);
    choices.list[int64_t{i} * kList + choices.count[i]++] = candidate;
  }

  // Makes room: first by the threshold; if nearly all stay, near-ties abound (duplicates, collapsed
  // embeddings) and all but the best key go, since a loser by key has lost for good. A row to which
  // that happens again and again waits for better tiles, where there are some.
  __attribute__((noinline)) void prune(int role_index, int32_t i) const {
    const RowChoices<T>& choices = role[role_index];
    int kept = survivors(role_index, i);
    if (kept > kList - 2) {
      if (!last && ++choices.crowded[i] > kKeyedPrunes) {
        constexpr T nothing = -Precision<T>::highest;
        __atomic_store(&choices.threshold[i], &nothing, __ATOMIC_RELAXED);
        kept = 0;
      } else {
        keep_best_key(role_index, i, kept);
        kept = 1;
      }
    }
    choices.count[i] = static_cast<uint8_t>(kept);
  }

  FM_INLINE void keep_best_key(int role_index, int32_t i, int kept) const {
    BestPair best;
    const int keys = compare_listed(role_index, i, kept, best);
    count(keys - 1, keys);
  }
};

template <class T>
FM_INLINE void lay_out_chooser(Arena& arena, int64_t queries, Chooser<T>& chooser) {
  const int64_t padded = blocks_of(queries) * kBlock;
  for (RowChoices<T>& role : chooser.role) {
    role.threshold = arena.take<T>(padded);
    role.list = arena.take<Candidate<T>>(padded * kList);
    role.count = arena.take<uint8_t>(padded);
    role.crowded = arena.take<uint8_t>(padded);
  }
  chooser.lock = arena.take<uint8_t>(padded);
}

// Rows that take no part in tiles get a threshold that nothing is below.
template <class T>
inline void reset_choices(const Frame<T>& frame, const Chooser<T>& chooser, int64_t begin,
                          int64_t end) {
  const Ranked<T>& query = *chooser.query;
  for (int64_t i = begin; i < end; ++i) {
    const bool ranked = i < query.n && frame.regular(query.norm[query.order[i]]);
    for (const RowChoices<T>& role : chooser.role) {
      role.threshold[i] = ranked ? Precision<T>::highest : -Precision<T>::highest;
      role.count[i] = 0;
      role.crowded[i] = 0;
    }
    chooser.lock[i] = 0;
  }
}

// For the last tiles: only the choices that were given up are open. Returns how many of the rows
// have one.
template <class T>
inline int64_t reopen_choices(const Chooser<T>& chooser) {
  int64_t rows = 0;
  for (int64_t i = 0; i < chooser.query->n; ++i) {
    bool any = false;
    for (const RowChoices<T>& role : chooser.role) {
      const bool open = role.given_up(i);
      role.threshold[i] = open ? Precision<T>::highest : -Precision<T>::highest;
      if (open) role.count[i] = 0;
      any = any || open;
    }
    rows += any ? 1 : 0;
  }
  return rows;
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
