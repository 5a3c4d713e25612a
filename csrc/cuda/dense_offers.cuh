// SPDX-License-Identifier: BSD-3-Clause
// What negatives offer the sorted positives of a semi-hard row: each offers itself to the last
// positive that it lies beyond, which keeps the best, the least key and of equal ones the lowest
// row, in `offer` and `best`.
//
// Algorithm, where h are not keys: a negative whose h and error leave no doubt between which
// positives it lies offers an upper bound. Only those whose lower bound is not above the least of
// these, and those in doubt, can be the best: their keys, a few a row, decide.
#pragma once

#include "dense_list.cuh"

namespace flashmetric::cuda {

constexpr int32_t kNobody = INT32_MAX;

// Numbers as integers that order as they do. 0 + -0 is 0: equal ones have equal bits.
__device__ inline unsigned long long ordered_bits(double key) {
  const auto bits = static_cast<unsigned long long>(__double_as_longlong(key + 0.0));
  constexpr unsigned long long sign = 1ULL << 63;
  return (bits & sign) != 0 ? ~bits : bits | sign;
}
__device__ inline double key_of_bits(unsigned long long bits) {
  constexpr unsigned long long sign = 1ULL << 63;
  return __longlong_as_double(static_cast<long long>((bits & sign) != 0 ? bits & ~sign : ~bits));
}
__device__ inline int32_t ordered_bits(float number) {
  const int32_t bits = __float_as_int(number + 0.0F);
  return bits < 0 ? bits ^ INT32_MAX : bits;
}

// A negative, or none.
struct Rival {
  int32_t row = kNobody;
  double key = -kNever;

  // The farther one is kept, the first of equals; a NaN is farther than all.
  __device__ void keep_farther(double other, int64_t j) {
    if (row != kNobody && !(other > key || (other != other && key == key))) return;
    row = static_cast<int32_t>(j);
    key = other;
  }
};

// What positives and negatives of a row have in common, whatever h are.
template <class T, class H>
struct Offers {
  const DenseRow<T, H>& row;
  const PositiveList& list;

  // The last positive that a negative lies beyond; -1: none.
  __device__ int before(double key) const {
    return list.first([&](double k) { return !(k < key); }, list.numbers) - 1;
  }
  __device__ void open() const {
    for (int p = static_cast<int>(threadIdx.x); p < list.count; p += kRowThreads) {
      list.offer[p] = ~0ULL;
      list.best[p] = kNobody;
    }
    if (threadIdx.x == 0) row.shared.nan_row = kNobody;
    __syncthreads();
  }
  // The key of negative j, which is before(key) of the positives.
  __device__ int offer(double key, int64_t j) const {
    if (key != key) atomicMin(&row.shared.nan_row, static_cast<int32_t>(j));
    const int p = key != key ? -1 : before(key);
    if (p >= 0) atomicMin(list.offer + p, ordered_bits(key));
    return p;
  }
  __device__ void take_if_best(int p, double key, int64_t j) const {
    if (p < 0 || list.offer[p] != ordered_bits(key)) return;
    atomicMin(list.best + p, static_cast<int32_t>(j));
  }

  // The farthest that any thread has found, the lowest row of equals.
  __device__ Rival farthest_in_block(const Rival& own) const {
    const double most = largest_in_block(own.key, row.shared);
    const bool equal = own.key == most || (own.key != own.key && most != most);
    const bool mine = own.row != kNobody && equal;
    const double first = mine ? -static_cast<double>(own.row) : -static_cast<double>(kNobody);
    return {static_cast<int32_t>(-largest_in_block(first, row.shared)), most};
  }
};

// Where h are keys.
template <class T, class H>
struct NegativeOffers : Offers<T, H> {
  using Offers<T, H>::row;

  __device__ void make() const {
    this->open();
    row.each_word_ahead([&](const WordAhead<H>& at) {
      if (at.is_negative()) this->offer(at.h, at.j);
    });
    __syncthreads();
    row.each_word_ahead([&](const WordAhead<H>& at) {
      if (at.is_negative()) this->take_if_best(this->before(at.h), at.h, at.j);
    });
    __syncthreads();
  }
  __device__ Rival find_farthest() const {
    Rival own;
    row.each_word_ahead([&](const WordAhead<H>& at) {
      if (at.is_negative()) own.keep_farther(at.h, at.j);
    });
    return this->farthest_in_block(own);
  }
};

template <class T>
struct NegativeOffers<T, float> : Offers<T, float> {
  using Offers<T, float>::row;
  using Offers<T, float>::list;

