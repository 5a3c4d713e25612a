// SPDX-License-Identifier: BSD-3-Clause
// Computes the distance matrix, for those who want it: out_ij = distance(x_i, y_j), and its
// gradient.
//
// Numerics: differences, never the expansion: the inner operation of the tile is (x - y)^2, or that
// of the distance. Sums run over 16 features in registers and are then added to a running total, so
// that rounding grows with 16 + dim / 16, not with dim. The gradient computes keys and sums in
// float64 (gradient_row.h), or, of float32 rows whose keys are of products, as dense losses do.
#pragma once

#include "../arena.h"
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
  double* norm = nullptr;  // and the other numbers of rows.h
  T* packed = nullptr;     // [blocks][dim][kBlock]
};

template <class T>
FM_INLINE void lay_out_pairwise(Arena& arena, const Rows& rows, int64_t dim, bool packed,
                                PairwiseSet<T>& set) {
  set.norm = take_numbers(arena, rows.n);
  if (packed) set.packed = arena.take<T>((rows.n + kBlock - 1) / kBlock * kBlock * dim);
  set.rows = view_of<T>(rows, set.norm);
  set.n = rows.n;
}

template <class T>
inline void measure_and_pack(KeyForm key, int64_t dim, int threads, const PairwiseSet<T>& set) {
  constexpr int width = kWidth<T>;
  const bool measured = key.needs_norms() || key.needs_means();
  parallel_ranges(threads, set.n, kBlock, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end && measured; ++i) measure_row(key, set.rows, i, dim);
    for (int64_t group = begin; group < begin + kBlock && set.packed != nullptr; group += width) {
      PackedRow<T> row[width];
      for (int r = 0; r < width; ++r) {
        row[r] = {nullptr, T(1)};
        if (group + r >= end) continue;
        const Mapping map = set.rows.mapping(key, group + r);
        row[r] = {set.rows.row(group + r), static_cast<T>(map.scale), static_cast<T>(map.shift)};
      }
      pack_rows<T>(row, RowMap<T>{nullptr, T(1), key.scaled, key.relative}, dim,
                   set.packed + begin * dim + (group - begin));
    }
  });
}

template <class T>
using PairSums = T[kTileRows][kTileCols<T>];

template <class T, Inner inner>
FM_NOINLINE void add_segments(const TileInput<T>& in, T exponent, PairSums<T>& sums) {
  for (int64_t k = 0; k < in.dim; k += 16) {
    TileSums<T> part;
    multiply_tile<T, inner>(in.rows + k * kBlock, in.cols + k * kBlock,
                            in.dim - k < 16 ? in.dim - k : 16, part, exponent);
#pragma GCC unroll 12
    for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kTileVecs; ++v) {
        T* sum = sums[r] + v * kWidth<T>;
        const Vec<T> total = load(sum);
        store<T>(sum, inner == Inner::maximum ? larger<T>(total, part[r][v]) : total + part[r][v]);
      }
    }
  }
}

template <class T>
FM_INLINE void add_pairs(Inner inner, T exponent, const TileInput<T>& in, PairSums<T>& sums) {
  switch (inner) {
    case Inner::product:
      return add_segments<T, Inner::product>(in, exponent, sums);
    case Inner::difference:
      return add_segments<T, Inner::difference>(in, exponent, sums);
    case Inner::cube:
      return add_segments<T, Inner::cube>(in, exponent, sums);
    case Inner::fourth:
      return add_segments<T, Inner::fourth>(in, exponent, sums);
    case Inner::power:
      return add_segments<T, Inner::power>(in, exponent, sums);
    case Inner::maximum:
      return add_segments<T, Inner::maximum>(in, exponent, sums);
    default:  // overlap too: see overlap_tile
      return add_segments<T, Inner::absolute>(in, exponent, sums);
  }
}

template <class T>
struct PairwiseTile {
  const PairwiseSet<T>& x;
  const PairwiseSet<T>& y;
  KeyForm key;
  int64_t dim;
  T* out;         // [x.n, y.n]
  bool mirrored;  // y are the rows x: the distances of (j, i) are those of (i, j), to the bit

  // A block of x against a block of y.
  inline void visit_blocks(int64_t x_begin, int64_t y_begin) const {
    const int64_t x_end = x.n < x_begin + kBlock ? x.n : x_begin + kBlock;
    const int64_t y_end = y.n < y_begin + kBlock ? y.n : y_begin + kBlock;
    const T* rows = x.packed + x_begin * dim;
    const T* cols = y.packed + y_begin * dim;
    for (int64_t j = y_begin; j < y_end; j += kTileCols<T>) {
      for (int64_t i = x_begin; i < x_end; i += kTileRows) {
        PairSums<T> sums = {};
        add_pairs(inner_of(key), static_cast<T>(key.power),
                  {rows + (i - x_begin), cols + (j - y_begin), nullptr, nullptr, dim}, sums);
        const int n_rows = static_cast<int>(x_end - i < kTileRows ? x_end - i : kTileRows);
        const int n_cols = static_cast<int>(y_end - j < kTileCols<T> ? y_end - j : kTileCols<T>);
        turn_into_distances(i, n_rows, j, n_cols, sums);
        write(sums, i, n_rows, j, n_cols, x_begin != y_begin);
      }
    }
  }

