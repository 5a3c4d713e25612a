// SPDX-License-Identifier: BSD-3-Clause
// Eight doubles at a time, the vocabulary of the float64 keys and gradients: on every instruction
// set the same eight lanes, so that all of them round alike.
#pragma once

#include "simd.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// Eight doubles on any ISA: feature k of a float64 key goes to sum k mod 8, everywhere.
struct Double8 {
  static constexpr int parts = 8 / kWidth<double>;
  Vec<double> part[parts];
};

template <class T>
FM_INLINE Double8 load8(const T* from) {
  Double8 wide;
#pragma GCC unroll 4
  for (int p = 0; p < Double8::parts; ++p) {
    wide.part[p] = load_wide(from + p * kWidth<double>);
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

FM_INLINE Double8 absolute(Double8 v) {
  for (int p = 0; p < Double8::parts; ++p) v.part[p] = absolute<double>(v.part[p]);
  return v;
}

// The smaller (larger) of each two; of a number and NaN one is the number, the other NaN.
FM_INLINE Double8 lower8(Double8 a, Double8 b) {
  for (int p = 0; p < Double8::parts; ++p)
    a.part[p] = a.part[p] < b.part[p] ? a.part[p] : b.part[p];
  return a;
}
FM_INLINE Double8 upper8(Double8 a, Double8 b) {
  for (int p = 0; p < Double8::parts; ++p)
    b.part[p] = a.part[p] < b.part[p] ? b.part[p] : a.part[p];
  return b;
}

// The larger of each two; NaN if one is.
FM_INLINE Double8 maximum8(Double8 a, Double8 b) {
  for (int p = 0; p < Double8::parts; ++p) {
    a.part[p] = (b.part[p] > a.part[p]) | (b.part[p] != b.part[p]) ? b.part[p] : a.part[p];
  }
  return a;
}

FM_INLINE double largest8(const Double8& v) {
  double lanes[8];
  std::memcpy(lanes, &v, sizeof lanes);
  double most = lanes[0];
  for (const double lane : lanes) most = lane > most || lane != lane ? lane : most;
  return most;
}

// 1 where it is that number, else 0.
FM_INLINE Double8 equals8(Double8 v, double number) {
  for (int p = 0; p < Double8::parts; ++p) {
    v.part[p] = v.part[p] == number ? broadcast(1.0) : Vec<double>{};
  }
  return v;
}

// One of three numbers, by the sign; the middle one of NaN.
FM_INLINE Double8 by_sign8(Double8 v, double below, double zero, double above) {
  for (int p = 0; p < Double8::parts; ++p) {
    const Vec<double> rest = v.part[p] < 0 ? broadcast(below) : broadcast(zero);
    v.part[p] = v.part[p] > 0 ? broadcast(above) : rest;
  }
  return v;
}

// The numbers; 0 in place of NaN.
FM_INLINE Double8 finite8(Double8 v) {
  for (int p = 0; p < Double8::parts; ++p) {
    v.part[p] = v.part[p] == v.part[p] ? v.part[p] : Vec<double>{};
  }
  return v;
}

// -1, 0 or 1; 0 of NaN.
FM_INLINE Double8 signs8(Double8 v) { return by_sign8(v, -1, 0, 1); }

// The order of the float64 keys: ((0+4)+(2+6)) + ((1+5)+(3+7)).
FM_INLINE double sum8(const Double8& v) {
  typedef double Two __attribute__((vector_size(16)));
  Two s[4];  // 0 1, 2 3, 4 5, 6 7
  std::memcpy(s, &v, sizeof s);
  const Two evens_and_odds = (s[0] + s[2]) + (s[1] + s[3]);
  return evens_and_odds[0] + evens_and_odds[1];
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
