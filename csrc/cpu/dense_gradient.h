// SPDX-License-Identifier: BSD-3-Clause
// What a dense loss keeps between its rows and its gradients, and how coefficients c_ij become
// gradients (dense.h says which). P and S of a row are `sums` and `weight`.
#pragma once

#include "../arena.h"
#include "dense_rules.h"
#include "gradient_row.h"
#include "parallel.h"
#include "weighted_sums.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

constexpr int kGroup = 24;  // rows a thread visits together: a multiple of every register tile

template <class T>
struct DenseState {
  Order order{};
  DenseSet<T> query{}, ref{};  // ref: unused when symmetric
  Frame<T> frame{};
  uint64_t* words[2] = {};  // multi-hot labels as bits
  int64_t n_words = 0;
  int64_t stride = 0;  // of rows of h and c: the padded references, and 32 to spread cache sets
  T most_slack = 0;
  uint32_t* irregular_bits = nullptr;  // [stride / 32] references that are not in the tiles
  RowTotals* totals = nullptr;         // [n_query]
  T* pair_weight = nullptr;            // [stride]
  T* cotangent = nullptr;              // [stride] of the anchors, sorted
  double scale[2] = {1, 1};
  double* sums[2] = {};      // [padded][features] of queries and references
  double* weight[2] = {};    // [padded]
  int64_t chunk = 0;         // rows of c
  T* c = nullptr;            // [chunk][stride]
  uint32_t* near = nullptr;  // [chunk][stride / 32]
  RowScratch<T>* scratch = nullptr;
  int threads = 1;

  const DenseSet<T>& references(const DenseProblem& problem) const {
    return problem.symmetric ? query : ref;
  }
  // How far h of the query at sorted position i can be off.
  FM_INLINE double error(int64_t i) const {
    return static_cast<double>(query.slack[i]) + static_cast<double>(most_slack);
  }
};

template <class T>
struct DenseGradient {
  const DenseProblem& problem;
  const DenseState<T>& state;
  KeyForm key;
  const bool difference = key.form == Form::difference;
  static constexpr int cols = kTileCols<T>;
  // Both ends of a pair move by c_ij (y_i - y_j), or by c_ij y of the other: of the queries among
  // themselves, a row may take c_ij + c_ji and the columns nothing.
  static constexpr bool folds = true;

  // c += its transpose: the rows of one block of queries, and their mirror images. All rows are
  // there, and zeros behind them.
  FM_NOINLINE void fold(int64_t block) const {
    constexpr int width = kWidth<T>;
    const int64_t stride = state.stride;
    for (int64_t i = block * kBlock; i < (block + 1) * kBlock; i += width) {
      for (int64_t j = i; j < state.query.padded(); j += width) {
        Vec<T> here[width];
        Vec<T> there[width];
        for (int r = 0; r < width; ++r) here[r] = load(state.c + (i + r) * stride + j);
        for (int r = 0; r < width; ++r) there[r] = load(state.c + (j + r) * stride + i);
        transpose<T>(there);
        for (int r = 0; r < width; ++r) here[r] += there[r];
        for (int r = 0; r < width; ++r) store(state.c + (i + r) * stride + j, here[r]);
        transpose<T>(here);
        for (int r = 0; r < width; ++r) store(state.c + (j + r) * stride + i, here[r]);
      }
    }
  }

  FM_INLINE int64_t features() const { return panels_of(problem.dim, cols) * cols; }

