// SPDX-License-Identifier: BSD-3-Clause
// Ranks in 8-bit whole numbers: a row is rounded to multiples of a step of its own, 1/127 of its
// largest feature, and multiplied four features at a time, at twice the rate of bfloat16. What the
// rounding may have done is part of the bound (certificate.h), which is four times as wide: this
// decides less than tiles of bfloat16 do, and never anything else.
//
// Layout: a block is [(dim + 3) / 4][kBlock] groups of four bytes, that serve as rows (broadcast)
// and as columns (loaded), then [kBlock] steps, then [kBlock] initial sums. Which features share
// a group does not matter to an inner product: of each 4 kWidth features every quarter gives one
// byte, so that no lane has to move.
//
// The unit wants one factor without a sign: columns get 128 more, and the sums of row i begin with
// what that adds, -128 sum_k q_ik.
#pragma once

#include "tile_units.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// 127^2 of them are below 2^31.
constexpr int64_t kMostByteDim = int64_t{1} << 17;

// Steps whose inverse is finite; shorter rows become zeros, and all of them is residual.
constexpr float kLeastLargest = 0x1p-100F;

struct ByteStep {
  float step = 0;
  float inverse = 0;
};

// By the largest feature, as float32 maps it: one that is larger after all is cut off.
FM_INLINE ByteStep byte_step(const PackedRow<float>& row, RowMap<float> map, int64_t dim) {
  constexpr int width = kWidth<float>;
  map.wide = false;
  Vec<float> lowest{};
  for (int64_t k = 0; k < dim; k += width) {
    const Vec<float> y = mapped_features(row, map, k, dim - k < width ? dim - k : width);
    lowest = minimum(lowest, -absolute<float>(y));
  }
  const float largest = -lowest_lane<float>(lowest);
  return largest > kLeastLargest ? ByteStep{largest / 127, 127 / largest} : ByteStep{};
}

// The sums that Int8Tiles::pack collects for one row.
struct ByteSums {
  Vec<float> square{}, along{}, residual{};
  Vec<int32_t> whole{};

  // The whole numbers, in the lowest byte of each lane.
  FM_INLINE Vec<uint32_t> add(Vec<float> y, Vec<float> centre, ByteStep by) {
    auto q = (Vec<int32_t>)nearest_whole(y * by.inverse);  // NOLINT: the same lanes
    q = q > 127 ? Vec<int32_t>{} + 127 : q;
    q = q < -127 ? Vec<int32_t>{} - 127 : q;
    const auto steps = __builtin_convertvector(q, Vec<float>);
    const Vec<float> rest = multiply_add(-steps, broadcast(by.step), y);
    square += y * y;
    along += y * centre;
    residual += rest * rest;
    whole += q;
    return (Vec<uint32_t>)q & 255U;  // NOLINT
  }
};

struct Int8Tiles {
  using Score = float;
  using Packed = uint32_t;
  using Session = NoSession;
  using Block = NoBlock;
  static constexpr bool full = false;
  static constexpr bool bfloat16 = false;

  static constexpr int64_t groups(int64_t dim) { return (dim + 3) / 4; }
  static constexpr int64_t depth(int64_t dim) { return groups(dim) + 2; }
  static FM_INLINE bool takes(int64_t dim) { return dim <= kMostByteDim; }
  template <class Set>
  static FM_INLINE Packed* blocks(const Set& set) {
    return set.narrow;
  }