 private:
  FM_NOINLINE void turn_into_distances(int64_t i, int n_rows, int64_t j, int n_cols,
                                       PairSums<T>& sums) const {
    if (key.form == Form::difference && !key.relative) {  // the sum, or its root
      for (int r = 0; r < n_rows && key.curve() == Curve::square_root; ++r) {
        for (int c = 0; c < kTileCols<T>; c += kWidth<T>) {
          store(sums[r] + c, square_roots(load(sums[r] + c)));
        }
      }
      return;
    }
    visit_by_index(Distances{}, key.distance, [&](auto distance) {
      for (int r = 0; r < n_rows; ++r) {
        for (int c = 0; c < n_cols; ++c) {
          const double pair = key_of_sum(static_cast<double>(sums[r][c]), i + r, j + c);
          sums[r][c] = static_cast<T>(decltype(distance)::value(pair, key.power));
        }
      }
    });
  }

  FM_INLINE void write(const PairSums<T>& distance, int64_t i, int n_rows, int64_t j, int n_cols,
                       bool other_block) const {
    for (int r = 0; r < n_rows; ++r) {
      for (int c = 0; c < n_cols; ++c) out[(i + r) * y.n + j + c] = distance[r][c];
    }
    for (int c = 0; c < n_cols && mirrored && other_block; ++c) {
      for (int r = 0; r < n_rows; ++r) out[(j + c) * y.n + i + r] = distance[r][c];
    }
  }

  FM_INLINE double key_of_sum(double sum, int64_t i, int64_t j) const {
    if (key.form == Form::product) sum = -sum;
    if (key.quotient) return sum / (x.rows.clamped_norm(i) * y.rows.clamped_norm(j));
    if (key.relative) return sum / x.rows.clamped_energy(i);
    if (key.form != Form::overlap) return sum;
    const double twice = (x.rows.mean[i] + y.rows.mean[j]) * static_cast<double>(dim) + sum;
    return twice == 0 ? -1.0 : 2 * sum / twice - 1;
  }
};

FM_INLINE int pairwise_threads(const PairwiseProblem& problem) {
  const double work = static_cast<double>(problem.x.n) * static_cast<double>(problem.y.n) *
                      static_cast<double>(problem.dim);
  return threads_for(work, problem.threads);
}

template <class T>
inline void pairwise_forward(KeyForm key, PairwiseProblem& problem) {
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
  measure_and_pack(key, problem.dim, threads, x);
  measure_and_pack(key, problem.dim, threads, y);
  const bool mirrored = !key.relative && problem.x.data == problem.y.data && x.n == y.n &&
                        problem.x.stride == problem.y.stride;
  const PairwiseTile<T> tile{x, y, key, problem.dim, static_cast<T*>(problem.out), mirrored};
  const int64_t y_blocks = (y.n + kBlock - 1) / kBlock;
  const int64_t x_blocks = (x.n + kBlock - 1) / kBlock;
  parallel_tasks(threads, x_blocks * y_blocks, [&](int64_t task, int) {
    const int64_t row = task / y_blocks;
    const int64_t col = task % y_blocks;
    if (!mirrored || row <= col) tile.visit_blocks(row * kBlock, col * kBlock);
  });
  __atomic_fetch_add(&call_counters.pairwise, int64_t{1}, __ATOMIC_RELAXED);
}

// Adds the gradient of x to `out`; the caller swaps the sides, and says so, for that of y. Where
// both are the same rows, a row has the gradient of its row and of its column of the distances.
template <class T>
inline void pairwise_gradient(KeyForm key, PairwiseProblem& problem) {
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
  measure_and_pack(key, problem.dim, threads, x);
  measure_and_pack(key, problem.dim, threads, y);
  const PairCotangents& given = problem.cotangent;
  const auto* cotangent = static_cast<const T*>(given.data);
  const auto factor = [&](int64_t i, int64_t j) {
    return static_cast<double>(cotangent[i * given.row_stride + j * given.col_stride]);
  };
  parallel_ranges(threads, x.n, 8, [&](int64_t begin, int64_t end, int thread) {
    GradientRow<T> gradient(key, problem.dim, buffer + thread * problem.dim);
    for (int64_t i = begin; i < end; ++i) {
      gradient.start(x.rows, i);
      for (int64_t j = 0; j < y.n; ++j) {
        double weight = factor(i, j);
        if (given.mirrored && key.relative) {  // whose slope is constant, but not symmetric
          gradient.add(y.rows, j, factor(j, i) * key.slope(1), false);
        } else if (given.mirrored) {
          weight += factor(j, i);
        }
        if (weight == 0) continue;
        const double slope = key.slope_is_constant() ? key.slope(1) : gradient.slope(y.rows, j);
        gradient.add(y.rows, j, weight * slope, !problem.swapped);
      }
      gradient.finish(static_cast<T*>(problem.out) + i * problem.dim, true);
    }
  });
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
