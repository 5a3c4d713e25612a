// SPDX-License-Identifier: BSD-3-Clause
// Gradients of dense losses: sums over the coefficients of a chunk, and what becomes of them.
#include "dense_gradient.cuh"
#include "dense_stages.h"
#include "dense_weigh.cuh"

namespace flashmetric::cuda {
namespace {

// Blocks that keep a multiprocessor busy: two at a time, two times.
constexpr int64_t kBlocksEach = 4;
// Terms that are worth a split.
constexpr int64_t kLeastTerms = 2 * kSegment;

int64_t tiles_of(int64_t length) { return (length + kTile - 1) / kTile; }

// Where they are seldom asked for one: sums of several are a kernel more.
int splits_for(const DenseState& state, int64_t rows, int64_t terms, int multiprocessors) {
  if (state.seldom) return 1;
  const int64_t wanted = kBlocksEach * multiprocessors / (tiles_of(rows) * tiles_of(state.dim));
  const int64_t most = terms / kLeastTerms;
  const int64_t splits = wanted < most ? wanted : most;
  return static_cast<int>(splits > 1 ? splits : 1);
}

void launch_weigh(const DenseState& state, const Weighed& weighed, cudaStream_t stream,
                  Launches& launches) {
  const dim3 grid(few_blocks(state, tiles_of(weighed.rows) * tiles_of(state.dim)),
                  static_cast<unsigned>(weighed.splits));
  start(launches, "weigh_rows", weighed.side == 0 ? weigh_rows<false> : weigh_rows<true>, grid,
        kTileThreads, 0, stream, state, weighed);
  if (weighed.splits == 1) return;
  const unsigned blocks = blocks_for(weighed.rows * (state.dim + 1), kTileThreads);
  start(launches, "add_partial", add_partial, blocks, kTileThreads, 0, stream, state, weighed);
}

template <class T, class H>
void launch_pairs(const DenseState& state, int side, Chunk chunk, cudaStream_t stream,
                  Launches& launches) {
  const RowView<T> x = view_as<T>(state.query);
  const RowView<T> r = view_as<T>(state.ref);
  with_value<Steps::difference, Steps::product, Steps::any>(steps_of(state.key), [&](auto steps) {
    const int64_t parts =
        side == 0 ? blocks_for(chunk.rows, kPairWarps) : blocks_for(r.n, kPairWarps * kPairColumns);
    start(launches, "add_pairs",
          side == 0 ? pairs_of_rows<T, H, steps.value> : pairs_of_columns<T, H, steps.value>,
          few_blocks(state, parts), kPairThreads, 0, stream, state, x, r, chunk);
  });
}

void launch_side(const DenseState& state, int side, Chunk chunk, int multiprocessors,
                 cudaStream_t stream, Launches& launches) {
  if (!launches.fine()) return;
  if (state.packed) {
    const int64_t rows = side == 0 ? chunk.rows : state.ref.n;
    const int64_t terms = side == 0 ? state.ref.n : chunk.rows;
    const int splits = splits_for(state, rows, terms, multiprocessors);
    launch_weigh(state, {chunk, rows, terms, side, splits, state.wide ? 2 : 1}, stream, launches);
  }
  if (!state.wide) {
    launch_pairs<float, float>(state, side, chunk, stream, launches);
  } else {
    with_wide(state.query.dtype, [&](auto type) {
      launch_pairs<decltype(type), double>(state, side, chunk, stream, launches);
    });
  }
}

}  // namespace

int64_t partial_rows(const DenseState& state, int multiprocessors) {
  if (state.seldom) return 0;
  const auto rows_of = [&](int64_t rows, int64_t terms) {
    // splits * rows of any chunk that is shorter, too.
    const int64_t most = kBlocksEach * multiprocessors * kTile / tiles_of(state.dim) + rows;
    const int64_t splits = terms / kLeastTerms > 1 ? terms / kLeastTerms : 1;
    return splits * rows < most ? splits * rows : most;
  };
  const int64_t of_queries = rows_of(state.chunk, state.ref.n);
  const int64_t of_references = rows_of(state.ref.n, state.chunk);
  return of_queries > of_references ? of_queries : of_references;
}

void launch_sums(const DenseState& state, bool queries, bool references, Chunk chunk,
                 int multiprocessors, cudaStream_t stream, Launches& launches) {
  if (queries) launch_side(state, 0, chunk, multiprocessors, stream, launches);
  if (references) launch_side(state, 1, chunk, multiprocessors, stream, launches);
}

void launch_writes(const DenseState& state, cudaStream_t stream, Launches& launches) {
  for (int side = 0; side < 2 && launches.fine(); ++side) {
    const AnyRows& rows = side == 0 ? state.query : state.ref;
    if (state.grad[side] == nullptr || rows.n == 0 || state.dim == 0) continue;
    with_wide(rows.dtype, [&](auto type) {
      using T = decltype(type);
      const RowView<T> view = view_as<T>(rows);
      const unsigned blocks = few_blocks(state, blocks_for(rows.n, kPairWarps));
      start(launches, "write_gradients", write_gradients<T>, blocks, kPairThreads, 0, stream, state,
            view, side);
    });
  }
}

}  // namespace flashmetric::cuda
