// SPDX-License-Identifier: BSD-3-Clause
// Who is a positive of whom, asked for a register tile at a time. Three relations, one contract:
//   kind(i, i_end, j, j_end)  all-negative, all-positive or mixed; only mixed tiles need masks
//   bits(i, j, width)         the positives and negatives of row i among columns j .. j + width - 1
//   role(i, j)                the same for one pair
// Rows and columns are sorted positions (order.h). The row itself is neither positive nor negative.
#pragma once

#include "order.h"
#include "simd.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

enum Role : int { kPositive = 0, kNegative = 1, kNeither = 2 };
enum class TileKind { all_positive = kPositive, all_negative = kNegative, mixed };

struct RoleBits {
  uint32_t role[2];  // by Role; bit c = column j + c
};

// Bits begin .. end - 1, for positions relative to column j of a tile of `width` columns.
FM_INLINE uint32_t bit_range(int32_t begin, int32_t end, int32_t width) {
  const auto below = [width](int32_t position) {
    const int32_t bits = position < 0 ? 0 : position > width ? width : position;
    return static_cast<uint32_t>((uint64_t{1} << bits) - 1);
  };
  return below(end) & ~below(begin);
}

FM_INLINE RoleBits split_roles(const Order& order, uint32_t same, int32_t i, int32_t j,
                               int32_t width) {
  const int32_t self = order.self[i] - j;
  const uint32_t candidates =
      bit_range(0, order.n_ref - j, width) & ~bit_range(self, self + 1, width);
  return {{same & candidates, ~same & candidates}};
}

// Labels are class ids: the positives of a row are one run of columns.
struct SameClass {
  const Order& order;

  FM_INLINE TileKind kind(int32_t i, int32_t i_end, int32_t j, int32_t j_end) const {
    const int32_t last = i_end - 1;
    for (int32_t row = i; row < i_end; ++row) {
      if (order.self[row] >= j && order.self[row] < j_end) return TileKind::mixed;
    }
    // Runs ascend with the rows, so the first and the last row bound those between.
    if (order.run_begin[i] >= j_end || order.run_end[last] <= j) return TileKind::all_negative;
    if (order.run_begin[last] <= j && order.run_end[i] >= j_end) return TileKind::all_positive;
    return TileKind::mixed;
  }
  FM_INLINE RoleBits bits(int32_t i, int32_t j, int32_t width) const {
    return split_roles(order, bit_range(order.run_begin[i] - j, order.run_end[i] - j, width), i, j,
                       width);
  }
  FM_INLINE Role role(int32_t i, int32_t j) const {
    if (order.self[i] == j) return kNeither;
    return j >= order.run_begin[i] && j < order.run_end[i] ? kPositive : kNegative;
  }
};

// The positives are two runs of columns: the second one is anywhere.
struct SameAsEither {
  const Order& order;

  FM_INLINE TileKind kind(int32_t i, int32_t i_end, int32_t j, int32_t j_end) const {
    for (int32_t row = i; row < i_end; ++row) {
      const bool first = order.run_begin[row] < j_end && order.run_end[row] > j;
      const bool second = order.other_begin[row] < j_end && order.other_end[row] > j;
      const bool self = order.self[row] >= j && order.self[row] < j_end;
      if (first || second || self) return TileKind::mixed;
    }
    return TileKind::all_negative;
  }
  FM_INLINE RoleBits bits(int32_t i, int32_t j, int32_t width) const {
    const uint32_t first = bit_range(order.run_begin[i] - j, order.run_end[i] - j, width);
    const uint32_t second = bit_range(order.other_begin[i] - j, order.other_end[i] - j, width);
    return split_roles(order, first | second, i, j, width);
  }
  FM_INLINE Role role(int32_t i, int32_t j) const {
    if (order.self[i] == j) return kNeither;
    const bool first = j >= order.run_begin[i] && j < order.run_end[i];
    return first || (j >= order.other_begin[i] && j < order.other_end[i]) ? kPositive : kNegative;
  }
};

// Relations without runs: every tile is mixed, `same(i, j)` decides pair by pair.
template <class Same>
struct PairwiseRelation {
  FM_INLINE TileKind kind(int32_t, int32_t, int32_t, int32_t) const { return TileKind::mixed; }
  FM_INLINE RoleBits bits(int32_t i, int32_t j, int32_t width) const {
    const Order& order = self().order;
    uint32_t same = 0;
    const int32_t valid = order.n_ref - j < width ? order.n_ref - j : width;
    for (int32_t c = 0; c < valid; ++c) {
      same |= static_cast<uint32_t>(self().same(i, j + c)) << c;
    }
    return split_roles(order, same, i, j, width);
  }
  FM_INLINE Role role(int32_t i, int32_t j) const {
    if (self().order.self[i] == j) return kNeither;
    return self().same(i, j) ? kPositive : kNegative;
  }

 private:
  FM_INLINE const Same& self() const { return static_cast<const Same&>(*this); }
};

// Multi-hot labels packed to bits: same = share at least one.
struct ShareLabel : PairwiseRelation<ShareLabel> {
  const Order& order;
  const uint64_t* query;  // [n_query][words]
  const uint64_t* ref;    // [n_ref][words]
  int64_t words;

  ShareLabel(const Order& o, const uint64_t* q, const uint64_t* r, int64_t w)
      : order(o), query(q), ref(r), words(w) {}

  FM_INLINE bool same(int32_t i, int32_t j) const {
    const uint64_t* a = query + i * words;
    const uint64_t* b = ref + j * words;
    uint64_t shared = 0;
    for (int64_t w = 0; w < words; ++w) shared |= a[w] & b[w];
    return shared != 0;
  }
};

// The caller's own matrix of who is the same; it need not be symmetric.
struct SameMask : PairwiseRelation<SameMask> {
  const Order& order;
  const uint8_t* mask;  // [queries][row_length], original rows and columns
  int64_t row_length;

  SameMask(const Order& o, const uint8_t* m, int64_t length)
      : order(o), mask(m), row_length(length) {}

  FM_INLINE bool same(int32_t i, int32_t j) const {
    return mask[order.query[i] * row_length + order.ref[j]] != 0;
  }
};

// Any of them, for loops that ask for a whole row at a time: there the choice costs nothing.
struct AnyRelation {
  Relation which;
  SameClass classes;
  ShareLabel multi_hot;
  SameMask mask;

  FM_INLINE RoleBits bits(int32_t i, int32_t j, int32_t width) const {
    if (which == Relation::classes) return classes.bits(i, j, width);
    return which == Relation::multi_hot ? multi_hot.bits(i, j, width) : mask.bits(i, j, width);
  }
  FM_INLINE bool symmetric() const { return which != Relation::mask; }
};

// Packs the 0/1 bytes of the rows of `order` to bits.
inline void pack_labels(const uint8_t* hot,  // [rows][n_classes]
                        int64_t n_classes, const int32_t* order, int32_t n, int64_t words,
                        uint64_t* packed) {  // [n][words]
  for (int32_t i = 0; i < n; ++i) {
    const uint8_t* from = hot + order[i] * n_classes;
    uint64_t* to = packed + i * words;
    for (int64_t w = 0; w < words; ++w) to[w] = 0;
    for (int64_t c = 0; c < n_classes; ++c) to[c / 64] |= uint64_t{from[c] != 0} << (c % 64);
  }
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
