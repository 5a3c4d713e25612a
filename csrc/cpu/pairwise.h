// SPDX-License-Identifier: BSD-3-Clause
// Computes the distance matrix, for those who want it: out_ij = distance(x_i, y_j), and its
// gradient.
//
// Numerics: differences, never the expansion: the inner operation of the tile is (x - y)^2. Sums
// run over 16 features in registers and are then added to a running total, so that rounding grows
// with 16 + dim / 16, not with dim. The gradient computes keys and sums in float64
// (gradient_row.h).
#pragma once

#include "arena.h"
#include "gradient_row.h"
#include "kernels.h"
#include "pack.h"
#include "parallel.h"
#include "threads.h"
#include "tile.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

template <class T>
struct PairwiseSet {
  RowView<T> rows{};
  int64_t n = 0;
  double* norm = nullptr;  // [n]
  T* packed = nullptr;     // [blocks][dim][kBlock]
};

template <class T>
FM_INLINE void lay_out_pairwise(Arena& arena, const Rows& rows, int64_t dim, bool packed,
                                PairwiseSet<T>& set) {
  set.norm = arena.take<double>(rows.n);
  if (packed) set.packed = arena.take<T>((rows.n + kBlock - 1) / kBlock * kBlock * dim);
  set.rows = {static_cast<const T*>(rows.data), rows.stride, set.norm};
  set.n = rows.n;
}

template <class T>
inline void measure_and_pack(KeyForm key, int64_t dim, int threads, const PairwiseSet<T>& set) {
  constexpr int width = kWidth<T>;
  parallel_ranges(threads, set.n, kBlock, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end && key.needs_norms(); ++i) {
      set.norm[i] = square_root(squared_norm(set.rows.row(i), dim));
    }
    for (int64_t group = begin; group < begin + kBlock && set.packed != nullptr; group += width) {
      PackedRow<T> row[width];
      for (int r = 0; r < width; ++r) {
        const bool real = group + r < end;
        row[r].from = real ? set.rows.row(group + r) : nullptr;
        row[r].scale =
            real && key.scaled ? static_cast<T>(1.0 / set.rows.clamped_norm(group + r)) : T(1);
      }
      pack_rows<T>(row, RowMap<T>{nullptr, T(1), key.scaled}, dim,
                   set.packed + begin * dim + (group - begin));
    }
  });
}

template <class T, class Distance>
struct PairwiseTile {
  const PairwiseSet<T>& x;
  const PairwiseSet<T>& y;
  KeyForm key;
  int64_t dim;
  T* out;  // [x.n, y.n]

  // A block of x against a block of y.
  inline void visit_blocks(int64_t x_begin, int64_t y_begin) const {
    const int64_t x_end = x.n < x_begin + kBlock ? x.n : x_begin + kBlock;
    const int64_t y_end = y.n < y_begin + kBlock ? y.n : y_begin + kBlock;
    const T* rows = x.packed + x_begin * dim;
    const T* cols = y.packed + y_begin * dim;
    for (int64_t j = y_begin; j < y_end; j += kTileCols<T>) {
      for (int64_t i = x_begin; i < x_end; i += kTileRows) {
        T sums[kTileRows][kTileCols<T>] = {};
        for (int64_t k = 0; k < dim; k += 16) {
          TileSums<T> part;
          multiply_tile<T, Distance::form>(rows + k * kBlock + (i - x_begin),
                                           cols + k * kBlock + (j - y_begin),
                                           dim - k < 16 ? dim - k : 16, part);
          add_part(part, sums);
        }
        write(sums, i, x_end, j, y_end);
      }
    }
  }

