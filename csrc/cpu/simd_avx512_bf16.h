// SPDX-License-Identifier: BSD-3-Clause
// AVX-512 with products of bfloat16 pairs (AVX512_BF16) and of bytes.
#pragma once

#include "simd_avx512_vnni.h"

#define FLASHMETRIC_PAIR_PRODUCTS

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// Lane l of c, plus the products of the two bfloat16 numbers in lane l of a and b. docs/numerics.md
// says what is assumed about its rounding: little.
inline __attribute__((always_inline)) __m512 multiply_add_pairs(__m512i a, __m512i b, __m512 c) {
  return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b);
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
