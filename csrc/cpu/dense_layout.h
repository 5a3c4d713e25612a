// SPDX-License-Identifier: BSD-3-Clause
// Lays out the scratch of a dense loss and prepares its rows: label order, frame, packed blocks and
// panels, bounds.
#pragma once

#include "dense.h"
#include "threads.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// Coefficients of one chunk of anchors: what stays in a shared cache while the columns read what
// the rows wrote. Whatever the number of threads: sums over columns are cut where chunks are.
constexpr int64_t kChunkBytes = int64_t{16} << 20;

template <class T>
inline void lay_out_scratch(Arena& arena, const DenseProblem& problem, DenseState<T>& state) {
  const int threads = problem.threads > 1 ? problem.threads : 1;
  const int64_t longest = state.stride > problem.dim ? state.stride : problem.dim;
  state.scratch = arena.take<RowScratch<T>>(threads);
  for (int thread = 0; thread < threads; ++thread) {
    RowScratch<T> own{};
    own.h = arena.take<T>(kGroup * state.stride);
    own.pair_factor = arena.take<T>(state.stride);
    own.list_weight = arena.take<T>(state.stride);
    own.listed = arena.take<int32_t>(state.stride);
    own.negative = arena.take<uint32_t>(state.stride / 32);
    own.positive = arena.take<int32_t>(state.stride);
    own.positive_key = arena.take<double>(longest);
    own.positive_distance = arena.take<double>(state.stride);
    own.positive_slope = arena.take<double>(state.stride);
    own.negative_distance = arena.take<double>(state.stride);
    own.widened = arena.take<double>(problem.dim);
    for (int buffer = 0; buffer < 2; ++buffer) {
      own.sort.data.value[buffer] = arena.take<T>(state.stride);
      own.sort.data.id[buffer] = arena.take<int32_t>(state.stride);
    }
    own.sort.positive = arena.take<int32_t>(state.stride);
    own.sort.step = arena.take<int32_t>(state.stride + 1);
    own.sort.measured = arena.take<uint32_t>(state.stride / 32);
    if (problem.loss == "semihard") {
      SemiHardScratch<T> semihard{};
      own.semihard = arena.take<SemiHardScratch<T>>(1);
      lay_out_semihard(arena, state.stride, problem.dim, semihard);
      if (!arena.counting()) *own.semihard = semihard;
    }
    if (!arena.counting()) state.scratch[thread] = own;
  }
  const int64_t groups = kChunkBytes / (kGroup * state.stride * static_cast<int64_t>(sizeof(T)));
  state.chunk = (groups < 1 ? 1 : groups) * kGroup;
  const int64_t most = blocks_of(problem.query.n) * kBlock;
  state.chunk = state.chunk > most ? most : state.chunk;
  const int64_t rows = state.chunk > threads * kGroup ? state.chunk : threads * kGroup;
  state.c = arena.take<T>(rows * state.stride);
  state.near = arena.take<uint32_t>(rows * (state.stride / 32));
}

FM_INLINE int dense_threads(const DenseProblem& problem) {
  const double work = static_cast<double>(problem.query.n) * static_cast<double>(problem.ref.n) *
                      static_cast<double>(problem.dim);
  return threads_for(work, problem.threads);
}

// What every dense loss needs; its scratch comes after.
template <class T>
inline void lay_out_sets(Arena& arena, const DenseProblem& problem, DenseState<T>& state) {
  const int64_t dim = problem.dim;
  lay_out_order(arena, problem, state.order);
  lay_out_dense_set(arena, problem.query, dim, state.query);
  if (!problem.symmetric) lay_out_dense_set(arena, problem.ref, dim, state.ref);
  state.frame.centre = arena.take<T>(dim);
  state.stride = blocks_of(problem.ref.n) * kBlock + 32;
  const int64_t anchors = blocks_of(problem.query.n) * kBlock;
  state.irregular_bits = arena.take<uint32_t>(state.stride / 32);
  state.totals = arena.take<RowTotals>(problem.query.n);
  state.pair_weight = arena.take<T>(state.stride);
  state.cotangent = arena.take<T>(anchors + 32);
  const int64_t features = panels_of(dim, kTileCols<T>) * kTileCols<T>;
  for (int side = 0; side < 2; ++side) {
    const bool shared = side == 1 && problem.symmetric;
    const int64_t rows = side == 0 ? anchors : blocks_of(problem.ref.n) * kBlock;
    state.sums[side] = shared ? state.sums[0] : arena.take<double>(rows * features);
    state.weight[side] = shared ? state.weight[0] : arena.take<double>(rows);
  }
}

