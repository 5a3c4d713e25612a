// SPDX-License-Identifier: BSD-3-Clause
// Ranks in bfloat16 (bf16_tiles.h says how, and why that is exact) by the matrix unit of AMX, which
// multiplies 16 x 32 numbers by 32 x 16 in the time of 16 vector instructions.
//
// Layout: a block of packed rows is there twice, in whole chunks of kChunk pairs of features,
//   [chunks * kChunk][kBlock] pairs, the columns of a product, as in bf16_tiles.h, and then
//   [chunks][kBlock][kChunk]  the same as rows.
//
// Algorithm: all products of two blocks at once, 2 x 2 tiles at a time, into 36 KiB that stay in
// the nearest caches; what reduce_rows.h takes for tiles is read from there.
//
// Why so: 8 tiles hold 4 sums and 4 operands, 4 loads for 4 products; and no sum has to come back
// before the comparisons of its tile can begin.
#pragma once

#include <immintrin.h>

#include "bf16_tiles.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

constexpr int kChunk = 16;  // pairs of a tile, and its rows

// The 64 bytes that the unit wants to know: palette 1, all tiles 16 rows of 64 bytes.
struct alignas(64) TileShapes {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileShapes) == 64);

// Static, and constant: GCC 12 tells its optimizer that only the first 8 bytes are read.
static constexpr TileShapes kTileShapes;

// A thread that has tiles gives them back: every switch of tasks would save their 8 KiB. No
// destructor does it, whose unwinding would bring a symbol of its own into this object.
struct TileSession {
  static FM_INLINE void begin() { _tile_loadconfig(&kTileShapes); }
  static FM_INLINE void end() { _tile_release(); }
};

// out[32][kBlock] = 32 rows times 32 columns. The numbers of tiles must be literals.
FM_INLINE void multiply_tiles(const uint32_t* rows, const uint32_t* cols, int64_t chunks,
                              float* out) {
  constexpr int64_t row_step = kChunk * sizeof(uint32_t);
  constexpr int64_t col_step = kBlock * sizeof(uint32_t);
  // GCC 12 does not know that tiles read memory: what was stored must be there.
  __asm__ volatile("" : : "r"(rows), "r"(cols) : "memory");
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t k = 0; k < chunks; ++k, rows += kBlock * kChunk, cols += kChunk * kBlock) {
    _tile_loadd(4, rows, row_step);
    _tile_loadd(5, rows + kChunk * kChunk, row_step);
    _tile_loadd(6, cols, col_step);
    _tile_loadd(7, cols + kChunk, col_step);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, out, col_step);
  _tile_stored(1, out + kChunk, col_step);
  _tile_stored(2, out + kChunk * kBlock, col_step);
  _tile_stored(3, out + kChunk * kBlock + kChunk, col_step);
}

struct AmxTiles {
  using Score = float;
  using Packed = uint32_t;
  using Session = TileSession;
  static constexpr bool full = false;
  static constexpr bool bfloat16 = true;
  static_assert(kWidth<float> == kChunk && kBlock % (2 * kChunk) == 0);

  static constexpr int64_t chunks(int64_t dim) { return (dim + 2 * kChunk - 1) / (2 * kChunk); }
  // Of either half of a block.
  static constexpr int64_t half(int64_t dim) { return chunks(dim) * kChunk; }
  static constexpr int64_t depth(int64_t dim) { return 2 * half(dim); }
  template <class Set>
  static FM_INLINE Packed* blocks(const Set& set) {
    return set.narrow;
  }

  static FM_INLINE void pack(PackedRow<float> (&row)[kWidth<float>], const RowMap<float>& map,
                             int64_t dim, int group, Packed* block) {
    Packed* const rows = block + half(dim) * kBlock + group * kChunk;
    pack_pairs(row, map, dim, [&](int64_t k, Vec<Packed>(&pairs)[kWidth<float>], int64_t) {
      for (int r = 0; r < kChunk; ++r) store(rows + k / 2 * kBlock + r * kChunk, pairs[r]);
      transpose<Packed>(pairs);
      for (int f = 0; f < kChunk; ++f) store(block + (k / 2 + f) * kBlock + group, pairs[f]);
    });
  }

  static FM_INLINE float slack(KeyForm key, RowLengths row, double total, double dim) {
    return Bf16Tiles::slack(key, row, total, dim);
  }

  struct Block {
    alignas(64) float products[kBlock * kBlock];

    template <class Chooser>
    FM_INLINE Block(const Chooser& chooser, int32_t row_begin, int32_t col_begin, int64_t dim) {
      const Packed* rows =
          chooser.query->template tile<AmxTiles>(row_begin, dim) + half(dim) * kBlock;
      const Packed* cols = chooser.ref->template tile<AmxTiles>(col_begin, dim);
      for (int j = 0; j < kBlock; j += 2 * kChunk) {
        for (int i = 0; i < kBlock; i += 2 * kChunk) {
          multiply_tiles(rows + i * kChunk, cols + j, chunks(dim), products + i * kBlock + j);
        }
      }
    }
  };

  template <class Chooser>
  static FM_INLINE void compute(const Block& block, const Chooser&, int32_t i, int32_t j, int64_t,
                                TileSums<float>& sums) {
    const float* from = block.products + i % kBlock * kBlock + j % kBlock;
#pragma GCC unroll 12
    for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kTileVecs; ++v) {
        sums[r][v] = load(from + r * kBlock + v * kWidth<float>);
      }
    }
  }
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
