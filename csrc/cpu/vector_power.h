// SPDX-License-Identifier: BSD-3-Clause
// Computes x^p of vectors, x >= 0 and p > 0, as 2^(p log2 x).
//
// Algorithm: x = 2^e m with m within [sqrt(1/2), sqrt(2)); log2 m from the series of atanh; the
// whole and the fraction of p (e + log2 m) apart; 2^fraction from the series of exp.
//
// Numerics: p is split so that its upper part times e is exact. log2 m is within 3u of the truth:
// its relative error is below 6u (the quotient 2u, the series 2u, the constant 2u), and it is below
// 1/2. So the fraction is within p (3u + u/2) + (1 + p) u/2, 2^fraction within ln 2 times that and
// 3u of its own, together less than (4 p + 8) u relative. Truncation: docs/numerics-sums.md.
// Results below the smallest normal number, and those of subnormal x, are 0. NaN and infinity stay.
#pragma once

#include "simd.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

template <class T>
struct FloatFormat;
template <>
struct FloatFormat<float> {
  static constexpr int fraction_bits = 23, log_terms = 5, exp_terms = 8;
  static constexpr int32_t bias = 127;
  static constexpr float magic = 0x1.8p23F;  // adding it rounds to a whole number, in the low bits
  static constexpr float coarse = 0x1p8F;    // p to 16 bits: times e, of 8, exact in 24
};
template <>
struct FloatFormat<double> {
  static constexpr int fraction_bits = 52, log_terms = 10, exp_terms = 14;
  static constexpr int64_t bias = 1023;
  static constexpr double magic = 0x1.8p52;
  static constexpr double coarse = 0x1p11;  // p to 42 bits: times e, of 11, exact in 53
};

// e^t, |t| < 0.3466, within 3u.
template <class T>
FM_INLINE Vec<T> exp_near_zero(Vec<T> t) {
  Vec<T> sum = broadcast(T(1));
#pragma GCC unroll 16
  for (int n = FloatFormat<T>::exp_terms - 1; n >= 1; --n) {
    sum = multiply_add(sum, t * (T(1) / T(n)), broadcast(T(1)));
  }
  return sum;
}

template <class T>
FM_INLINE IntVec<T> whole_bits(Vec<T> whole) {
  constexpr T magic = FloatFormat<T>::magic;
  return (IntVec<T>)(whole + magic) - __builtin_bit_cast(Bits<T>, magic);  // NOLINT: the bits
}

// e^x of float32 x <= 0, within 4u and the rounding of x; 0 below -86, where it would be subnormal.
FM_INLINE Vec<float> exponentials(Vec<float> x) {
  using Format = FloatFormat<float>;
  const Vec<float> n = (x * 1.44269504F + Format::magic) - Format::magic;
  // ln 2 in 10 bits, which times n of 7 are exact, and the rest of it.
  const Vec<float> t = (x - n * 0.693359375F) + n * 2.12194440e-4F;
  const IntVec<float> scale = (whole_bits<float>(n) + Format::bias) << Format::fraction_bits;
  const Vec<float> found = exp_near_zero<float>(t) * (Vec<float>)scale;  // NOLINT: the bits
  return x < -86.0F ? Vec<float>{} : found;
}

template <class T>
class VectorPower {
  using Format = FloatFormat<T>;

 public:
  FM_INLINE explicit VectorPower(T p) : p_(p) {
    const T shifted = p * (Format::coarse + 1);
    high_ = shifted - (shifted - p);
    low_ = p - high_;
  }

  FM_INLINE Vec<T> of(Vec<T> x) const {
    const IntVec<T> bits = (IntVec<T>)x;  // NOLINT: the bits
    constexpr Bits<T> root_half = sizeof(T) == 4 ? 0x3f3504f3 : 0x3fe6a09e667f3bcd;
    // Exponent such that the rest is at least sqrt(1/2).
    const IntVec<T> e = (bits - root_half) >> Format::fraction_bits;
    const Vec<T> m = (Vec<T>)(bits - (e << Format::fraction_bits));  // NOLINT
    const Vec<T> log_m = log2_near_one(m);
    const Vec<T> whole = as_number(e);
    const Vec<T> coarse = whole * high_;
    const Vec<T> coarse_whole = rounded(coarse);
    const Vec<T> rest = (coarse - coarse_whole) + (whole * low_ + log_m * p_);
    const Vec<T> rest_whole = rounded(rest);
    const Vec<T> ln2 = broadcast(static_cast<T>(0.6931471805599453094172321214581766));
    const Vec<T> result = exp_near_zero<T>((rest - rest_whole) * ln2);
    const Vec<T> exponent = coarse_whole + rest_whole;
    const IntVec<T> scale = (whole_bits<T>(exponent) + Format::bias) << Format::fraction_bits;
    const Vec<T> power = result * (Vec<T>)scale;  // NOLINT
    constexpr auto most = static_cast<T>(Format::bias);
    Vec<T> found = exponent > most ? broadcast(static_cast<T>(__builtin_huge_val())) : power;
    found =
        (exponent <= 1 - most) | (bits < (Bits<T>(1) << Format::fraction_bits)) ? Vec<T>{} : found;
    return (x != x) | (x == static_cast<T>(__builtin_huge_val())) ? x : found;
  }

 private:
  static FM_INLINE Vec<T> rounded(Vec<T> x) { return (x + Format::magic) - Format::magic; }
  static FM_INLINE Vec<T> as_number(IntVec<T> integer) {
    return (Vec<T>)(integer + magic_bits()) - Format::magic;  // NOLINT
  }
  static FM_INLINE Bits<T> magic_bits() { return __builtin_bit_cast(Bits<T>, Format::magic); }

  // 2 / ln 2 * (s + s^3/3 + s^5/5 + ...), s = (m - 1) / (m + 1), |s| < 0.1716.
  static FM_INLINE Vec<T> log2_near_one(Vec<T> m) {
    const Vec<T> s = (m - T(1)) / (m + T(1));
    const Vec<T> square = s * s;
    Vec<T> sum = broadcast(T(1) / T(2 * Format::log_terms - 1));
#pragma GCC unroll 16
    for (int n = Format::log_terms - 2; n >= 0; --n) {
      sum = multiply_add(sum, square, broadcast(T(1) / T(2 * n + 1)));
    }
    return sum * (s * static_cast<T>(2.885390081777926814719849362003784));
  }

  T p_, high_, low_;
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
