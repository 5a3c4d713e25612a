// SPDX-License-Identifier: BSD-3-Clause
// One anchor of a dense loss, as the block that judges it sees it: who is a positive or a negative,
// the distances, and float64 keys wherever h leaves a doubt.
#pragma once

#include "dense_block.cuh"
#include "dense_gate.cuh"

namespace flashmetric::cuda {

// So few coefficients of a row are all taken by difference. Each reads two rows, in float64; a
// product multiplies all references, in float32, however few have one: of 4096, 128 times as many.
constexpr int kFewPairs = 32;

template <class T, class H>
struct DenseRow {
  const DenseState& state;
  const RowView<T>& x;
  const RowView<T>& r;
  RowShared& shared;
  int64_t i;  // the anchor
  Slot<T, H>* slot;
  uint32_t* positive;
  uint32_t* negative;
  uint32_t* near;
  uint32_t* weighed;  // until coefficients come, of a word that split has left open: not 0
  HalfScale scale;

  __device__ DenseRow(const DenseState& of, const RowView<T>& query, const RowView<T>& ref,
                      RowShared& block, int64_t first, int64_t at)
      : state(of),
        x(query),
        r(ref),
        shared(block),
        i(first + at),
        slot(slots_of<T, H>(of, at)),
        positive(of.positive + at * (of.stride / kWarp)),
        negative(of.negative + at * (of.stride / kWarp)),
        near(of.near + at * (of.stride / kWarp)),
        weighed(of.weighed + at * (of.stride / kWarp)),
        scale(of.packed ? *of.scale : HalfScale(of, 1.0)) {}

  // A word of the row at a time, a lane a column; the last lanes may have none. All lanes come.
  // Some words are read before the first is looked at.
  template <class Visit>
  __device__ void each_word_ahead(const Visit& visit) const {
    constexpr int64_t step = int64_t{kRowWarps} * kWordsAhead;
    for (int64_t first = warp_of() * kWordsAhead; first * kWarp < r.n; first += step) {
      WordAhead<H> ahead[kWordsAhead];
#pragma unroll
      for (int u = 0; u < kWordsAhead; ++u) ahead[u] = read_word(first + u);
#pragma unroll
      for (int u = 0; u < kWordsAhead; ++u) {
        if (ahead[u].word * kWarp < r.n) visit(ahead[u]);
      }
    }
  }
  __device__ static bool is_set(const uint32_t* bits, int64_t word) {
    return (bits[word] >> lane_of() & 1U) != 0;
  }

  // The keys of the columns of the lanes that `some` names.
  __device__ double keys_at(unsigned some, int64_t j) const {
    return lane_keys(some, j, [&](int64_t other) { return exact_key(state, x, i, r, other); });
  }
  // Of a column whose bit of `mine` is set: h if that is the key already.
  __device__ double key_at(int64_t j, bool mine) const {
    if constexpr (kWide<H>) return mine ? static_cast<double>(slot[j].h) : 0.0;
    const unsigned some = __ballot_sync(kAllLanes, mine);
    return some == 0 ? 0.0 : keys_at(some, j);
  }
  // The key as a value: keys.cuh says where that is another number. Of the lanes that `some` names.
  __device__ double value_at(unsigned some, int64_t j, double key) const {
    if constexpr (sizeof(T) == sizeof(double)) {
      if (!value_differs<T>(state.key)) return key;
      return lane_keys(some, j < r.n ? j : r.n - 1,
                       [&](int64_t other) { return exact_value(state, x, i, r, other); });
    }
    return key;
  }
  __device__ double distance(double key) const { return distance_of(state.key, key); }
  __device__ double slope(double key) const { return slope_of(state.key, key); }

  // What h of packed rows can be off by; 4 u, for what is measured and for thresholds, which round
  // once, leave room for the sums.
  __device__ float error(const WordAhead<H>& at) const {
    return error_of(static_cast<float>(at.h), state.rows[0].slack[i], at.slack);
  }
  __device__ static float error_of(float h, float own, float other) {
    constexpr auto u = static_cast<float>(4 * Precision<float>::roundoff);
    return (own > 0 ? own : 0) + (other > 0 ? other : 0) + ::fabsf(h) * u;
  }
  __device__ float half_distance(H h) const {
    return scale.distance(static_cast<float>(h), state.key.form == Form::product);
  }