template <class T>
inline void lay_out_dense(Arena& arena, const DenseProblem& problem, DenseState<T>& state) {
  lay_out_sets(arena, problem, state);
  lay_out_scratch(arena, problem, state);
  if (problem.labels.relation != Relation::multi_hot) return;
  state.n_words = (problem.labels.n_classes + 63) / 64;
  state.words[0] = arena.take<uint64_t>(problem.query.n * state.n_words);
  state.words[1] =
      problem.symmetric ? state.words[0] : arena.take<uint64_t>(problem.ref.n * state.n_words);
}

template <class T>
FM_INLINE void point_at_dense_rows(const Rows& rows, const int32_t* order, int32_t n,
                                   DenseSet<T>& set) {
  set.rows = view_of<T>(rows, set.norm);
  set.order = order;
  set.n = n;
}

template <class T>
inline void prepare_dense(KeyForm key, const DenseProblem& problem, bool segmented,
                          DenseState<T>& state) {
  build_order(problem, state.order);
  DenseSet<T>& query = state.query;
  DenseSet<T>& ref = problem.symmetric ? state.query : state.ref;
  point_at_dense_rows(problem.query, state.order.query, state.order.n_query, query);
  if (!problem.symmetric) {
    point_at_dense_rows(problem.ref, state.order.ref, state.order.n_ref, ref);
    measure_rows(key, ref, problem.dim, state.threads);
  }
  parallel_ranges(state.threads, problem.query.n, 64, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {  // also of ignored rows: the statistics count them
      measure_row(key, query.rows, i, problem.dim);
    }
  });
  choose_frame(key, query, ref, problem.dim, false, state.frame);
  const int64_t query_blocks = blocks_of(query.n);
  const int64_t ref_blocks = problem.symmetric ? 0 : blocks_of(ref.n);
  parallel_tasks(state.threads, query_blocks + ref_blocks, [&](int64_t b, int) {
    const bool own = b < query_blocks;
    pack_dense_block(key, state.frame, problem.dim, own ? b : b - query_blocks, segmented,
                     own ? query : ref);
  });
  state.most_slack = 0;
  for (int64_t word = 0; word < state.stride / 32; ++word) state.irregular_bits[word] = 0;
  for (int32_t j = 0; j < ref.n; ++j) {
    state.most_slack = ref.slack[j] > state.most_slack ? ref.slack[j] : state.most_slack;
    const uint32_t irregular = state.frame.regular(ref.norm[ref.order[j]]) ? 0 : 1;
    state.irregular_bits[j / 32] |= irregular << (j % 32);
  }
}

// Weights and cotangents in sorted order, empty sums.
template <class T>
inline void prepare_factors(const DenseProblem& problem, DenseState<T>& state) {
  const auto* cotangent = static_cast<const T*>(problem.cotangent);
  for (int64_t j = 0; j < state.stride; ++j) {
    const bool weighted = problem.symmetric && problem.weights != nullptr && j < state.query.n;
    state.pair_weight[j] = weighted ? static_cast<T>(problem.weights[state.order.query[j]]) : T(1);
  }
  for (int32_t i = 0; i < state.query.n; ++i) {
    state.cotangent[i] =
        cotangent == nullptr ? T(1) : cotangent[state.order.query[i] * problem.cotangent_stride];
  }
  const int64_t features = panels_of(problem.dim, kTileCols<T>) * kTileCols<T>;
  for (int side = 0; side < (problem.symmetric ? 1 : 2); ++side) {
    const int64_t rows = side == 0 ? state.query.padded() : state.ref.padded();
    parallel_ranges(state.threads, rows, kBlock, [&](int64_t begin, int64_t end, int) {
      for (int64_t k = begin * features; k < end * features; ++k) state.sums[side][k] = 0;
      for (int64_t row = begin; row < end; ++row) state.weight[side][row] = 0;
    });
  }
}

// The relation of a problem, its multi-hot labels packed.
template <class T>
inline AnyRelation relation_of(const DenseProblem& problem, const DenseState<T>& state) {
  const Labels& labels = problem.labels;
  const Order& order = state.order;
  if (labels.relation == Relation::multi_hot) {
    const auto* hot = static_cast<const uint8_t*>(labels.query);
    pack_labels(hot, labels.n_classes, order.query, order.n_query, state.n_words, state.words[0]);
    if (!problem.symmetric) {
      pack_labels(static_cast<const uint8_t*>(labels.ref), labels.n_classes, order.ref, order.n_ref,
                  state.n_words, state.words[1]);
    }
  }
  return {labels.relation,
          {order},
          {order, state.words[0], state.words[1], state.n_words},
          {order, static_cast<const uint8_t*>(labels.query), problem.ref.n}};
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
