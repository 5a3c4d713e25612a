// SPDX-License-Identifier: BSD-3-Clause
// The h of a square of pairs (dense_rows.h): inner products, then by difference what is near.
#pragma once

#include "block_rules.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

template <class T, Curve curve>
struct BlockMeasure {
  const BlockProblem<T, curve>& base;
  SameClass classes;

  // h of every pair; kNoNegative where it is none.
  FM_NOINLINE void fill(const Square<T>& square, BlockSlot<T>& slot) const {
    constexpr int cols = kTileCols<T>;
    const DenseSet<T>& set = base.state.query;
    const int64_t dim = base.problem.dim;
    const T* rows = set.packed + int64_t{square.i} * dim;
    const T* columns = set.packed + int64_t{square.j} * dim;
    for (int col = 0; col < kBlock; col += cols) {
      const int32_t j = square.j + col;
      for (int row = 0; row < square.rows; row += kTileRows) {
        TileSums<T> sums;
        multiply_tile<T, Inner::product>(rows + row, columns + col, dim, sums);
        const int32_t i = square.i + row;
        const int32_t i_end =
            row + kTileRows < square.rows ? i + kTileRows : square.i + square.rows;
        const bool pure = j + cols <= set.n && i_end == i + kTileRows &&
                          classes.kind(i, i_end, j, j + cols) == TileKind::all_negative;
        const uint32_t near = write_tile(sums, i, j, square.c + row * kBlock + col);
        if (!pure || near != 0) settle_tile(i, i_end, j, square, slot);
      }
    }
  }

  // The sum of the distances to negatives, and the least one, for the statistics.
  FM_NOINLINE void note_distances(const Square<T>& square, bool both, BlockSlot<T>& slot) const {
    VectorSum<T> sum;
    T nearest = static_cast<T>(kFarthest);
    const auto each = [&](const auto& visit) {
      for (int r = 0; r < square.rows; ++r) {
        for (int group = 0; group < kBlock; group += kWidth<T>) {
          const Vec<T> others = both ? load(base.blocks.valid + square.j + group) : Vec<T>{};
          const Vec<T> h = load(square.c + r * kBlock + group);
          const Vec<T> times = others + base.blocks.valid[square.i + r];
          visit(r, group, h < static_cast<T>(kFarthest) ? times : Vec<T>{}, h);
        }
      }
    };
    each([&](int, int, Vec<T> times, Vec<T> h) {
      sum.add(times > T(0) ? base.scale.distances(h) * times : Vec<T>{});
      for (int lane = 0; lane < kWidth<T>; ++lane) {
        nearest = times[lane] > 0 && h[lane] < nearest ? h[lane] : nearest;
      }
    });
    slot.sum_an = sum.sum();
    const auto limit =
        static_cast<T>(nearest + 4 * base.state.most_slack);  // twice any row's error
    each([&](int r, int group, Vec<T> times, Vec<T> h) {
      for (int lane = 0; lane < kWidth<T>; ++lane) {
        if (!(times[lane] > 0) || h[lane] > limit) continue;
        const double d = base.key.value(base.exact_key(square.i + r, square.j + group + lane));
        slot.min_an = d < slot.min_an ? d : slot.min_an;
      }
    });
  }

 private:
  // Says whether any pair may be near.
  FM_INLINE uint32_t write_tile(const TileSums<T>& sums, int32_t i, int32_t j, T* h) const {
    const T* half = base.state.query.half;
    const bool difference = base.key.form == Form::difference;
    uint32_t near = 0;
#pragma GCC unroll 12
    for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kTileVecs; ++v) {
        const Vec<T> lengths = load(half + j + v * kWidth<T>) + half[i + r];
        const Vec<T> x = lengths - sums[r][v];
        store(h + r * kBlock + v * kWidth<T>, x);
        if (difference) {
          near |= le_bits(x, near_limits<T>(lengths));
        }
      }
    }
    return near;
  }

  // A tile with pairs that are not negatives, or near: those are measured by difference.
  FM_NOINLINE void settle_tile(int32_t i, int32_t i_end, int32_t j, const Square<T>& square,
                               BlockSlot<T>& slot) const {
    const bool difference = base.key.form == Form::difference;
    const T* half = base.state.query.half;
    for (int32_t row = i; row < i_end; ++row) {
      const uint32_t negative = classes.bits(row, j, kTileCols<T>).role[kNegative];
      for (int lane = 0; lane < kTileCols<T>; ++lane) {
        T& h = square.c[(row - square.i) * kBlock + (j - square.j) + lane];
        if ((negative >> lane & 1) == 0) {
          h = static_cast<T>(kNoNegative);
          continue;
        }
        if (!difference || h > near_limit(half[j + lane] + half[row])) continue;
        if (slot.n_near >= kNearCapacity) {
          slot.n_near = kNearCapacity + 1;
          return;
        }
        slot.near[slot.n_near++] = {
            {static_cast<int16_t>(row - square.i), static_cast<int16_t>(j + lane - square.j)},
            T(0)};
        h = base.scale.measured(base.exact_key(row, j + lane));
        if (h != h) {  // no rule here asks for keys
          slot.n_near = kNearCapacity + 1;
          return;
        }
      }
    }
  }
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