  // Whether the gradient of the pair must be taken by difference, and so must its distance.
  __device__ bool is_near(int64_t j) const {
    if (!state.regular(0, i) || !state.regular(1, j)) return true;
    if (state.key.form != Form::difference) return false;
    const float lengths = state.rows[0].half[i] + state.rows[1].half[j];
    double h = static_cast<double>(slot[j].h);
    if constexpr (kWide<H>) h = scale.half(h);
    return h <= near_limit(static_cast<double>(lengths));
  }

  // The words that split has left open, each read while the one before is looked at.
  template <class Visit>
  __device__ void each_open_word(const Visit& visit) const {
    for (int64_t first = warp_of() * kWarp; first * kWarp < r.n; first += kRowThreads) {
      const int64_t own = first + lane_of();
      const uint32_t bits = own * kWarp < r.n ? weighed[own] : 0;
      unsigned open = __ballot_sync(kAllLanes, bits != 0);
      const auto read_next = [&] {
        const int from = __ffs(static_cast<int>(open)) - 1;
        WordAhead<H> ahead = read_word(first + from);
        ahead.open = __shfl_sync(kAllLanes, bits, from);
        open &= open - 1;
        return ahead;
      };
      if (open == 0) continue;
      WordAhead<H> next = read_next();
      for (bool more = true; more;) {
        const WordAhead<H> at = next;
        more = open != 0;
        if (more) next = read_next();
        visit(at);
      }
    }
  }

  __device__ WordGate<H> gate() const { return {state, i, scale}; }

  // Finds out who is who, and measures near pairs. `visit(j, positive)` sees each word that has a
  // positive, before its bits are there.
  template <class Visit>
  __device__ void split(const WordGate<H>& gate, const Visit& visit) const {
    if (threadIdx.x == 0) shared.n_positive = shared.n_negative = shared.n_live = 0;
    if constexpr (kWide<H>) {
      // Products read coefficients by fours: those behind the last must be something.
      if (threadIdx.x < state.stride - r.n) slot[r.n + threadIdx.x].h = 0;
    }
    __syncthreads();
    const RowRoles roles(state.labels, i);
    int positives = 0;
    int negatives = 0;
    constexpr int64_t step = int64_t{kRowWarps} * kWordsAhead;
    for (int64_t first = warp_of() * kWordsAhead; first * kWarp < r.n; first += step) {
      const unsigned plain = plain_words(gate, roles, first);
      WordBits bits{0, ~0U, 0};  // of word first + the lane
      for (unsigned left = ~plain & ((1U << kWordsAhead) - 1); left != 0; left &= left - 1) {
        const int u = __ffs(static_cast<int>(left)) - 1;
        const WordBits found = look(roles, (first + u) * kWarp + lane_of(), visit);
        if (lane_of() == u) bits = found;
      }
      const int64_t word = first + lane_of();
      if (lane_of() >= kWordsAhead || word * kWarp >= r.n) continue;
      positive[word] = bits.positive;
      negative[word] = bits.negative;
      near[word] = bits.near;
      weighed[word] = gate.settles && (plain >> lane_of() & 1U) != 0 ? 0 : ~0U;
      positives += __popc(bits.positive);
      negatives += __popc(bits.negative);
    }
    positives = sum_through_lane(positives);
    negatives = sum_through_lane(negatives);
    if (lane_of() == kWarp - 1) {
      atomicAdd(&shared.n_positive, positives);
      atomicAdd(&shared.n_negative, negatives);
    }
    __syncthreads();
  }

