// SPDX-License-Identifier: BSD-3-Clause
// The rows of a dense loss, packed twice: in blocks [dim][kBlock] for the inner products, and in
// panels [n][kTileCols] of features for the weighted sums. Computes rows of half squared distances
//   h_ij = half_i + half_j - <y_i, y_j>          (product keys: half the negative product, scaled)
// in the frame of prepare.h, and says how far they may be from the truth.
#pragma once

#include "prepare.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

template <class T>
struct DenseSet {
  RowView<T> rows{};
  double* norm = nullptr;          // [rows]
  const int32_t* order = nullptr;  // [n] sorted position -> original row
  int32_t n = 0;
  T* packed = nullptr;  // [blocks][dim][kBlock]
  T* panel = nullptr;   // [panels][blocks * kBlock][kTileCols]
  T* half = nullptr;    // [blocks * kBlock]
  T* slack = nullptr;   // [blocks * kBlock]

  FM_INLINE int64_t padded() const { return blocks_of(n) * kBlock; }
};

FM_INLINE int64_t panels_of(int64_t dim, int cols) { return (dim + cols - 1) / cols; }

template <class T>
FM_INLINE void lay_out_dense_set(Arena& arena, const Rows& rows, int64_t dim, DenseSet<T>& set) {
  const int64_t padded = blocks_of(rows.n) * kBlock;
  set.norm = arena.take<double>(rows.n);
  set.packed = arena.take<T>(padded * dim);
  set.panel = arena.take<T>(padded * panels_of(dim, kTileCols<T>) * kTileCols<T>);
  set.half = arena.take<T>(padded);
  set.slack = arena.take<T>(padded);
}

// Features of kWidth packed rows, back next to each other.
template <class T>
inline void copy_to_panels(const DenseSet<T>& set, int64_t dim, int64_t block, int group) {
  constexpr int width = kWidth<T>;
  constexpr int cols = kTileCols<T>;
  const T* from = set.packed + block * dim * kBlock + group;
  for (int64_t k = 0; k < panels_of(dim, cols) * cols; k += width) {
    Vec<T> y[width];
    for (int f = 0; f < width; ++f) {
      y[f] = k + f < dim ? load(from + (k + f) * kBlock) : Vec<T>{};
    }
    transpose<T>(y);
    T* to = set.panel + (k / cols * set.padded() + block * kBlock + group) * cols + k % cols;
    for (int r = 0; r < width; ++r) store(to + r * cols, y[r]);
  }
}

template <class T>
inline void pack_dense_block(KeyForm key, const Frame<T>& frame, int64_t dim, int64_t block,
                             const DenseSet<T>& set) {
  constexpr int width = kWidth<T>;
  const RowMap<T> map{frame.centre, frame.unit, key.needs_norms()};
  const auto unit = static_cast<double>(frame.unit);
  for (int group = 0; group < kBlock; group += width) {
    PackedRow<T> row[width];
    for (int r = 0; r < width; ++r) {
      const int64_t p = block * kBlock + group + r;
      const bool regular = p < set.n && frame.regular(set.norm[set.order[p]]);
      row[r].from = regular ? set.rows.row(set.order[p]) : nullptr;
      row[r].scale = regular && key.needs_norms()
                         ? static_cast<T>(1.0 / set.rows.clamped_norm(set.order[p]))
                         : T(1);
    }
    pack_rows<T>(row, map, dim, set.packed + block * dim * kBlock + group);
    copy_to_panels(set, dim, block, group);
    for (int r = 0; r < width; ++r) {
      const int64_t at = block * kBlock + group + r;
      set.slack[at] = set.half[at] = 0;
      if (row[r].from == nullptr) continue;
      const double full = set.norm[set.order[at]] * static_cast<double>(row[r].scale) * unit;
      const RowLengths lengths{square_root(static_cast<double>(row[r].square)), full,
                               frame.centre_norm, unit};
      set.slack[at] = row_slack<T>(key, lengths, static_cast<double>(dim));
      const auto centre = static_cast<T>(frame.centre_norm * frame.centre_norm / 2);
      set.half[at] = key.form == Form::difference ? row[r].square / 2 : -row[r].along - centre;
    }
  }
}

// From half squared distances in the frame to distances, and back; the slope of a distance is
//   d distance / d x = slope * (x - r)   or   slope * r.
template <class T, class Distance>
struct Scale {
  double unit;
  static constexpr bool rooted = Distance::name == "euclidean";
  static constexpr bool difference = Distance::form == Form::difference;

  FM_INLINE double key(double h) const { return (difference ? 2 * h : h) / unit / unit; }
  FM_INLINE double half(double key) const { return (difference ? key / 2 : key) * unit * unit; }
  // The h at which the distance is `distance`; below any h where no distance is that small.
  FM_INLINE double threshold(double distance) const {
    if (rooted) return distance < 0 ? -__builtin_huge_val() : half(distance * distance);
    return half(Distance::quotient ? distance - 1 : distance);
  }
  FM_INLINE T distance(T h) const {
    return static_cast<T>(Distance::value(key(h < 0 && difference ? T(0) : h)));
  }
  FM_INLINE Vec<T> distances(Vec<T> h) const {
    const auto scale = static_cast<T>((difference ? 2 : 1) / unit / unit);
    if constexpr (!difference) {
      return h * scale + (Distance::quotient ? T(1) : T(0));
    } else {
      const Vec<T> clamped = h > T(0) ? h : (h != h ? h : Vec<T>{});
      if constexpr (rooted) return square_roots(clamped * T(2)) * static_cast<T>(1 / unit);
      return clamped * scale;
    }
  }
  // Of distances as returned above.
  FM_INLINE Vec<T> slopes(Vec<T> distance) const {
    if constexpr (rooted) {
      const Vec<T> one = broadcast(T(1));
      return distance == T(0) ? Vec<T>{} : one / distance + (distance - distance);
    } else {
      return broadcast(static_cast<T>(Distance::slope(1)));
    }
  }
};

// h of `rows` rows from sorted position i on, against all references: [rows][stride].
template <class T>
FM_NOINLINE void fill_rows(const DenseSet<T>& query, const DenseSet<T>& ref, int64_t dim, int64_t i,
                           int rows, T* h, int64_t stride) {
  const T* a = query.packed + i / kBlock * dim * kBlock + i % kBlock;
  for (int64_t j = 0; j < ref.padded(); j += kTileCols<T>) {
    const T* b = ref.packed + j / kBlock * dim * kBlock + j % kBlock;
    Vec<T> half[kTileVecs];
    for (int v = 0; v < kTileVecs; ++v) half[v] = load(ref.half + j + v * kWidth<T>);
    for (int r = 0; r < rows; r += kTileRows) {
      TileSums<T> sums;
      multiply_tile<T, Form::product>(a + r, b, dim, sums);
      for (int t = 0; t < kTileRows; ++t) {
        const T own = query.half[i + r + t];
        for (int v = 0; v < kTileVecs; ++v) {
          store(h + (r + t) * stride + j + v * kWidth<T>, (half[v] + own) - sums[t][v]);
        }
      }
    }
  }
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
