// SPDX-License-Identifier: BSD-3-Clause
// The gradient of a dense loss where it is no product of matrices: distances that are sums over
// features, those that are relative to the query, and float64 rows, for whose products nothing
// wider is at hand. Each pair with a coefficient is taken by itself (gradient_row.h), in float64.
#pragma once

#include "dense_gradient.h"
#include "gradient_row.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

FM_INLINE bool by_pairs(KeyForm key) { return !key.of_products() || key.relative; }

template <class T>
constexpr bool always_by_pairs = sizeof(T) == sizeof(double);

template <class T>
struct DenseByPairs {
  const DenseProblem& problem;
  const DenseState<T>& state;
  KeyForm key;

  static constexpr bool folds = false;

  FM_INLINE int64_t features() const { return panels_of(problem.dim, kTileCols<T>) * kTileCols<T>; }

  // Adds the rows i .. of a group, whose coefficients are `c`.
  FM_NOINLINE void add_rows(int64_t i, T* c, const uint32_t*, RowScratch<T>& scratch, bool) const {
    const DenseSet<T>& ref = state.references(problem);
    const int64_t left = state.query.n - i;
    GradientRow<T> gradient(key, problem.dim, scratch.positive_key);
    for (int64_t r = 0; r < kGroup && r < left; ++r) {
      const T* coefficient = c + r * state.stride;
      gradient.start(state.query.rows, state.query.order[i + r]);
      for (int64_t j = 0; j < ref.n; ++j) {
        gradient.add(ref.rows, ref.order[j], static_cast<double>(coefficient[j]), true);
      }
      add(gradient.sums(), state.sums[0] + (i + r) * features());
    }
  }

  // Adds one block of references, as columns of the rows `first` .. `first` + `rows` - 1.
  FM_NOINLINE void add_columns(int64_t block, int64_t first, int64_t rows,
                               RowScratch<T>& scratch) const {
    const DenseSet<T>& ref = state.references(problem);
    GradientRow<T> gradient(key, problem.dim, scratch.positive_key);
    const int64_t end = (block + 1) * kBlock < ref.n ? (block + 1) * kBlock : ref.n;
    for (int64_t j = block * kBlock; j < end; ++j) {
      gradient.start(ref.rows, ref.order[j]);
      for (int64_t i = 0; i < rows; ++i) {
        const auto coefficient = static_cast<double>(state.c[i * state.stride + j]);
        gradient.add(state.query.rows, state.query.order[first + i], coefficient, false);
      }
      add(gradient.sums(), state.sums[1] + j * features());
    }
  }

  // The gradient of the row at sorted position p of a side.
  FM_NOINLINE void write(int side, int64_t p, double factor, double* buffer) const {
    const DenseSet<T>& set = side == 0 ? state.query : state.references(problem);
    const int64_t row = set.order[p];
    const double* sums = state.sums[side] + p * features();
    bool touched = false;
    for (int64_t k = 0; k < problem.dim; ++k) {
      buffer[k] = sums[k] * factor;
      touched = touched || buffer[k] != 0;
    }
    if (touched) through_norm(key, set.rows, row, problem.dim, buffer);
    T* out = static_cast<T*>(problem.grad[side]) + row * problem.dim;
    for (int64_t k = 0; k < problem.dim; ++k) out[k] = static_cast<T>(buffer[k]);
  }

 private:
  FM_INLINE void add(const double* more, double* sums) const {
    for (int64_t k = 0; k < problem.dim; ++k) sums[k] += more[k];
  }
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