  // Adds the rows i .. of a group, whose coefficients are `c`. Near pairs are taken out of `c` and,
  // if `restore`, put back.
  FM_NOINLINE void add_rows(int64_t i, T* c, const uint32_t* near, RowScratch<T>& scratch,
                            bool restore) const {
    const int64_t left = state.query.n - i;
    const int rows = left < kGroup ? static_cast<int>(left) : kGroup;
    for (int r = 0; r < rows; ++r) {
      T* row = c + r * state.stride;
      T* aside = scratch.h + r * state.stride;
      each_near(near + r * (state.stride / 32), state.stride / 32, [&](int64_t j) {
        if (row[j] != T(0))
          add_pair(0, i + r, j, static_cast<double>(row[j]) * near_slope(i + r, j));
        aside[j] = row[j];
        row[j] = 0;
      });
      state.weight[0][i + r] += sum_of(row, state.stride);
    }
    for (int r = 0; r < kGroup; r += kTileRows)
      add_row_tile(i + r, rows - r, c + r * state.stride, scratch);
    for (int r = 0; r < rows && restore; ++r) {
      each_near(near + r * (state.stride / 32), state.stride / 32,
                [&](int64_t j) { c[r * state.stride + j] = scratch.h[r * state.stride + j]; });
    }
  }

  // Adds one block of references, as columns of the rows `first` .. `first` + `rows` - 1.
  FM_NOINLINE void add_columns(int64_t block, int64_t first, int64_t rows, RowScratch<T>&) const {
    const int64_t begin = block * kBlock;
    constexpr int words = kBlock / 32;
    for (int64_t i = 0; i < rows; ++i) {
      T* row = state.c + i * state.stride;
      each_near(state.near + i * (state.stride / 32) + block * words, words, [&](int64_t j) {
        add_pair(1, begin + j, first + i, static_cast<double>(row[begin + j]));
        row[begin + j] = 0;
      });
    }
    const DenseSet<T>& terms = state.query;
    add_sums(state.c + begin, rows, state.weight[1] + begin);
    for (int64_t j = begin; j < begin + kBlock; j += kTileRows) {
      for (int64_t p = 0; p < panels_of(problem.dim, cols); ++p) {
        add_weighted_tile<T>({state.c + j, 1, state.stride},
                             terms.panel + (p * terms.padded() + first) * cols, rows,
                             state.sums[1] + j * features() + p * cols, features());
      }
    }
  }

  // The gradient of the row at sorted position p of a side.
  FM_NOINLINE void write(int side, int64_t p, double factor, double* buffer) const {
    const DenseSet<T>& set = side == 0 ? state.query : state.references(problem);
    const int64_t row = set.order[p];
    const auto unit = static_cast<double>(state.frame.unit);
    const double* sums = state.sums[side] + p * features();
    const double weight = state.weight[side][p];
    // The row once more in float64: the rounding of its packed copy would be multiplied by the sum
    // of all its coefficients.
    const double scale = key.needs_norms() ? 1.0 / set.rows.clamped_norm(row) : 1.0;
    const T* x = set.rows.row(row);
    bool touched = false;
    for (int64_t k = 0; k < problem.dim; ++k) {
      const double centre = static_cast<double>(state.frame.centre[k]);
      const double y = difference ? static_cast<double>(x[k]) * scale - centre : centre;
      const double own = weight == 0 ? 0.0 : weight * y * unit;
      buffer[k] = (difference ? own - sums[k] : own + sums[k]) / unit * factor;
      touched = touched || buffer[k] != 0;
    }
    T* out = static_cast<T*>(problem.grad[side]) + row * problem.dim;
    if (touched) through_norm(key, set.rows, row, problem.dim, buffer);
    for (int64_t k = 0; k < problem.dim; ++k) out[k] = static_cast<T>(buffer[k]);
  }

  // Of distances with cotangents of their own, whose coefficients lack it where pairs are near.
  FM_INLINE double near_slope(int64_t i, int64_t j) const {
    if (problem.pairs.data == nullptr) return 1;
    const DenseSet<T>& ref = state.references(problem);
    return key.slope(
        pair_key(key, state.query.rows, state.query.order[i], ref.rows, ref.order[j], problem.dim));
  }

