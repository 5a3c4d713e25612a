// SPDX-License-Identifier: BSD-3-Clause
// Random numbers that are a function of what they are for: the same on every machine and for every
// number of threads, and a part of a batch can be drawn again on its own.
#pragma once

#include <cstdint>

#include "math.h"

namespace flashmetric {

// Steele, Lea, Flood 2014, "Fast Splittable Pseudorandom Number Generators": the finaliser and the
// increment (2^64 over the golden ratio) of SplitMix64.
FM_HD uint64_t mix_bits(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// In [0, 1): draw `draw` for the pair of rows a, p.
FM_HD double uniform(uint64_t seed, int64_t a, int64_t p, int64_t draw) {
  uint64_t bits = seed;
  for (const int64_t value : {a, p, draw}) {
    bits = mix_bits(bits + 0x9E3779B97F4A7C15u * (static_cast<uint64_t>(value) + 1));
  }
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

}  // namespace flashmetric
