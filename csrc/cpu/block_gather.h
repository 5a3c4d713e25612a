// SPDX-License-Identifier: BSD-3-Clause
// Adds up what the squares of a few rounds hold for the rows of one block: P_i += sum_j c_ij y_j,
// S_i += sum_j c_ij (dense.h), counts and terms.
#pragma once

#include "block_rules.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

constexpr int kGatherRows = kBlock / 2;  // twice the tasks: few blocks share out more evenly

template <class T>
struct GatherScratch {
  T* square;        // [kBlock][kBlock]
  T* list_weight;   // [padded]
  int32_t* listed;  // [padded]
  double* buffer;   // [dim]
};

template <class T, Curve curve>
struct BlockGather {
  const BlockProblem<T, curve>& base;
  Rounds rounds;
  bool with_gradient;
  static constexpr int cols = kTileCols<T>;
  static constexpr int width = kWidth<T>;

  // Rows first .. first + kGatherRows - 1 of `block`, for rounds begin .. end - 1.
  FM_NOINLINE void add(int64_t begin, int64_t end, int64_t block, int first,
                       const GatherScratch<T>& scratch) const {
    bool lists = false;
    each_slot(begin, end, block, [&](const BlockSlot<T>& slot, int side, int64_t other) {
      if (side == 0 && first == 0) add_terms(slot, block);
      add_counts(slot, side, block, first);
      if (!with_gradient) return;
      add_near(slot, side, block, first, other);
      lists = lists || slot.listed;
      if (!slot.listed) add_square(slot, side, block, first, other);
    });
    for (int row = first; row < first + kGatherRows && lists; ++row) {
      add_lists(begin, end, block, row, scratch);
    }
  }

 private:
  // The partners of a block, always in this order.
  template <class Visit>
  FM_INLINE void each_slot(int64_t begin, int64_t end, int64_t block, const Visit& visit) const {
    const int64_t blocks = rounds.blocks;
    for (int64_t t = begin; t < end; ++t) {
      const BlockSlot<T>* slots = base.blocks.slots + (t - begin) * blocks;
      if (rounds.has(t, block)) visit(slots[block], 0, rounds.partner(t, block));
      const int64_t before = (block - t + blocks) % blocks;
      if (t != 0 && rounds.has(t, before)) visit(slots[before], 1, before);
    }
  }

  // A square's terms are those of many anchors; they count as those of its first.
  FM_INLINE void add_terms(const BlockSlot<T>& slot, int64_t block) const {
    RowTotals& totals = base.state.totals[block * kBlock];
    totals.term[1] += slot.term;
    totals.active[1] += slot.active;
    totals.live += slot.live;
    totals.sum_an += slot.sum_an;
    totals.min_an = slot.min_an < totals.min_an ? slot.min_an : totals.min_an;
  }

  FM_INLINE void add_counts(const BlockSlot<T>& slot, int side, int64_t block, int first) const {
    for (int p = 0; p < base.blocks.most && slot.count != nullptr; ++p) {
      int32_t* to = base.blocks.count + p * base.blocks.padded + block * kBlock + first;
      const uint8_t* from = slot.count + (side * kMostPositives + p) * kBlock + first;
      for (int row = 0; row < kGatherRows; ++row) to[row] += from[row];
    }
  }

  FM_INLINE void add_near(const BlockSlot<T>& slot, int side, int64_t block, int first,
                          int64_t other) const {
    const DenseGradient<T> gradient{base.problem, base.state, base.key};
    for (int32_t k = 0; k < slot.n_near; ++k) {
      const BlockPair<T>& pair = slot.near[k];
      const int row = pair.place[side];
      if (row < first || row >= first + kGatherRows) continue;
      gradient.add_pair(0, block * kBlock + row, other * kBlock + pair.place[1 - side],
                        static_cast<double>(pair.c));
    }
  }

  FM_INLINE void add_square(const BlockSlot<T>& slot, int side, int64_t block, int first,
                            int64_t other) const {
    const DenseSet<T>& terms = base.state.query;
    const int64_t panels = panels_of(base.problem.dim, cols);
    const int64_t row_step = side == 0 ? kBlock : 1;
    const int64_t term_step = side == 0 ? 1 : kBlock;
    for (int64_t panel = 0; panel < panels; ++panel) {
      const T* from = terms.panel + (panel * terms.padded() + other * kBlock) * cols;
      for (int row = first; row < first + kGatherRows; row += kTileRows) {
        double* to = base.state.sums[0] + (block * kBlock + row) * panels * cols + panel * cols;
        add_short_tile<T>({slot.c + row * row_step, row_step, term_step}, from, kBlock, to,
                          panels * cols);
      }
    }
    for (int row = first; row < first + kGatherRows; row += width) {
      const Vec<T> sums = side == 0 ? row_sums(slot.c + row * kBlock) : column_sums(slot.c + row);
      double* to = base.state.weight[0] + block * kBlock + row;
      for (int lane = 0; lane < width; ++lane) to[lane] += static_cast<double>(sums[lane]);
    }
  }

  static FM_INLINE Vec<T> row_sums(const T* c) {
    Vec<T> part[width] = {};
    for (int row = 0; row < width; ++row) {
      for (int col = 0; col < kBlock; col += width) part[row] += load(c + row * kBlock + col);
    }
    transpose<T>(part);
    return sum_vectors(part);
  }

  static FM_INLINE Vec<T> column_sums(const T* c) {
    Vec<T> part[width] = {};  // short chains of additions round less
    for (int row = 0; row < kBlock; ++row) part[row % width] += load(c + row * kBlock);
    return sum_vectors(part);
  }

  static FM_INLINE Vec<T> sum_vectors(Vec<T> (&part)[width]) {
    for (int step = 1; step < width; step *= 2) {
      for (int v = 0; v < width; v += 2 * step) part[v] += part[v + step];
    }
    return part[0];
  }

  // One row against all the squares that are lists.
  FM_INLINE void add_lists(int64_t begin, int64_t end, int64_t block, int row,
                           const GatherScratch<T>& scratch) const {
    const DenseSet<T>& terms = base.state.query;
    int64_t count = 0;
    double weight = 0;
    each_slot(begin, end, block, [&](const BlockSlot<T>& slot, int side, int64_t other) {
      if (!slot.listed) return;
      const uint16_t* starts = slot.starts(side);
      for (int k = starts[row]; k < starts[row + 1]; ++k) {
        const ListedTerm<T>& term = slot.terms(side)[k];
        scratch.listed[count] = static_cast<int32_t>(other * kBlock) + term.place;
        scratch.list_weight[count++] = term.c;
        weight += static_cast<double>(term.c);
      }
    });
    if (count == 0) return;
    const int64_t panels = panels_of(base.problem.dim, cols);
    const int64_t i = block * kBlock + row;
    base.state.weight[0][i] += weight;
    for (int64_t panel = 0; panel < panels; ++panel) {
      add_weighted_list<T>(scratch.list_weight, scratch.listed, count,
                           terms.panel + panel * terms.padded() * cols,
                           base.state.sums[0] + (i * panels + panel) * cols);
    }
  }
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
