// SPDX-License-Identifier: BSD-3-Clause
// The instructions of AMX in software, as Intel's manual defines them: tiles of a thread, that
// exist from ldtilecfg to tilerelease, and tdpbf16ps, which flushes what is below the normal
// numbers.
// Included before everything else, in the place of the intrinsics of the compiler.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps

namespace emulated_amx {

struct Tile {
  alignas(64) uint32_t word[16][16];
};
inline thread_local Tile tiles[8];
inline thread_local bool configured = false;

inline Tile& tile(int number) {
  if (!configured) std::abort();  // the processor raises an exception
  return tiles[number];
}

inline void load_config(const void* from) {
  const auto* byte = static_cast<const uint8_t*>(from);
  if (byte[0] != 1 || byte[1] != 0) std::abort();
  for (int t = 0; t < 8; ++t) {
    uint16_t row_bytes;
    std::memcpy(&row_bytes, byte + 16 + 2 * t, sizeof row_bytes);
    if (row_bytes != 64 || byte[48 + t] != 16) std::abort();
  }
  std::memset(tiles, 0, sizeof tiles);
  configured = true;
}

inline void load(int number, const void* base, int64_t stride) {
  for (int row = 0; row < 16; ++row) {
    std::memcpy(tile(number).word[row], static_cast<const char*>(base) + row * stride, 64);
  }
}

inline void store(int number, void* base, int64_t stride) {
  for (int row = 0; row < 16; ++row) {
    std::memcpy(static_cast<char*>(base) + row * stride, tile(number).word[row], 64);
  }
}

inline float number_of(uint32_t bits) {
  float number;
  std::memcpy(&number, &bits, sizeof number);
  return number;
}
inline float flushed(float x) {
  return __builtin_fabsf(x) < 0x1p-126F ? __builtin_copysignf(0.0F, x) : x;
}

// Either half of the 16 pairs of a row is a chain of fused steps; then the two are added.
inline void multiply(int sum, int a, int b) {
  const Tile& rows = tile(a);
  const Tile& cols = tile(b);
  for (int m = 0; m < 16; ++m) {
    float low[16] = {};
    float high[16] = {};
    for (int k = 0; k < 16; ++k) {
      const float a_low = flushed(number_of(rows.word[m][k] << 16));
      const float a_high = flushed(number_of(rows.word[m][k] & 0xFFFF0000U));
      for (int n = 0; n < 16; ++n) {
        const float b_low = flushed(number_of(cols.word[k][n] << 16));
        const float b_high = flushed(number_of(cols.word[k][n] & 0xFFFF0000U));
        low[n] = flushed(__builtin_fmaf(a_low, b_low, low[n]));
        high[n] = flushed(__builtin_fmaf(a_high, b_high, high[n]));
      }
    }
    for (int n = 0; n < 16; ++n) {
      const float total = flushed(number_of(tile(sum).word[m][n]) + flushed(low[n] + high[n]));
      std::memcpy(&tile(sum).word[m][n], &total, sizeof total);
    }
  }
}

}  // namespace emulated_amx

#define _tile_loadconfig(from) emulated_amx::load_config(from)
#define _tile_release() (emulated_amx::configured = false)
#define _tile_zero(number) std::memset(&emulated_amx::tile(number), 0, sizeof(emulated_amx::Tile))
#define _tile_loadd(number, base, stride) emulated_amx::load(number, base, stride)
#define _tile_stored(number, base, stride) emulated_amx::store(number, base, stride)
#define _tile_dpbf16ps(sum, a, b) emulated_amx::multiply(sum, a, b)
