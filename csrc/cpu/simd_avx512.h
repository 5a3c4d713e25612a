// SPDX-License-Identifier: BSD-3-Clause
// 512-bit vectors (F, BW, DQ, VL).
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <utility>

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

constexpr int kVectorBytes = 64;

// 12 rows x 2 vectors = 24 accumulators; with 2 loads and 1 broadcast that is 27 of 32 registers.
constexpr int kTileRows = 12;

inline __attribute__((always_inline)) __m512 multiply_add(__m512 a, __m512 b, __m512 c) {
  return _mm512_fmadd_ps(a, b, c);
}
inline __attribute__((always_inline)) __m512d multiply_add(__m512d a, __m512d b, __m512d c) {
  return _mm512_fmadd_pd(a, b, c);
}

inline __attribute__((always_inline)) __m512 minimum(__m512 a, __m512 b) {
  return _mm512_min_ps(a, b);
}
inline __attribute__((always_inline)) __m512d minimum(__m512d a, __m512d b) {
  return _mm512_min_pd(a, b);
}

inline __attribute__((always_inline)) __m512 square_roots(__m512 a) { return _mm512_sqrt_ps(a); }
inline __attribute__((always_inline)) __m512d square_roots(__m512d a) { return _mm512_sqrt_pd(a); }

// GCC makes two conversions of halves of it, and puts the halves together.
inline __attribute__((always_inline)) __m512d widened(__m256 few) { return _mm512_cvtps_pd(few); }

// Bit l is set where a[l] <= b[l].
inline __attribute__((always_inline)) uint32_t le_bits(__m512 a, __m512 b) {
  return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ);
}
inline __attribute__((always_inline)) uint32_t le_bits(__m512d a, __m512d b) {
  return _mm512_cmp_pd_mask(a, b, _CMP_LE_OQ);
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
