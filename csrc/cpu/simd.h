// SPDX-License-Identifier: BSD-3-Clause
// The vector vocabulary of the kernels, and its portable definition. An ISA header (simd_<isa>.h)
// sets kVectorBytes and the register tile, and may refine `multiply_add` and `le_bits`; the rest is
// the compiler's vector extension, which GCC and Clang lower to whatever the machine has.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#if !defined(__GNUC__)
#error "FlashMetric's CPU kernels need a compiler with GNU vector extensions (GCC or Clang)."
#endif

#if defined(__AVX512BF16__) && defined(__AVX512VL__)
#include "simd_avx512_bf16.h"
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

// Eight doubles on any ISA: feature k of a float64 key goes to sum k mod 8, everywhere.
struct Double8 {
  static constexpr int parts = 8 / kWidth<double>;
  Vec<double> part[parts];
};

template <class T>
FM_INLINE Double8 load8(const T* from) {
  typedef T Narrow __attribute__((vector_size(sizeof(T) * kWidth<double>)));
  Double8 wide;
#pragma GCC unroll 4
  for (int p = 0; p < Double8::parts; ++p) {
    Narrow narrow;
    std::memcpy(&narrow, from + p * kWidth<double>, sizeof narrow);
    wide.part[p] = __builtin_convertvector(narrow, Vec<double>);
  }
  return wide;
}

template <class T>
FM_INLINE Double8 load8_partial(const T* from, int64_t count) {
  T padded[8] = {};
  std::memcpy(padded, from, static_cast<size_t>(count) * sizeof(T));
  return load8(padded);
}

#define FM_DOUBLE8_OPERATOR(op)                                                  \
  FM_INLINE Double8 operator op(Double8 a, Double8 b) {                          \
    for (int p = 0; p < Double8::parts; ++p) a.part[p] = a.part[p] op b.part[p]; \
    return a;                                                                    \
  }                                                                              \
  FM_INLINE Double8 operator op(Double8 a, double b) {                           \
    for (int p = 0; p < Double8::parts; ++p) a.part[p] = a.part[p] op b;         \
    return a;                                                                    \
  }
FM_DOUBLE8_OPERATOR(+)
FM_DOUBLE8_OPERATOR(-)
FM_DOUBLE8_OPERATOR(*)
FM_DOUBLE8_OPERATOR(/)
#undef FM_DOUBLE8_OPERATOR

// The order of the float64 keys: ((0+4)+(2+6)) + ((1+5)+(3+7)).
FM_INLINE double sum8(const Double8& v) {
  typedef double Two __attribute__((vector_size(16)));
  Two s[4];  // 0 1, 2 3, 4 5, 6 7
  std::memcpy(s, &v, sizeof s);
  const Two evens_and_odds = (s[0] + s[2]) + (s[1] + s[3]);
  return evens_and_odds[0] + evens_and_odds[1];
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