  // The coefficient of each lane, when the word needs its h no more.
  __device__ void leave(const WordAhead<H>& at, T c) const {
    const bool some = at.j < r.n && c != 0;
    keep(at, __ballot_sync(kAllLanes, some));
    if (some) slot[at.j].c = c;
  }
  // Says which columns of a word have coefficients.
  __device__ void keep(const WordAhead<H>& at, unsigned live) const {
    if (lane_of() == 0) keep_word(at.word, live, at.near);
  }
  // When all are kept: few are all taken by difference.
  __device__ void settle() const {
    __syncthreads();
    if (shared.n_live > kFewPairs || !state.packed) return;
    for (int64_t word = threadIdx.x; word * kWarp < r.n; word += kRowThreads) {
      if (weighed[word] == 0) continue;
      near[word] |= weighed[word];
      weighed[word] = 0;
    }
  }

  // The same where they are few and far between: columns say so one by one, after open_columns.
  __device__ void open_columns() const {
    for (int64_t word = threadIdx.x; word * kWarp < r.n; word += kRowThreads) weighed[word] = 0;
    __syncthreads();
  }
  __device__ void keep_column(int64_t j) const { atomicOr(weighed + j / kWarp, 1U << (j % kWarp)); }
  __device__ void close_columns() const {
    __syncthreads();
    for (int64_t word = threadIdx.x; word * kWarp < r.n; word += kRowThreads) {
      keep_word(word, weighed[word], near[word]);
    }
    settle();
  }

  // No coefficients, of a row without terms.
  __device__ void clear() const {
    for (int64_t word = threadIdx.x; word * kWarp < r.n; word += kRowThreads) {
      near[word] = weighed[word] = 0;
    }
  }

 private:
  __device__ void keep_word(int64_t word, unsigned live, unsigned close) const {
    const unsigned apart = state.packed ? close : ~0U;
    near[word] = live & apart;
    weighed[word] = live & ~apart;
    if (live != 0) atomicAdd(&shared.n_live, __popc(live));
  }

  __device__ WordAhead<H> read_word(int64_t word) const {
    WordAhead<H> ahead{word, word * kWarp + lane_of()};
    if (word * kWarp >= r.n) return ahead;
    ahead.positive = positive[word];
    ahead.negative = negative[word];
    ahead.near = near[word];
    const int64_t j = ahead.j < r.n ? ahead.j : r.n - 1;
    ahead.h = slot[j].h;
    if constexpr (!kWide<H>) ahead.slack = state.rows[1].slack[j];
    return ahead;
  }

  struct WordBits {
    unsigned positive, negative, near;
  };

  // Which of the words from `first` on are all negatives above the gate; where not all of them
  // exist, none.
  __device__ unsigned plain_words(const WordGate<H>& gate, const RowRoles& roles,
                                  int64_t first) const {
    if ((first + kWordsAhead) * kWarp > r.n) return 0;
    const H limit = gate.above(first + lane_of() % kWordsAhead);
    const int64_t begin = first * kWarp + lane_of();
    H h[kWordsAhead];
    bool negative[kWordsAhead];
#pragma unroll
    for (int u = 0; u < kWordsAhead; ++u) h[u] = slot[begin + u * kWarp].h;
    roles.find_negatives(begin, negative);
    unsigned plain = 0;
#pragma unroll
    for (int u = 0; u < kWordsAhead; ++u) {
      const H above = __shfl_sync(kAllLanes, limit, u);
      const bool mine = negative[u] && h[u] > above && h[u] <= Precision<H>::highest;
      plain |= __all_sync(kAllLanes, mine) ? 1U << u : 0;
    }
    return plain;
  }

  // At a word closely. All lanes come, also of a word that does not exist.
  template <class Visit>
  __device__ WordBits look(const RowRoles& roles, int64_t j, const Visit& visit) const {
    const Role role = j < r.n ? roles.of(j) : kNeither;
    const bool close = state.packed && role != kNeither && is_near(j);
    const WordBits bits{__ballot_sync(kAllLanes, role == kPositive),
                        __ballot_sync(kAllLanes, role == kNegative),
                        __ballot_sync(kAllLanes, close)};
    if constexpr (!kWide<H>) {
      if (bits.near != 0) {
        const double key = keys_at(bits.near, j);
        if (close) slot[j].h = scale.measured(key);
      }
    }
    if (bits.positive != 0) visit(j, role == kPositive);
    return bits;
  }
};

}  // namespace flashmetric::cuda
