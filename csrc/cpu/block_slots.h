// SPDX-License-Identifier: BSD-3-Clause
// What one pair of blocks leaves behind for its gradients: coefficients c_ij, as a full square or,
// when most are zero, as lists by row and by column; and apart from them those of near pairs, whose
// gradient is taken by difference.
#pragma once

#include "../arena.h"
#include "dense_gradient.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

constexpr int kMostPositives = 16;  // of an anchor; a batch with larger classes goes row by row
constexpr int64_t kSquare = int64_t{kBlock} * kBlock;

// A listed term costs about 4 times one of a full square, and both lists are made.
constexpr int64_t kListCapacity = kSquare / 8;
// Beyond, most of the time goes into float64 keys, and the rows do that as well.
constexpr int64_t kNearCapacity = kSquare / 16;

// Of the pair (row of block I, row of block J), as places in their blocks.
template <class T>
struct BlockPair {
  int16_t place[2];
  T c;
};

template <class T>
struct ListedTerm {
  T c;
  int32_t place;  // of the other row in its block
};

// Sides: 0 = the rows of block I, 1 = those of block J, the columns.
template <class T>
struct BlockSlot {
  T* c;                // [kBlock][kBlock]; also the memory of the lists
  BlockPair<T>* near;  // [kNearCapacity]
  uint8_t* count;      // [2][kMostPositives][kBlock] triplets of each positive of each row
  int32_t n_near;      // more than kNearCapacity: given up
  bool listed;
  double term, active, live;  // RowTotals of both directions
  double sum_an, min_an;

  FM_INLINE ListedTerm<T>* terms(int side) const {
    return reinterpret_cast<ListedTerm<T>*>(c) + side * kListCapacity;
  }
  // [kBlock + 1] where the list of each row begins.
  FM_INLINE uint16_t* starts(int side) const {
    return reinterpret_cast<uint16_t*>(terms(2)) + side * (kBlock + 1);
  }
};
static_assert(2 * kListCapacity * sizeof(ListedTerm<float>) + 4 * (kBlock + 1) <=
              kSquare * sizeof(float));
static_assert(kBlock <= 255);  // counts of a block fit into uint8_t

template <class T>
FM_INLINE uint32_t nonzero_bits(Vec<T> c) {
  constexpr uint32_t all = static_cast<uint32_t>((uint64_t{1} << kWidth<T>)-1);
  return ~(le_bits(c, Vec<T>{}) & le_bits(Vec<T>{}, c)) & all;
}

template <class T>
FM_NOINLINE void store_lists(const T* c, BlockSlot<T>& slot) {
  uint16_t next[kBlock + 1] = {};
  int32_t n = 0;
  for (int row = 0; row < kBlock; ++row) {
    slot.starts(0)[row] = static_cast<uint16_t>(n);
    for (int group = 0; group < kBlock; group += kWidth<T>) {
      uint32_t bits = nonzero_bits<T>(load(c + row * kBlock + group));
      for (; bits != 0; bits &= bits - 1) {
        const int col = group + __builtin_ctz(bits);
        slot.terms(0)[n++] = {c[row * kBlock + col], col};
        ++next[col + 1];
      }
    }
  }
  slot.starts(0)[kBlock] = static_cast<uint16_t>(n);
  for (int col = 0; col < kBlock; ++col) next[col + 1] += next[col];
  for (int col = 0; col <= kBlock; ++col) slot.starts(1)[col] = next[col];
  for (int row = 0; row < kBlock; ++row) {
    for (int k = slot.starts(0)[row]; k < slot.starts(0)[row + 1]; ++k) {
      const ListedTerm<T>& term = slot.terms(0)[k];
      slot.terms(1)[next[term.place]++] = {term.c, row};
    }
  }
}

// Takes the near pairs out of the square, and makes lists of it where they are shorter.
template <class T>
FM_NOINLINE void settle_square(BlockSlot<T>& slot, T* spare /*[kBlock][kBlock]*/) {
  int32_t kept = 0;
  for (int32_t k = 0; k < slot.n_near; ++k) {
    BlockPair<T> pair = slot.near[k];
    T& at = slot.c[pair.place[0] * kBlock + pair.place[1]];
    pair.c = at;
    at = 0;
    if (pair.c != 0) slot.near[kept++] = pair;
  }
  slot.n_near = kept;
  int64_t filled = 0;
  for (int64_t at = 0; at < kSquare; at += kWidth<T>) {
    filled += __builtin_popcount(nonzero_bits<T>(load(slot.c + at)));
  }
  slot.listed = filled <= kListCapacity;
  if (!slot.listed) return;
  std::memcpy(spare, slot.c, sizeof(T) * kSquare);  // the lists take its place
  store_lists(spare, slot);
}

// The pairs of blocks, in rounds: in round t every block I meets J = I + t mod blocks, so that each
// unordered pair comes once and the partners of a block come in one order.
struct Rounds {
  int64_t blocks;

  FM_INLINE int64_t count() const { return blocks / 2 + 1; }
  // In the last round of an even number every pair would come twice.
  FM_INLINE bool has(int64_t t, int64_t i) const { return 2 * t != blocks || i < blocks / 2; }
  FM_INLINE int64_t partner(int64_t t, int64_t i) const { return (i + t) % blocks; }
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