  // What h says of a negative.
  struct Bounds {
    float low, high;
    int place;  // before(key), unless
    bool doubt;
  };
  __device__ Bounds bounds_of(float h, float error) const {
    Bounds bounds{h - error, h + error, -1, !(::fabsf(h) <= Precision<float>::highest)};
    if (bounds.doubt) return bounds;
    bounds.place = this->before(static_cast<double>(bounds.high) * row.scale.unit);
    const double low = static_cast<double>(bounds.low) * row.scale.unit;
    bounds.doubt = bounds.place >= 0 && !(list.value[bounds.place] < low);
    return bounds;
  }
  __device__ bool may_be_best(const Bounds& bounds) const {
    if (bounds.doubt || bounds.place < 0) return bounds.doubt;
    return ordered_bits(bounds.low) <= list.best[bounds.place];
  }

  // Upper bounds, in `best`; of each word those that may be the best are left open.
  __device__ void bound() const {
    row.each_word_ahead([&](const WordAhead<float>& at) {
      Bounds bounds{};
      const bool is_negative = at.is_negative();
      if (is_negative) bounds = bounds_of(at.h, row.error(at));
      const int32_t high = ordered_bits(bounds.high);
      const bool offers = is_negative && !bounds.doubt && bounds.place >= 0;
      if (offers && high < list.best[bounds.place]) atomicMin(list.best + bounds.place, high);
      __syncwarp();
      const unsigned some = __ballot_sync(kAllLanes, is_negative && may_be_best(bounds));
      if (lane_of() == 0) row.weighed[at.word] = some;
    });
    __syncthreads();
  }

  // The keys of those that may be, while `best` has bounds. What a thread has offered stays with
  // it, unless that is several.
  struct Offered {
    int count = 0;
    int place = -1;
    double key = 0;
    int64_t j = 0;
  };
  __device__ Offered offer_keys() const {
    Offered own;
    row.each_open_word([&](const WordAhead<float>& at) {
      const bool open = at.is_open() && may_be_best(bounds_of(at.h, row.error(at)));
      const unsigned some = __ballot_sync(kAllLanes, open);
      if (lane_of() == 0) row.weighed[at.word] = some;
      const double key = row.key_at(at.j, open);
      if (open) own = {own.count + 1, this->offer(key, at.j), key, at.j};
    });
    return own;
  }

  __device__ void make() const {
    this->open();
    bound();
    const Offered own = offer_keys();
    const bool several = __syncthreads_or(own.count > 1) != 0;
    for (int p = static_cast<int>(threadIdx.x); p < list.count; p += kRowThreads) {
      list.best[p] = kNobody;
    }
    __syncthreads();
    if (!several) {
      if (own.count == 1) this->take_if_best(own.place, own.key, own.j);
    } else {
      row.each_open_word([&](const WordAhead<float>& at) {
        const double key = row.key_at(at.j, at.is_open());
        if (at.is_open() && key == key) this->take_if_best(this->before(key), key, at.j);
      });
    }
    __syncthreads();
  }

  // Only those whose upper bound is not below the largest lower bound can be.
  __device__ Rival find_farthest() const {
    double most = -kNever;
    row.each_word_ahead([&](const WordAhead<float>& at) {
      if (at.is_negative()) most = ::fmax(most, static_cast<double>(at.h - row.error(at)));
    });
    most = largest_in_block(most, row.shared);
    Rival own;
    row.each_word_ahead([&](const WordAhead<float>& at) {
      const double high = static_cast<double>(at.h + row.error(at));
      const bool open = at.is_negative() && !(high < most);
      const double key = row.key_at(at.j, open);
      if (open) own.keep_farther(key, at.j);
    });
    return this->farthest_in_block(own);
  }
};

}  // namespace flashmetric::cuda
