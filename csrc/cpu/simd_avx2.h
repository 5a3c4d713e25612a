// SPDX-License-Identifier: BSD-3-Clause
// 256-bit vectors with fused multiply-add.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <utility>

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

constexpr int kVectorBytes = 32;

// 6 rows x 2 vectors = 12 accumulators; with 2 loads and 1 broadcast that is 15 of 16 registers.
constexpr int kTileRows = 6;

inline __attribute__((always_inline)) __m256 multiply_add(__m256 a, __m256 b, __m256 c) {
  return _mm256_fmadd_ps(a, b, c);
}
inline __attribute__((always_inline)) __m256d multiply_add(__m256d a, __m256d b, __m256d c) {
  return _mm256_fmadd_pd(a, b, c);
}

inline __attribute__((always_inline)) __m256 minimum(__m256 a, __m256 b) {
  return _mm256_min_ps(a, b);
}
inline __attribute__((always_inline)) __m256d minimum(__m256d a, __m256d b) {
  return _mm256_min_pd(a, b);
}

inline __attribute__((always_inline)) __m256 square_roots(__m256 a) { return _mm256_sqrt_ps(a); }
inline __attribute__((always_inline)) __m256d square_roots(__m256d a) { return _mm256_sqrt_pd(a); }

// Bit l is set where a[l] <= b[l].
inline __attribute__((always_inline)) uint32_t le_bits(__m256 a, __m256 b) {
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_LE_OQ)));
}
inline __attribute__((always_inline)) uint32_t le_bits(__m256d a, __m256d b) {
  return static_cast<uint32_t>(_mm256_movemask_pd(_mm256_cmp_pd(a, b, _CMP_LE_OQ)));
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
