// SPDX-License-Identifier: BSD-3-Clause
// Sorts a row of numbers and says of many others where they would lie in it.
//
// Algorithm: 2 to 4 buckets of equal width for each number, a counting sort by bucket, neighbours
// exchanged by whole vectors, then an insertion sort, which moves next to nothing. A number finds
// its place from the start of its bucket. Where numbers crowd in few buckets (an outlier makes all
// others look equal) a radix sort and binary searches do the same.
//
// Why so: two passes over the row where a radix sort takes five, and one or two comparisons for a
// place where a search in 2048 numbers takes eleven.
#pragma once

#include "../certificate.h"
#include "../math.h"
#include "radix_sort.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// Before and after a sorted row: room for what lies at its ends, and for whole vectors.
constexpr int kPad = 16;

// Numbers in one bucket that an insertion sort takes no longer for than a radix sort: 16 * 16 / 4
// comparisons, 4 for a number.
constexpr int32_t kCrowd = 16;
static_assert(kCrowd <= kPad && kCrowd % kWidth<float> == 0);

// Buckets, at most: what stays in a cache of 256 KiB. Beyond 2^19 numbers they crowd.
constexpr int32_t kMostBuckets = 1 << 16;

template <class T>
struct BucketScratch {
  SortBuffers<T> data;  // [n + 2 * kPad] each
  int32_t* place;       // [n + kPad] the buckets of the numbers
  int32_t* end;         // [1 + kMostBuckets, or 4 n] 0, then where each bucket ends in the row
};

template <class T>
class SortedRow {
 public:
  FM_INLINE explicit SortedRow(const BucketScratch<T>& scratch) : scratch_(scratch) {}

  // Of n > 0 finite numbers between low and high; their ids are 0, 1, ...
  FM_INLINE void sort(const T* from, int32_t n, T low, T high) {
    n_ = n;
    low_ = low;
    while (buckets_ < kMostBuckets && buckets_ / 2 < n) buckets_ *= 2;
    scale_ = static_cast<T>(buckets_ - 1) / (high - low);
    if (!(scale_ <= Precision<T>::highest)) scale_ = 0;  // all but equal: one bucket
    value_ = scratch_.data.value[1] + kPad;
    id_ = scratch_.data.id[1] + kPad;
    if (count(from) <= kCrowd) {
      scatter(from);
      pad();
      exchange_neighbours();
      insert();
    } else {
      sort_by_bits(from);
      pad();
    }
  }

  FM_INLINE int32_t size() const { return n_; }
  // Infinite up to kPad beyond either end.
  FM_INLINE T operator[](int32_t k) const { return value_[k]; }
  FM_INLINE const T* values() const { return value_; }
  FM_INLINE int32_t id(int32_t k) const { return id_[k]; }

  // The first position above each of `count` finite numbers, n if there is none.
  FM_INLINE void places_above(const T* x, int32_t count, int32_t* place) const {
    if (searched_) {
      for (int32_t q = 0; q < count; ++q) place[q] = search(x[q]);
      return;
    }
    const auto top = static_cast<T>(buckets_ - 1);
    const T low = low_;
    const T scale = scale_;
    for (int32_t q = 0; q < count; ++q) {
      T at = (x[q] - low) * scale;
      at = at > 0 ? at : 0;
      place[q] = static_cast<int32_t>(at < top ? at : top);
    }
    // All buckets below are, none above is; no branch that half of the numbers would take.
    const int32_t* end = scratch_.end;
    const T* value = value_;
    for (int32_t q = 0; q < count; ++q) {
      const int32_t begin = end[place[q]];
      int32_t below = 0;
      for (int k = 0; k < kCrowd; k += kWidth<T>) {
        below += __builtin_popcount(le_bits(load(value + begin + k), broadcast(x[q])));
      }
      place[q] = begin + below;
    }
  }

