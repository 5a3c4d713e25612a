// SPDX-License-Identifier: BSD-3-Clause
// Ranks in bfloat16: rows are rounded to 8 bits and multiplied two features at a time, at twice the
// rate of float32. What the rounding may have done is part of the bound (certificate.h), so this
// decides less than float32 tiles do, and never anything else.
//
// Layout: a block is [(dim + 1) / 2][kBlock] pairs of 32 bits, that serve as rows (broadcast) and
// as columns (loaded), like the features of tile.h. Which features share a pair does not matter to
// an inner product: of each 2 kWidth features the first half is paired with the second, so that no
// lane has to move.
//
// Why so: per pair of features a tile does what tile.h does per feature, with the same registers.
#pragma once

#include "tile_units.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// Rounded to the nearest bfloat16 (ties to even), in the upper half of each lane. Subnormal results
// become zero here, because the multiplier would take them for zero.
FM_INLINE Vec<uint32_t> round_to_bf16(Vec<float> y) {
  Vec<uint32_t> bits;
  std::memcpy(&bits, &y, sizeof bits);
  // Half a unit, less one where the kept part is even: exact halves then stay below the carry.
  bits = (bits + 0x7FFFU + ((bits >> 16) & 1U)) & 0xFFFF0000U;
  return (bits & 0x7F800000U) == 0U ? Vec<uint32_t>{} : bits;
}

// The sums that pack_pairs collects for one row.
struct PairSums {
  Vec<float> square{}, along{}, residual{};

  FM_INLINE Vec<uint32_t> add(Vec<float> y, Vec<float> centre) {
    const Vec<uint32_t> bits = round_to_bf16(y);
    Vec<float> rounded;
    std::memcpy(&rounded, &bits, sizeof rounded);
    const Vec<float> rest = y - rounded;  // exact: both are multiples of the last place of y
    square += y * y;
    along += y * centre;
    residual += rest * rest;
    return bits;
  }
};

// keep(k, pairs, count): pairs[r] are the pairs k / 2 .. k / 2 + count - 1 of row r, zeros behind.
template <class Keep>
FM_NOINLINE void pack_pairs(PackedRow<float> (&row)[kWidth<float>], const RowMap<float>& map,
                            int64_t dim, const Keep& keep) {
  constexpr int width = kWidth<float>;
  PairSums sums[width];
  for (int64_t k = 0; k < dim; k += 2 * width) {
    const int64_t count = dim - k < 2 * width ? dim - k : 2 * width;
    const int64_t first = (count + 1) / 2;
    const int64_t second = count - first;
    const Vec<float> centre[2] = {load_partial(map.centre + k, first) * map.unit,
                                  load_partial(map.centre + k + first, second) * map.unit};
    Vec<uint32_t> pairs[width];
#pragma GCC unroll 16
    for (int r = 0; r < width; ++r) {
      const Vec<uint32_t> lower =
          sums[r].add(mapped_features(row[r], map, k, first), centre[0]) >> 16;
      pairs[r] = sums[r].add(mapped_features(row[r], map, k + first, second), centre[1]) | lower;
    }
    keep(k, pairs, first);
  }
  keep_sums(row, &PackedRow<float>::square, [&](int r) { return sums[r].square; });
  keep_sums(row, &PackedRow<float>::along, [&](int r) { return sums[r].along; });
  keep_sums(row, &PackedRow<float>::residual, [&](int r) { return sums[r].residual; });
}

struct Bf16Tiles {
  using Score = float;
  using Packed = uint32_t;
  using Session = NoSession;
  using Block = NoBlock;
  static constexpr bool full = false;
  static constexpr bool bfloat16 = true;

  static constexpr int64_t depth(int64_t dim) { return (dim + 1) / 2; }
  template <class Set>
  static FM_INLINE Packed* blocks(const Set& set) {
    return set.narrow;
  }
  static FM_INLINE void pack(PackedRow<float> (&row)[kWidth<float>], const RowMap<float>& map,
                             int64_t dim, int group, Packed* block) {
    pack_pairs(row, map, dim, [&](int64_t k, Vec<Packed>(&pairs)[kWidth<float>], int64_t count) {
      transpose<Packed>(pairs);
      for (int64_t f = 0; f < count; ++f) store(block + (k / 2 + f) * kBlock + group, pairs[f]);
    });
  }
  static FM_INLINE float slack(KeyForm key, RowLengths row, double total, double dim) {
    return score_slack<float>(key, row, total, dim) + bf16_slack(row, dim);
  }
  template <class Chooser>
  static FM_INLINE void compute(const Block&, const Chooser& chooser, int32_t i, int32_t j,
                                int64_t dim, TileSums<float>& sums) {
    multiply(chooser.query->template tile<Bf16Tiles>(i, dim),
             chooser.ref->template tile<Bf16Tiles>(j, dim), dim, sums);
  }

  static FM_INLINE void multiply(const Packed* rows, const Packed* cols, int64_t dim,
                                 TileSums<float>& sums) {
    constexpr int width = kWidth<float>;
#pragma GCC unroll 12
    for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kTileVecs; ++v) sums[r][v] = Vec<float>{};
    }
    for (int64_t k = 0; k < depth(dim); ++k, rows += kBlock, cols += kBlock) {
      Vec<uint32_t> col[kTileVecs];
#pragma GCC unroll 2
      for (int v = 0; v < kTileVecs; ++v) col[v] = load(cols + v * width);
#pragma GCC unroll 12
      for (int r = 0; r < kTileRows; ++r) {
        const Vec<uint32_t> row = broadcast(rows[r]);
#pragma GCC unroll 2
        for (int v = 0; v < kTileVecs; ++v) {
          sums[r][v] = multiply_add_pairs((__m512i)row, (__m512i)col[v], sums[r][v]);
        }
      }
    }
  }
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
