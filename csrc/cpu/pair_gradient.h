// SPDX-License-Identifier: BSD-3-Clause
// Computes the gradient of sets of rows from lists of pairs, each with the coefficient
// d loss / d distance * slope of the distance.
//
// Algorithm: for each set of rows: list the pairs that touch each row (counting sort, serial), then
// for each row: add up its pairs in the order of that list (parallel).
//
// Why so: a row's gradient is gathered by the one thread that owns the row: no atomics, no private
// copies, and the same additions in the same order for any number of threads.
#pragma once

#include "../arena.h"
#include "gradient_row.h"
#include "parallel.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// Pairs of one kind: for t < n, row index[0][t] of role[0] with row index[1][t] of role[1].
struct PairFamily {
  int role[2];
  const int64_t* index[2];    // [n], null = t
  const double* coefficient;  // [n], 0 = no pair

  FM_INLINE int64_t row(int side, int64_t t) const {
    return index[side] == nullptr ? t : index[side][t];
  }
};

constexpr int kMaxFamilies = 3;

// One side of a pair, in the list of the row that is there.
struct Touch {
  int64_t code;  // t, family and side: 0 = the row is the query of its pair

  static FM_INLINE Touch of(int64_t t, int family, int side) {
    return {(t * 4 + family) * 2 + side};
  }
  FM_INLINE int side() const { return static_cast<int>(code & 1); }
  FM_INLINE int family() const { return static_cast<int>(code >> 1 & 3); }
  FM_INLINE int64_t pair() const { return code >> 3; }
};
static_assert(kMaxFamilies <= 4);

// What a feature of a pair costs, in multiply-adds of a tile: its float64 key and the gradients of
// both rows took 1.1 ns where a tile does 50 a ns.
constexpr double kPairWork = 55;

struct PairScratch {
  int64_t* offset = nullptr;  // [most rows + 2] where the list of a row begins
  Touch* touch = nullptr;     // [2 * families * n]
  double* buffer = nullptr;   // [threads][dim]
};

FM_INLINE PairScratch lay_out_pairs(Arena& arena, int64_t most_rows, int families, int64_t n,
                                    int64_t dim, int threads) {
  PairScratch scratch;
  scratch.offset = arena.take<int64_t>(most_rows + 2);
  scratch.touch = arena.take<Touch>(2 * families * n);
  scratch.buffer = arena.take<double>((threads > 1 ? threads : 1) * dim);
  return scratch;
}

template <class T>
struct PairGradient {
  const RowView<T>* rows;  // by role
  const int* set;          // of each role: roles may share a set of rows, named by the first
  int roles;
  PairFamily family[kMaxFamilies];
  int families;
  int64_t n;
  int64_t dim;
  KeyForm key;
  PairScratch scratch;
  double scale;  // common to all coefficients
  int threads;

  inline void gather(int of_set, int64_t n_rows, T* out) const {
    list_touches(of_set, n_rows);
    parallel_ranges(threads, n_rows, 32, [&](int64_t begin, int64_t end, int thread) {
      GradientRow<T> gradient(key, dim, scratch.buffer + thread * dim);
      for (int64_t i = begin; i < end; ++i) {
        gradient.start(rows[of_set], i);
        for (int64_t at = scratch.offset[i]; at < scratch.offset[i + 1]; ++at) {
          const Touch touch = scratch.touch[at];
          const PairFamily& pairs = family[touch.family()];
          const int other = 1 - touch.side();
          const int64_t t = touch.pair();
          gradient.add(rows[pairs.role[other]], pairs.row(other, t), pairs.coefficient[t] * scale,
                       other == 1);
        }
        gradient.finish(out + i * dim, false);
      }
    });
  }

 private:
  // Role by role, and within a role the kinds of pairs take turns: the attraction and the repulsion
  // of one anchor nearly cancel, so partial sums stay small, and so do their roundings.
  template <class Visit>
  FM_INLINE void each_touch(int of_set, const Visit& visit) const {
    for (int role = 0; role < roles; ++role) {
      if (set[role] != of_set) continue;
      int side[kMaxFamilies];
      for (int f = 0; f < families; ++f) {
        side[f] = family[f].role[0] == role ? 0 : family[f].role[1] == role ? 1 : -1;
      }
      for (int64_t t = 0; t < n; ++t) {
        for (int f = 0; f < families; ++f) {
          if (side[f] >= 0 && family[f].coefficient[t] != 0) {
            visit(family[f].row(side[f], t), Touch::of(t, f, side[f]));
          }
        }
      }
    }
  }

  inline void list_touches(int of_set, int64_t n_rows) const {
    int64_t* offset = scratch.offset;
    for (int64_t i = 0; i < n_rows + 2; ++i) offset[i] = 0;
    each_touch(of_set, [&](int64_t row, Touch) { ++offset[row + 2]; });
    for (int64_t i = 0; i < n_rows; ++i) offset[i + 2] += offset[i + 1];
    each_touch(of_set, [&](int64_t row, Touch touch) { scratch.touch[offset[row + 1]++] = touch; });
  }
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