 private:
  static FM_INLINE void add_part(const TileSums<T>& part, T (&sums)[kTileRows][kTileCols<T>]) {
#pragma GCC unroll 12
    for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kTileVecs; ++v) {
        T* sum = sums[r] + v * kWidth<T>;
        store<T>(sum, load(sum) + part[r][v]);
      }
    }
  }

  FM_INLINE void write(const T (&sums)[kTileRows][kTileCols<T>], int64_t i, int64_t i_end,
                       int64_t j, int64_t j_end) const {
    for (int64_t r = 0; r < kTileRows && i + r < i_end; ++r) {
      for (int64_t c = 0; c < kTileCols<T> && j + c < j_end; ++c) {
        double pair = static_cast<double>(sums[r][c]);
        if (Distance::form == Form::product) pair = -pair;
        if (key.quotient) pair /= x.rows.clamped_norm(i + r) * y.rows.clamped_norm(j + c);
        out[(i + r) * y.n + j + c] = static_cast<T>(Distance::value(pair));
      }
    }
  }
};

FM_INLINE int pairwise_threads(const PairwiseProblem& problem) {
  const double work = static_cast<double>(problem.x.n) * static_cast<double>(problem.y.n) *
                      static_cast<double>(problem.dim);
  return work < kSerialWork ? 1 : usable_threads(problem.threads);
}

template <class T, class Distance>
inline void pairwise_forward(PairwiseProblem& problem) {
  Arena arena(problem.workspace);
  PairwiseSet<T> x;
  PairwiseSet<T> y;
  lay_out_pairwise(arena, problem.x, problem.dim, true, x);
  lay_out_pairwise(arena, problem.y, problem.dim, true, y);
  if (arena.counting()) {
    problem.workspace.bytes = arena.bytes();
    return;
  }
  const int threads = pairwise_threads(problem);
  const KeyForm key = key_form<Distance>(problem.normalize);
  measure_and_pack(key, problem.dim, threads, x);
  measure_and_pack(key, problem.dim, threads, y);
  const PairwiseTile<T, Distance> tile{x, y, key, problem.dim, static_cast<T*>(problem.out)};
  const int64_t y_blocks = (y.n + kBlock - 1) / kBlock;
  const int64_t x_blocks = (x.n + kBlock - 1) / kBlock;
  parallel_tasks(threads, x_blocks * y_blocks, [&](int64_t task, int) {
    tile.visit_blocks(task / y_blocks * kBlock, task % y_blocks * kBlock);
  });
  __atomic_fetch_add(&call_counters.pairwise, int64_t{1}, __ATOMIC_RELAXED);
}

// Adds the gradient of x to `out`; the caller swaps the sides for that of y.
template <class T, class Distance>
inline void pairwise_gradient(PairwiseProblem& problem) {
  Arena arena(problem.workspace);
  PairwiseSet<T> x;
  PairwiseSet<T> y;
  lay_out_pairwise(arena, problem.x, problem.dim, false, x);
  lay_out_pairwise(arena, problem.y, problem.dim, false, y);
  double* buffer = arena.take<double>((problem.threads > 1 ? problem.threads : 1) * problem.dim);
  if (arena.counting()) {
    problem.workspace.bytes = arena.bytes();
    return;
  }
  const int threads = pairwise_threads(problem);
  const KeyForm key = key_form<Distance>(problem.normalize);
  measure_and_pack(key, problem.dim, threads, x);
  measure_and_pack(key, problem.dim, threads, y);
  const auto* cotangent = static_cast<const T*>(problem.cotangent);
  parallel_ranges(threads, x.n, 8, [&](int64_t begin, int64_t end, int thread) {
    GradientRow<T> gradient(key, problem.dim, buffer + thread * problem.dim);
    for (int64_t i = begin; i < end; ++i) {
      gradient.start(x.rows, i);
      for (int64_t j = 0; j < y.n; ++j) {
        const auto weight = static_cast<double>(
            cotangent[i * problem.cotangent_row_stride + j * problem.cotangent_col_stride]);
        if (weight == 0) continue;
        const double pair = pair_key(key, x.rows, i, y.rows, j, problem.dim);
        gradient.add(y.rows, j, weight * Distance::slope(pair));
      }
      gradient.finish(static_cast<T*>(problem.out) + i * problem.dim, true);
    }
  });
  __atomic_fetch_add(&call_counters.pairwise_backward, int64_t{1}, __ATOMIC_RELAXED);
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