  static FM_NOINLINE void pack(PackedRow<float> (&row)[kWidth<float>], const RowMap<float>& map,
                               int64_t dim, int group, Packed* block) {
    constexpr int width = kWidth<float>;
    ByteSums sums[width];
    ByteStep by[width];
    for (int r = 0; r < width; ++r) by[r] = byte_step(row[r], map, dim);
    for (int64_t k = 0; k < dim; k += 4 * width) {
      const int64_t count = dim - k < 4 * width ? dim - k : 4 * width;
      const int64_t quarter = (count + 3) / 4;
      Vec<uint32_t> bytes[width] = {};
      for (int q = 0; q < 4 && q * quarter < count; ++q) {
        const int64_t first = k + q * quarter;
        const int64_t some = count - q * quarter < quarter ? count - q * quarter : quarter;
        const Vec<float> centre = load_partial(map.centre + first, some) * map.unit;
#pragma GCC unroll 16
        for (int r = 0; r < width; ++r) {
          const Vec<float> y = mapped_features(row[r], map, first, some);
          bytes[r] |= sums[r].add(y, centre, by[r]) << (8 * q);
        }
      }
      transpose<Packed>(bytes);
      for (int64_t f = 0; f < quarter; ++f) store(block + (k / 4 + f) * kBlock + group, bytes[f]);
    }
    keep_sums(row, &PackedRow<float>::square, [&](int r) { return sums[r].square; });
    keep_sums(row, &PackedRow<float>::along, [&](int r) { return sums[r].along; });
    keep_sums(row, &PackedRow<float>::residual, [&](int r) { return sums[r].residual; });
    Packed* const step = block + groups(dim) * kBlock + group;
    for (int r = 0; r < width; ++r) {
      std::memcpy(step + r, &by[r].step, sizeof(float));
      step[kBlock + r] = static_cast<Packed>(-128 * sum_lanes<int32_t>(sums[r].whole));
    }
  }

  static FM_INLINE float slack(KeyForm key, RowLengths row, double total, double dim) {
    return score_slack<float>(key, row, total, dim) + int8_slack(row, dim);
  }
  template <class Chooser>
  static FM_INLINE void compute(const Block&, const Chooser& chooser, int32_t i, int32_t j,
                                int64_t dim, TileSums<float>& sums) {
    multiply(chooser.query->template tile<Int8Tiles>(i, dim),
             chooser.ref->template tile<Int8Tiles>(j, dim), dim, sums);
  }

  static FM_INLINE void multiply(const Packed* rows, const Packed* cols, int64_t dim,
                                 TileSums<float>& sums) {
    constexpr int width = kWidth<float>;
    const Packed* const row_step = rows + groups(dim) * kBlock;
    const Packed* const col_step = cols + groups(dim) * kBlock;
    __m512i whole[kTileRows][kTileVecs];
#pragma GCC unroll 12
    for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kTileVecs; ++v) {
        whole[r][v] = (__m512i)broadcast(row_step[kBlock + r]);
      }
    }
    for (int64_t k = 0; k < groups(dim); ++k, rows += kBlock, cols += kBlock) {
      Vec<uint32_t> col[kTileVecs];
#pragma GCC unroll 2
      for (int v = 0; v < kTileVecs; ++v) col[v] = load(cols + v * width) ^ 0x80808080U;
#pragma GCC unroll 12
      for (int r = 0; r < kTileRows; ++r) {
        const Vec<uint32_t> row = broadcast(rows[r]);
#pragma GCC unroll 2
        for (int v = 0; v < kTileVecs; ++v) {
          add_products_of_bytes(whole[r][v], (__m512i)col[v], (__m512i)row);
        }
      }
    }
    scale(whole, row_step, col_step, sums);
  }

 private:
  static FM_INLINE void scale(const __m512i (&whole)[kTileRows][kTileVecs], const Packed* row_step,
                              const Packed* col_step, TileSums<float>& sums) {
    float row[kTileRows];
    std::memcpy(row, row_step, sizeof row);
    Vec<float> col[kTileVecs];
    std::memcpy(col, col_step, sizeof col);
#pragma GCC unroll 12
    for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kTileVecs; ++v) {
        const auto sum = __builtin_convertvector((Vec<int32_t>)whole[r][v], Vec<float>);  // NOLINT
        sums[r][v] = sum * col[v] * row[r];
      }
    }
  }
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
