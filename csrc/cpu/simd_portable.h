// SPDX-License-Identifier: BSD-3-Clause
// 128-bit vectors: SSE2 on any x86-64, NEON on any aarch64.
#pragma once

#include <cstdint>
#include <utility>

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

constexpr int kVectorBytes = 16;

// 4 rows x 2 vectors = 8 accumulators; with 2 loads, 1 broadcast and 2 products (there is no fused
// multiply-add to rely on) that is 13 of 16 registers.
constexpr int kTileRows = 4;

template <class V>
inline __attribute__((always_inline)) V multiply_add(V a, V b, V c) {
  return a * b + c;
}

template <class V>
inline __attribute__((always_inline)) V minimum(V a, V b) {
  return a < b ? a : b;
}

template <class V>
inline __attribute__((always_inline)) V square_roots(V a) {
  for (unsigned lane = 0; lane < sizeof(V) / sizeof(a[0]); ++lane) {
    if constexpr (sizeof(a[0]) == sizeof(float)) {
      a[lane] = __builtin_sqrtf(a[lane]);
    } else {
      a[lane] = __builtin_sqrt(a[lane]);
    }
  }
  return a;
}

// Bit l is set where a[l] <= b[l].
template <class V>
inline __attribute__((always_inline)) uint32_t le_bits(V a, V b) {
  uint32_t bits = 0;
  const auto le = a <= b;
  for (unsigned lane = 0; lane < sizeof(V) / sizeof(a[0]); ++lane) {
    bits |= static_cast<uint32_t>(le[lane] & 1) << lane;
  }
  return bits;
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
