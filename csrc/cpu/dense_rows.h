// SPDX-License-Identifier: BSD-3-Clause
// The rows of a dense loss, packed twice: in blocks [dim][kBlock] for the inner products, and in
// panels [n][kTileCols] of features for the weighted sums. Computes rows of half squared distances
//   h_ij = half_i + half_j - <y_i, y_j>          (product keys: half the negative product, scaled)
//   h_ij = the key, in the frame                 (sums over features; overlap: the distance)
// in the frame of prepare.h, and says how far they may be from the truth.
#pragma once

#include "../dense_terms.h"
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
  T* slack = nullptr;   // [blocks * kBlock] h of two rows is off by at most the sum of theirs
  T* total = nullptr;   // [blocks * kBlock] sum of the packed features; overlap only

  FM_INLINE int64_t padded() const { return blocks_of(n) * kBlock; }
};

template <class T>
FM_INLINE Vec<T> near_limits(Vec<T> lengths) {
  return larger<T>(lengths * static_cast<T>(kNear), broadcast(static_cast<T>(kVanishing)));
}

FM_INLINE int64_t panels_of(int64_t dim, int cols) { return (dim + cols - 1) / cols; }

template <class T>
FM_INLINE void lay_out_dense_set(Arena& arena, const Rows& rows, int64_t dim, DenseSet<T>& set) {
  const int64_t padded = blocks_of(rows.n) * kBlock;
  set.norm = take_numbers(arena, rows.n);
  set.packed = arena.take<T>(padded * dim);
  set.panel = arena.take<T>(padded * panels_of(dim, kTileCols<T>) * kTileCols<T>);
  set.half = arena.take<T>(padded);
  set.slack = arena.take<T>(padded);
  set.total = arena.take<T>(padded);
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

// The h of a row with the origin, of what was packed: half its square, or the half of a product.
template <class T>
FM_INLINE T half_of(KeyForm key, const Frame<T>& frame, int64_t dim, const T* y /*[dim][kBlock]*/) {
  const bool difference = key.form == Form::difference;
  double sum = difference ? 0 : frame.centre_norm * frame.centre_norm / 2;
  for (int64_t k = 0; k < dim; ++k) {
    const auto one = static_cast<double>(y[k * kBlock]);
    const double centre = static_cast<double>(frame.centre[k]) * static_cast<double>(frame.unit);
    sum += difference ? one * one / 2 : one * centre;
  }
  return static_cast<T>(difference ? sum : -sum);
}

// `segmented`: for fill_rows; else for tiles that add up all products in one go.
template <class T>
inline void pack_dense_block(KeyForm key, const Frame<T>& frame, int64_t dim, int64_t block,
                             bool segmented, const DenseSet<T>& set) {
  constexpr int width = kWidth<T>;
  const RowMap<T> map{frame.centre, frame.unit, key.needs_norms(), key.relative,
                      key.equally_long()};
  const auto unit = static_cast<double>(frame.unit);
  for (int group = 0; group < kBlock; group += width) {
    PackedRow<T> row[width];
    for (int r = 0; r < width; ++r) {
      row[r] = row_to_pack<T>(key, frame, dim, block * kBlock + group + r, set);
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
      const auto n = static_cast<double>(dim);
      const bool exact_halves = segmented && key.of_products();
      set.slack[at] = exact_halves
                          ? segmented_slack<T>(key, lengths, n, kProducts)
                          : 2 * any_slack<T>(key, lengths, static_cast<double>(set.total[at]), n);
      set.slack[at] *= static_cast<T>(slack_factor);
      if (!key.of_products()) continue;
      if (exact_halves) {
        const T* y = set.packed + block * dim * kBlock + group + r;
        set.half[at] = half_of(key, frame, dim, y);
        continue;
      }
      const auto centre = static_cast<T>(frame.centre_norm * frame.centre_norm / 2);
      set.half[at] = key.form == Form::difference ? row[r].square / 2 : -row[r].along - centre;
    }
  }
}

// From h to distances, and back; the slope of a distance is that of distances.h.
template <class T, Curve curve>
struct Scale {
  // `energy` divides the keys of a relative distance.
  FM_INLINE Scale(KeyForm form, double unit, double energy) : form_(form) {
    switch (form.form) {
      case Form::difference:
        unit_ = 2 / unit / unit / energy;
        break;
      case Form::product:
        unit_ = 1 / unit / unit;
        break;
      case Form::power:
        unit_ = ::pow(unit, -form.power);
        break;
      case Form::overlap:  // h is the distance, which has no unit
        unit_ = 1;
        break;
      default:
        unit_ = 1 / unit;
    }
    root_ = 1 / unit;
    constant_ = form.value(0) - (form.form == Form::overlap ? 1 : 0);
    key_of_zero_ = form.form == Form::overlap ? -1 : 0;
  }

  FM_INLINE double half(double key) const { return (key - key_of_zero_) / unit_; }
  // That of a key, but NaN, which asks for the key again, where T is too coarse for it.
  FM_INLINE T measured(double key) const {
    const double h = half(key);
    const double size = h < 0 ? -h : h;
    return size > 0 && size < Precision<T>::smallest ? static_cast<T>(__builtin_nan(""))
                                                     : static_cast<T>(h);
  }
  // The h at which the distance is `distance`; below any h where no distance is that small.
  FM_INLINE double threshold(double distance) const { return half(form_.key(distance)); }
  FM_INLINE T distance(T h) const {
    const double inside = h < 0 && form_.form != Form::product ? 0 : static_cast<double>(h);
    return static_cast<T>(form_.value(inside * unit_ + key_of_zero_));
  }
  FM_INLINE Vec<T> distances(Vec<T> h) const {
    if (form_.form != Form::product) h = h > T(0) ? h : (h != h ? h : Vec<T>{});
    // Roots of what has no unit: squares and powers of a unit may be out of range.
    const auto root = static_cast<T>(root_);
    if constexpr (curve == Curve::square_root) {
      return square_roots(h * T(2)) * root;
    } else if constexpr (curve == Curve::root) {
      return each(h, [&](double one) { return form_.value(one); }) * root;
    } else {
      return h * static_cast<T>(unit_) + static_cast<T>(constant_);
    }
  }
  // How far a distance as returned above can be off if its h is by `error`, at most: the root of
  // 2 h by 2 error / root(2 h), or by root(6 error) where h is below 2 error; thrice the former is
  // above both. And by the roundings of the distance.
  FM_INLINE Vec<T> uncertainty(Vec<T> distance, T error) const {
    const Vec<T> rounded = absolute<T>(distance) * static_cast<T>(4 * Precision<T>::roundoff);
    const auto root = static_cast<T>(root_);
    if constexpr (curve == Curve::square_root) {
      const auto least = root * static_cast<T>(square_root(4 * static_cast<double>(error)));
      // In two factors: squares of a unit may be out of range.
      return broadcast(root) / (distance > least ? distance : least) * (6 * error * root) + rounded;
    } else {
      const auto constant = static_cast<T>(4 * Precision<T>::roundoff * constant_);
      return rounded + (error * static_cast<T>(unit_) + constant);
    }
  }
  // Of distances as returned above.
  FM_INLINE Vec<T> slopes(Vec<T> distance) const {
    if constexpr (curve == Curve::square_root) {
      const Vec<T> one = broadcast(T(1));
      return distance == T(0) ? Vec<T>{} : one / distance + (distance - distance);
    } else if constexpr (curve == Curve::root) {
      return each(distance, [&](double one) { return form_.slope(form_.key(one)); });
    } else {
      return broadcast(static_cast<T>(form_.slope(1)));
    }
  }

 private:
  template <class Function>
  static FM_INLINE Vec<T> each(Vec<T> v, const Function& function) {
    for (int lane = 0; lane < kWidth<T>; ++lane) {
      v[lane] = static_cast<T>(function(static_cast<double>(v[lane])));
    }
    return v;
  }

  KeyForm form_;
  double unit_;         // keys per h
  double root_;         // distances per root of h
  double constant_;     // of a linear curve: the distance at h = 0
  double key_of_zero_;  // the key at h = 0
};

// Inner products, kProducts at a time: their rounding grows with kProducts + dim / kProducts.
template <class T>
FM_INLINE void multiply_segments(const T* rows, const T* cols, int64_t dim, TileSums<T>& sums) {
  multiply_tile<T, Inner::product>(rows, cols, dim < kProducts ? dim : kProducts, sums);
  for (int64_t k = kProducts; k < dim; k += kProducts) {
    TileSums<T> part;
    multiply_tile<T, Inner::product>(rows + k * kBlock, cols + k * kBlock,
                                     dim - k < kProducts ? dim - k : kProducts, part);
    for (int r = 0; r < kTileRows; ++r) {
      for (int v = 0; v < kTileVecs; ++v) sums[r][v] += part[r][v];
    }
  }
}

// h of `rows` rows from sorted position i on, against all references: [rows][stride].
template <class T>
FM_NOINLINE void fill_rows(KeyForm key, const DenseSet<T>& query, const DenseSet<T>& ref,
                           int64_t dim, int64_t i, int rows, T* h, int64_t stride) {
  const T* a = query.packed + i / kBlock * dim * kBlock + i % kBlock;
  for (int64_t j = 0; j < ref.padded(); j += kTileCols<T>) {
    const T* b = ref.packed + j / kBlock * dim * kBlock + j % kBlock;
    Vec<T> half[kTileVecs];
    for (int v = 0; v < kTileVecs; ++v) half[v] = load(ref.half + j + v * kWidth<T>);
    for (int r = 0; r < rows; r += kTileRows) {
      TileSums<T> sums;
      if (key.of_products()) {
        multiply_segments(a + r, b, dim, sums);
      } else {
        similarity_tile<T>(inner_of(key), static_cast<T>(key.power),
                           {a + r, b, query.total + i + r, ref.total + j, dim}, sums);
      }
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
