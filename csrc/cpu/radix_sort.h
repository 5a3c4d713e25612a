// SPDX-License-Identifier: BSD-3-Clause
// Sorts numbers with their ids: least significant byte first, so equal numbers keep their order.
//
// Why a radix sort: a row of a few thousand numbers is sorted in a few passes, and kernels include
// no std algorithms (policy.h says why).
#pragma once

#include "simd.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

template <class T>
struct BitsOf;
template <>
struct BitsOf<float> {
  using type = uint32_t;
};
template <>
struct BitsOf<double> {
  using type = uint64_t;
};

// Unsigned integers in the order of the numbers; NaN lie at the ends.
template <class T>
FM_INLINE typename BitsOf<T>::type ordered_bits(T x) {
  typename BitsOf<T>::type bits;
  std::memcpy(&bits, &x, sizeof bits);
  constexpr auto top = typename BitsOf<T>::type{1} << (8 * sizeof bits - 1);
  return (bits & top) != 0 ? ~bits : bits | top;
}

// Two buffers of numbers and ids; a sort moves its data between them.
template <class T>
struct SortBuffers {
  T* value[2];
  int32_t* id[2];
};

// Ascending. Data starts in buffer 0 and ends in the buffer whose number is returned.
template <class T>
inline int radix_sort(const SortBuffers<T>& data, int32_t n) {
  constexpr int passes = sizeof(T);
  int32_t count[passes][256] = {};
  for (int32_t k = 0; k < n; ++k) {
    const auto bits = ordered_bits(data.value[0][k]);
    for (int pass = 0; pass < passes; ++pass) ++count[pass][bits >> (8 * pass) & 255];
  }
  int from = 0;
  for (int pass = 0; pass < passes; ++pass) {
    int32_t* start = count[pass];
    if (n == 0 || start[ordered_bits(data.value[from][0]) >> (8 * pass) & 255] == n) continue;
    int32_t total = 0;
    for (int digit = 0; digit < 256; ++digit) {
      const int32_t size = start[digit];
      start[digit] = total;
      total += size;
    }
    for (int32_t k = 0; k < n; ++k) {
      const T x = data.value[from][k];
      const int32_t to = start[ordered_bits(x) >> (8 * pass) & 255]++;
      data.value[1 - from][to] = x;
      data.id[1 - from][to] = data.id[from][k];
    }
    from = 1 - from;
  }
  return from;
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