 private:
  // Counts by bucket; returns how many the fullest has. `end` becomes where each bucket begins.
  // Here and below with copies of members: for all that a compiler knows, a store to an array of
  // integers might change them, and it would read them again each time, and make no vectors.
  FM_INLINE int32_t count(const T* from) {
    const int32_t n = n_;
    const int32_t buckets = buckets_;
    const T low = low_;
    const T scale = scale_;
    int32_t* place = scratch_.place;
    int32_t* end = scratch_.end + 1;
    for (int32_t b = -1; b < buckets; ++b) end[b] = 0;
    for (int32_t k = 0; k < n; ++k) place[k] = static_cast<int32_t>((from[k] - low) * scale);
    for (int32_t k = 0; k < n; ++k) ++end[place[k]];
    int32_t most = 0;
    for (int32_t b = 0; b < buckets; ++b) most = end[b] > most ? end[b] : most;
    int32_t total = 0;
    for (int32_t b = 0; b < buckets; ++b) {
      const int32_t size = end[b];
      end[b] = total;
      total += size;
    }
    return most;
  }

  FM_INLINE void scatter(const T* from) {
    const int32_t n = n_;
    const int32_t* place = scratch_.place;
    int32_t* end = scratch_.end + 1;
    T* value = value_;
    int32_t* id = id_;
    for (int32_t k = 0; k < n; ++k) {
      const int32_t at = end[place[k]]++;
      value[at] = from[k];
      id[at] = k;
    }
  }

  FM_INLINE void pad() {
    for (int k = 1; k <= kPad; ++k) value_[-k] = -__builtin_huge_val();
    for (int k = 0; k < kPad; ++k) value_[n_ + k] = __builtin_huge_val();
  }

  // Twice all pairs from an even place, and from an odd one. Whether two numbers of a bucket are in
  // order is a coin's toss, and a branch that guesses wrong costs as much as 16 exchanges.
  FM_INLINE void exchange_neighbours() {
    for (int pass = 0; pass < 4; ++pass) {
      for (int32_t k = pass % 2; k < n_; k += kWidth<T>) {
        exchange(value_ + k, id_ + k, std::make_integer_sequence<int, kWidth<T>>{});
      }
    }
  }

  template <int... lane>
  static FM_INLINE void exchange(T* value, int32_t* id, std::integer_sequence<int, lane...>) {
    typedef int32_t Ids __attribute__((vector_size(sizeof(int32_t) * kWidth<T>)));
    const Vec<T> here = load(value);
    const Vec<T> there = __builtin_shufflevector(here, here, (lane ^ 1)...);
    const Vec<T> low = here < there ? here : there;
    const Vec<T> high = here < there ? there : here;
    const Vec<T> ordered =
        __builtin_shufflevector(low, high, (lane % 2 == 0 ? lane : lane + kWidth<T>)...);
    Ids own;
    std::memcpy(&own, id, sizeof own);
    const Ids other = __builtin_shufflevector(own, own, (lane ^ 1)...);
    own = __builtin_convertvector(ordered != here, Ids) != 0 ? other : own;
    store(value, ordered);
    std::memcpy(id, &own, sizeof own);
  }

  FM_INLINE void insert() {
    constexpr uint32_t all = ~(~0U << kWidth<T>);
    for (int32_t k = 1; k < n_; k += kWidth<T>) {
      if (le_bits(load(value_ + k - 1), load(value_ + k)) == all) continue;
      for (int32_t j = k; j < k + kWidth<T> && j < n_; ++j) insert(j);
    }
  }

  // The number at k, among those before it.
  FM_INLINE void insert(int32_t k) {
    const T x = value_[k];
    const int32_t id = id_[k];
    for (; k > 0 && value_[k - 1] > x; --k) {
      value_[k] = value_[k - 1];
      id_[k] = id_[k - 1];
    }
    value_[k] = x;
    id_[k] = id;
  }

  FM_NOINLINE void sort_by_bits(const T* from) {
    const SortBuffers<T>& data = scratch_.data;
    const SortBuffers<T> inner{{data.value[0] + kPad, data.value[1] + kPad},
                               {data.id[0] + kPad, data.id[1] + kPad}};
    for (int32_t k = 0; k < n_; ++k) {
      inner.value[0][k] = from[k];
      inner.id[0][k] = k;
    }
    const int at = radix_sort(inner, n_);
    value_ = inner.value[at];
    id_ = inner.id[at];
    searched_ = true;
  }

  FM_INLINE int32_t search(T x) const {
    return first_where(n_, [&](int32_t k) { return value_[k] > x; });
  }

  const BucketScratch<T>& scratch_;
  int32_t n_ = 0;
  T low_ = 0;
  int32_t buckets_ = 1;
  T scale_ = 0;
  T* value_ = nullptr;
  int32_t* id_ = nullptr;
  bool searched_ = false;
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