  // One pair by difference: own row of `side`, other row of the other side.
  FM_NOINLINE void add_pair(int side, int64_t own, int64_t other, double coefficient) const {
    if (coefficient == 0) return;
    const DenseSet<T>& set = side == 0 ? state.query : state.references(problem);
    const DenseSet<T>& from = side == 0 ? state.references(problem) : state.query;
    const int64_t i = set.order[own];
    const int64_t j = from.order[other];
    const double c = coefficient * static_cast<double>(state.frame.unit);
    const double own_scale = key.needs_norms() ? 1.0 / set.rows.clamped_norm(i) : 1.0;
    const double other_scale = key.needs_norms() ? 1.0 / from.rows.clamped_norm(j) : 1.0;
    const T* x = set.rows.row(i);
    const T* r = from.rows.row(j);
    double* sums = state.sums[side] + own * features();
    for (int64_t k = 0; k < problem.dim; ++k) {
      const double theirs = static_cast<double>(r[k]) * other_scale;
      sums[k] += difference ? -c * (static_cast<double>(x[k]) * own_scale - theirs) : c * theirs;
    }
  }

 private:
  template <class Visit>
  static FM_INLINE void each_near(const uint32_t* near, int64_t words, const Visit& visit) {
    for (int64_t word = 0; word < words; ++word) {
      for (uint32_t bits = near[word]; bits != 0; bits &= bits - 1) {
        visit(word * 32 + __builtin_ctz(bits));
      }
    }
  }

  // Of a row of c; its length is a multiple of every vector.
  static FM_INLINE double sum_of(const T* c, int64_t count) {
    Vec<double> sum[2] = {};
    for (int64_t j = 0; j < count; j += 2 * kWidth<double>) {
      sum[0] += load_wide(c + j);
      sum[1] += load_wide(c + j + kWidth<double>);
    }
    return sum_lanes<double>(sum[0] + sum[1]);
  }

  // Of kBlock columns of c.
  FM_INLINE void add_sums(const T* c, int64_t rows, double* sums) const {
    constexpr int vectors = kBlock / kWidth<double>;
    Vec<double> sum[vectors];
    for (int v = 0; v < vectors; ++v) sum[v] = load(sums + v * kWidth<double>);
    for (int64_t i = 0; i < rows; ++i, c += state.stride) {
      for (int v = 0; v < vectors; ++v) sum[v] += load_wide(c + v * kWidth<double>);
    }
    for (int v = 0; v < vectors; ++v) store(sums + v * kWidth<double>, sum[v]);
  }

  // kTileRows rows, of which `rows` exist; rows that are mostly zero go through lists.
  inline void add_row_tile(int64_t i, int rows, const T* c, RowScratch<T>& scratch) const {
    const DenseSet<T>& terms = state.references(problem);
    const int real = rows < kTileRows ? rows : kTileRows;
    int64_t filled = 0;
    for (int r = 0; r < real; ++r) {
      for (int64_t j = 0; j < terms.n; ++j) filled += c[r * state.stride + j] != 0;
    }
    // A listed term costs about 4 times one of a full tile.
    if (filled * 4 > real * terms.n) {
      for (int64_t p = 0; p < panels_of(problem.dim, cols); ++p) {
        add_weighted_tile<T>({c, state.stride, 1}, terms.panel + p * terms.padded() * cols, terms.n,
                             state.sums[0] + i * features() + p * cols, features());
      }
      return;
    }
    for (int r = 0; r < real && filled > 0; ++r) {
      int64_t count = 0;
      const T* row = c + r * state.stride;
      for (int64_t j = 0; j < terms.n; ++j) {
        scratch.listed[count] = static_cast<int32_t>(j);
        scratch.list_weight[count] = row[j];
        count += row[j] != 0;
      }
      for (int64_t p = 0; p < panels_of(problem.dim, cols); ++p) {
        add_weighted_list<T>(scratch.list_weight, scratch.listed, count,
                             terms.panel + p * terms.padded() * cols,
                             state.sums[0] + (i + r) * features() + p * cols);
      }
    }
  }
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
