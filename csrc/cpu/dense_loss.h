// SPDX-License-Identifier: BSD-3-Clause
// The whole of a dense loss: order -> prepare -> passes over the anchors (dense.h) -> reduction,
// statistics, gradients.
#pragma once

#include "dense.h"
#include "dense_by_pairs.h"
#include "dense_layout.h"
#include "dense_totals.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

template <class T, Curve curve, class Rule>
struct DenseLoss {
  DenseProblem& problem;
  DenseState<T>& state;
  const AnyRelation& relation;
  KeyForm key;
  bool mirrored;

  inline void run(DenseReduction reduction) {
    const bool wanted = problem.grad[0] != nullptr || problem.grad[1] != nullptr;
    const bool by_kind = Rule::of_pairs && !Rule::online;
    DenseTotals counted{};
    if (by_kind) counted = count_pairs();
    if (by_kind && wanted && reduction == DenseReduction::mean_active) {
      visit_all(false);
      const DenseTotals first = sum_rows(state);
      set_scales(scales_of(reduction, true, first));
    } else if (by_kind) {
      set_scales(scales_of(reduction, true, counted));
    }
    visit_all(wanted);
    DenseTotals totals = sum_rows(state);
    if (by_kind) totals.counted[1] = counted.counted[1];
    const KindScales scales = scales_of(reduction, by_kind, totals);
    write_dense_value(problem, state, reduction, scales, totals);
    if (problem.stats != nullptr) write_dense_statistics(problem, state, Rule::of_pairs);
    write_gradients(by_kind ? 1.0 : scales.kind[0]);
  }

 private:
  void set_scales(const KindScales& scales) {
    state.scale[0] = scales.kind[0];
    state.scale[1] = scales.kind[1];
  }

  // The weights of all positive and of all negative pairs; labels alone decide.
  DenseTotals count_pairs() {
    parallel_ranges(state.threads, state.query.n, 16, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        RowTotals& row = state.totals[i];
        row = RowTotals{};
        const double own = number_of(state.order.query[i], problem.weights, 1, 1.0);
        for (int64_t word = 0; word < state.references(problem).padded() / 32; ++word) {
          const auto j = static_cast<int32_t>(word * 32);
          const RoleBits roles = relation.bits(static_cast<int32_t>(i), j, 32);
          for (int kind = 0; kind < 2; ++kind) {
            if (problem.weights == nullptr) {
              row.counted[kind] += __builtin_popcount(roles.role[kind]);
              continue;
            }
            for (uint32_t bits = roles.role[kind]; bits != 0; bits &= bits - 1) {
              row.counted[kind] +=
                  own * static_cast<double>(state.pair_weight[j + __builtin_ctz(bits)]);
            }
          }
        }
      }
    });
    return sum_rows(state);
  }

  void visit_all(bool with_gradient) {
    with_method([&](const auto& gradient) { visit_with(gradient, with_gradient); });
  }

  // What adds up the gradient.
  template <class Visit>
  void with_method(const Visit& visit) const {
    if constexpr (always_by_pairs<T>) {
      visit(DenseByPairs<T>{problem, state, key});
    } else if (by_pairs(key)) {
      visit(DenseByPairs<T>{problem, state, key});
    } else {
      visit(DenseGradient<T>{problem, state, key});
    }
  }

  template <class Gradient>
  void visit_with(const Gradient& gradient, bool with_gradient) {
    const DenseRows<T, curve, Rule> rows{problem, state, relation, key, mirrored};
    const bool columns = with_gradient && !mirrored &&
                         (problem.symmetric ? problem.grad[0] : problem.grad[1]) != nullptr;
    const int64_t chunk = columns ? state.chunk : state.query.padded();
    if constexpr (Gradient::folds) {
      if (columns && problem.symmetric && chunk >= state.query.padded()) {
        return visit_folded(rows, gradient);
      }
    }
    for (int64_t first = 0; first < state.query.n; first += chunk) {
      const int64_t left = state.query.n - first;
      const int64_t count = left < chunk ? left : chunk;
      parallel_ranges(state.threads, count, kGroup, [&](int64_t begin, int64_t, int thread) {
        RowScratch<T>& scratch = state.scratch[thread];
        const int64_t at = columns ? begin : int64_t{thread} * kGroup;
        T* c = state.c + at * state.stride;
        uint32_t* near = state.near + at * (state.stride / 32);
        rows.visit(first + begin, c, near, scratch);
        if (with_gradient && problem.grad[0] != nullptr) {
          gradient.add_rows(first + begin, c, near, scratch, columns);
        }
      });
      if (!columns) continue;
      parallel_tasks(state.threads, blocks_of(state.references(problem).n),
                     [&](int64_t block, int thread) {
                       gradient.add_columns(block, first, count, state.scratch[thread]);
                     });
    }
  }

  // All coefficients at once, where they fit: each pair is then added up once, not twice.
  template <class Gradient>
  void visit_folded(const DenseRows<T, curve, Rule>& rows, const Gradient& gradient) {
    const int64_t words = state.stride / 32;
    const auto groups = [&](const auto& body) {
      parallel_ranges(state.threads, state.query.n, kGroup, [&](int64_t at, int64_t, int thread) {
        body(at, state.c + at * state.stride, state.near + at * words, state.scratch[thread]);
      });
    };
    groups([&](int64_t at, T* c, uint32_t* near, RowScratch<T>& scratch) {
      rows.visit(at, c, near, scratch);
    });
    for (int64_t k = state.query.n * state.stride; k < state.query.padded() * state.stride; ++k) {
      state.c[k] = 0;
    }
    parallel_tasks(state.threads, blocks_of(state.query.n),
                   [&](int64_t block, int) { gradient.fold(block); });
    groups([&](int64_t at, T* c, uint32_t* near, RowScratch<T>& scratch) {
      gradient.add_rows(at, c, near, scratch, false);
    });
  }

  void write_gradients(double factor) {
    with_method([&](const auto& gradient) { write_with(gradient, factor); });
  }

  template <class Gradient>
  void write_with(const Gradient& gradient, double factor) {
    for (int side = 0; side < 2; ++side) {
      if (problem.grad[side] == nullptr) continue;
      const DenseSet<T>& set = side == 0 ? state.query : state.references(problem);
      const int64_t rows = side == 0 ? problem.query.n : problem.ref.n;
      auto* out = static_cast<T*>(problem.grad[side]);
      for (int64_t at = 0; at < rows * problem.dim && set.n < rows; ++at) out[at] = 0;
      parallel_ranges(state.threads, set.n, 32, [&](int64_t begin, int64_t end, int thread) {
        for (int64_t p = begin; p < end; ++p) {
          gradient.write(side, p, factor, state.scratch[thread].positive_key);
        }
      });
    }
  }
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
