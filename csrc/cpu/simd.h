// SPDX-License-Identifier: BSD-3-Clause
// The vector vocabulary of the kernels, and its portable definition. An ISA header (simd_<isa>.h)
// sets kVectorBytes and the register tile, and may refine `multiply_add`, `le_bits` and `widened`;
// the rest is the compiler's vector extension, which GCC and Clang lower to whatever the machine
// has.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if !defined(__GNUC__)
#error "FlashMetric's CPU kernels need a compiler with GNU vector extensions (GCC or Clang)."
#endif

#if defined(__AVX512BF16__) && defined(__AVX512VL__)
#include "simd_avx512_bf16.h"
#elif defined(__AVX512VNNI__) && defined(__AVX512VL__)
#include "simd_avx512_vnni.h"
#elif defined(__AVX512DQ__) && defined(__AVX512VL__)
#include "simd_avx512.h"
#elif defined(__AVX2__) && defined(__FMA__)
#include "simd_avx2.h"
#else
#include "simd_portable.h"
#endif

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

#define FM_INLINE inline __attribute__((always_inline))
// Once for all the instances that call it.
#define FM_NOINLINE inline __attribute__((noinline))
#define FM_INLINE_LAMBDA __attribute__((always_inline))

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(kVectorBytes)));
};
template <class T>
using Vec = typename VectorOf<T>::type;

template <class T>
constexpr int kWidth = kVectorBytes / static_cast<int>(sizeof(T));

template <class T>
FM_INLINE Vec<T> load(const T* from) {
  Vec<T> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class T>
FM_INLINE void store(T* to, Vec<T> v) {
  std::memcpy(to, &v, sizeof v);
}

// As many numbers as a vector has doubles.
template <class T>
struct FewOf {
  typedef T type __attribute__((vector_size(sizeof(T) * kWidth<double>)));
};
template <class T>
using Few = typename FewOf<T>::type;

template <class V>
FM_INLINE Vec<double> widened(V few) {
  return __builtin_convertvector(few, Vec<double>);
}

template <class T>
FM_INLINE Vec<double> load_wide(const T* from) {
  Few<T> few;
  std::memcpy(&few, from, sizeof few);
  return widened(few);
}

// Integers as wide as T, for the bits of its numbers.
template <class T>
using Bits = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
template <class T>
struct IntegersOf {
  typedef Bits<T> type __attribute__((vector_size(kVectorBytes)));
};
template <class T>
using IntVec = typename IntegersOf<T>::type;

// All bits but the sign.
template <class T>
constexpr Bits<T> kMagnitude = sizeof(T) == 4 ? INT32_MAX : INT64_MAX;

template <class T>
FM_INLINE Vec<T> absolute(Vec<T> v) {
  return (Vec<T>)((IntVec<T>)v & kMagnitude<T>);  // NOLINT: reinterprets the bits
}

// The first `count` elements, zeros behind them.
template <class T>
FM_INLINE Vec<T> load_partial(const T* from, int64_t count) {
  Vec<T> v = {};
  std::memcpy(&v, from, static_cast<size_t>(count) * sizeof(T));
  return v;
}

template <class T>
FM_INLINE Vec<T> broadcast(T value) {
  return value - Vec<T>{};
}

template <class T>
FM_INLINE T sum_lanes(Vec<T> v) {
  T total = 0;
  for (int lane = 0; lane < kWidth<T>; ++lane) total += v[lane];
  return total;
}

// Of the lanes whose bits are set.
template <class T>
FM_INLINE Vec<T> where_bits(uint32_t bits, Vec<T> chosen, Vec<T> other) {
  IntVec<T> lane;
  for (int l = 0; l < kWidth<T>; ++l) lane[l] = Bits<T>{1} << l;
  return (lane & static_cast<Bits<T>>(bits)) != 0 ? chosen : other;
}

// The lowest number.
template <class T, int step = kWidth<T> / 2, int... lane>
FM_INLINE T lowest_lane(Vec<T> v, std::integer_sequence<int, lane...> lanes) {
  if constexpr (step == 0) {
    return v[0];
  } else {
    return lowest_lane<T, step / 2>(
        minimum(v, __builtin_shufflevector(v, v, ((lane + step) % kWidth<T>)...)), lanes);
  }
}
template <class T>
FM_INLINE T lowest_lane(Vec<T> v) {
  return lowest_lane<T>(v, std::make_integer_sequence<int, kWidth<T>>{});
}

// Interleave: a0 b0 a1 b1 ... of the lower (upper) halves.
template <class T, int... lane>
FM_INLINE Vec<T> zip_low(Vec<T> a, Vec<T> b, std::integer_sequence<int, lane...>) {
  return __builtin_shufflevector(a, b, (lane / 2 + lane % 2 * kWidth<T>)...);
}
template <class T, int... lane>
FM_INLINE Vec<T> zip_high(Vec<T> a, Vec<T> b, std::integer_sequence<int, lane...>) {
  return __builtin_shufflevector(a, b, (kWidth<T> / 2 + lane / 2 + lane % 2 * kWidth<T>)...);
}

// Transposes kWidth x kWidth values. One zip stage rotates the bits of (row, lane) by one place, so
// log2(kWidth) stages exchange row and lane.
template <class T>
FM_INLINE void transpose(Vec<T> (&rows)[kWidth<T>]) {
  constexpr int half = kWidth<T> / 2;
  constexpr auto lanes = std::make_integer_sequence<int, kWidth<T>>{};
#pragma GCC unroll 4
  for (int stage = 1; stage < kWidth<T>; stage *= 2) {
    Vec<T> zipped[kWidth<T>];
#pragma GCC unroll 8
    for (int r = 0; r < half; ++r) {
      zipped[2 * r] = zip_low<T>(rows[r], rows[r + half], lanes);
      zipped[2 * r + 1] = zip_high<T>(rows[r], rows[r + half], lanes);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kWidth<T>; ++r) rows[r] = zipped[r];
  }
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
