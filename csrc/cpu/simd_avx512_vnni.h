// SPDX-License-Identifier: BSD-3-Clause
// AVX-512 with products of bytes (AVX512_VNNI).
#pragma once

#include "simd_avx512.h"

#define FLASHMETRIC_BYTE_PRODUCTS

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// Adds to lane l of c the products of the four bytes in lane l of a, from 0 to 255, and of b, from
// -128 to 127: exactly, modulo 2^32. GCC 12 spills the sums of a tile around its own intrinsic.
inline __attribute__((always_inline)) void add_products_of_bytes(__m512i& c, __m512i a, __m512i b) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(c) : "v"(a), "v"(b));
}

inline __attribute__((always_inline)) __m512i nearest_whole(__m512 a) {
  return _mm512_cvtps_epi32(a);
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
