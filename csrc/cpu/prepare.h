// SPDX-License-Identifier: BSD-3-Clause
// The second half of `prepare`: rows in label order become packed, centred, scaled blocks together
// with the bounds that certify what tiles say about them. O(n dim), each row read twice.
//
// Why centre: Euclidean ranks do not change, and the rounding of the inner product, which is
// relative to |y_i| |y_j|, shrinks with the rows. Any vector is a valid centre; a good one only
// makes fewer candidates. Why scale: squares of 1e30 or 1e-30 leave the range of float.
#pragma once

#include "../arena.h"
#include "../certificate.h"
#include "../mining.h"
#include "kernels.h"
#include "keys.h"
#include "order.h"
#include "parallel.h"
#include "relation.h"
#include "tile.h"
#include "tile_units.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

FM_INLINE int64_t blocks_of(int64_t rows) { return (rows + kBlock - 1) / kBlock; }

// One set of rows (the queries or the references), ready to be ranked.
template <class T>
struct Ranked {
  RowView<T> rows{};               // the caller's rows
  double* norm = nullptr;          // [rows]
  const int32_t* order = nullptr;  // [n] sorted position -> original row
  int32_t n = 0;
  T* packed = nullptr;         // [blocks][dim][kBlock]
  uint32_t* narrow = nullptr;  // [blocks][depth][kBlock] of narrow tiles
  T* lower[2] = {};    // [blocks * kBlock] by Role: sign * offset - slack, +inf: never a choice
  T* slack = nullptr;  // [blocks * kBlock]
  T* total = nullptr;  // [blocks * kBlock] sum of the packed features; overlap only

  FM_INLINE const T* block(int64_t b, int64_t dim) const { return packed + b * dim * kBlock; }

  // The first feature of a row or column of tiles.
  template <class Tiles>
  FM_INLINE const typename Tiles::Packed* tile(int64_t row, int64_t dim) const {
    return Tiles::blocks(*this) + row / kBlock * Tiles::depth(dim) * kBlock + row % kBlock;
  }
};

// The mapping y = (x * scale - centre) * unit, common to queries and references.
template <class T>
struct Frame {
  T* centre = nullptr;  // [dim]
  T unit = 1;
  double centre_norm = 0;  // |centre| * unit
  double max_norm = 0;     // rows beyond (or NaN) take no part in tiles: the keys judge them
  bool given = false;      // bfloat16 holds the rows as they are, and does better so

  FM_INLINE bool regular(double norm) const { return norm <= max_norm; }
};

template <class AllTiles, class T>
FM_INLINE void lay_out_ranked(Arena& arena, const Rows& rows, int64_t dim, Ranked<T>& set) {
  const int64_t padded = blocks_of(rows.n) * kBlock;
  set.norm = take_numbers(arena, rows.n);
  // Both, where some are narrow. The memory of full ones is not touched until it is needed.
  if (AllTiles::narrow) set.narrow = arena.take<uint32_t>(padded * AllTiles::depth(dim));
  set.packed = arena.take<T>(padded * dim);
  for (T*& lower : set.lower) lower = arena.take<T>(padded);
  set.slack = arena.take<T>(padded);
  set.total = arena.take<T>(padded);
}

template <class Set>
inline void measure_rows(KeyForm key, const Set& set, int64_t dim, int threads) {
  parallel_ranges(threads, set.n, 64, [&](int64_t begin, int64_t end, int) {
    for (int64_t p = begin; p < end; ++p) measure_row(key, set.rows, set.order[p], dim);
  });
}

constexpr int kSample = 64;  // rows; their mean is within 1/8 of the spread of the true mean

// Norms of evenly spaced regular rows, ascending, and the rows they belong to.
template <class T, class Set>
inline int sample_rows(const Set& set, const Frame<T>& frame, int32_t (&row)[kSample]) {
  int taken = 0;
  for (int s = 0; s < kSample && s < set.n; ++s) {
    const int64_t spacing = set.n < kSample ? 1 : set.n / kSample;
    const int32_t candidate = set.order[s * spacing];
    if (!frame.regular(set.norm[candidate])) continue;
    int slot = taken++;
    for (; slot > 0 && set.norm[row[slot - 1]] > set.norm[candidate]; --slot) {
      row[slot] = row[slot - 1];
    }
    row[slot] = candidate;
  }
  return taken;
}

// Whether bfloat16 holds all of a row as it is.
template <class Set>
inline bool is_narrow(const Set& set, int32_t row, int64_t dim) {
  for (int64_t k = 0; k < dim; ++k) {
    uint32_t bits;
    std::memcpy(&bits, set.rows.row(row) + k, sizeof bits);
    if ((bits & 0xFFFFU) != 0) return false;
  }
  return true;
}

// Whether tiles of bfloat16 do better without a centre: rows that it holds as they are have no
// residual, and their bound (certificate.h) is half that of rounded rows of equal length, but y is
// then as long as x, where it would be sqrt(|x|^2 - |centre|^2).
template <class Set>
inline bool prefers_given(KeyForm key, const Set& ref, const int32_t* row, int sampled, int64_t dim,
                          double centre_norm) {
  if (key.needs_norms() || key.relative || sampled == 0) return false;
  const double norm = ref.norm[row[sampled / 2]];
  bool all = norm * norm / 2 < norm * norm - centre_norm * centre_norm;
  for (int s = 0; s < sampled && all; ++s) all = is_narrow(ref, row[s], dim);
  return all;
}

// Centre: the mean of a sample without outliers; 0 where distances are sums over features. Unit:
// brings every |y| to at most 2; there to at most 1/2, so that no power of a gap exceeds 1.
// `bfloat16`: such tiles may rank.
template <class T, class Set>
inline void choose_frame(KeyForm key, const Set& query, const Set& ref, int64_t dim, bool bfloat16,
                         Frame<T>& frame) {
  frame.max_norm = Precision<T>::max_norm;
  int32_t row[kSample];
  const int sampled = sample_rows(ref, frame, row);
  // 8 medians: a row so long would move the mean of 64 rows by more than their typical length / 8.
  const double limit = sampled == 0 ? 0 : 8 * ref.norm[row[sampled / 2]];
  for (int64_t k = 0; k < dim; ++k) frame.centre[k] = 0;
  int used = 0;
  for (int s = 0; s < sampled && ref.norm[row[s]] <= limit && key.of_products(); ++s) ++used;
  for (int s = 0; s < used; ++s) {
    const T* from = ref.rows.row(row[s]);
    const T scale =
        static_cast<T>((key.needs_norms() ? 1.0 / ref.rows.clamped_norm(row[s]) : 1.0) / used);
    const T shift = key.relative ? static_cast<T>(ref.rows.mean[row[s]] / used) : T(0);
    for (int64_t k = 0; k < dim; ++k) frame.centre[k] += from[k] * scale - shift;
  }
  double centre_norm = square_root(squared_norm(frame.centre, dim));
  if (bfloat16 && prefers_given(key, ref, row, sampled, dim, centre_norm)) {
    for (int64_t k = 0; k < dim; ++k) frame.centre[k] = 0;
    centre_norm = 0;
    frame.given = true;
  }
  double longest = key.needs_norms() ? 1 : 0;
  for (const Set* set : {&query, &ref}) {
    for (int32_t p = 0; p < set->n && !key.needs_norms(); ++p) {
      const double norm = set->norm[set->order[p]];
      if (frame.regular(norm) && norm > longest) longest = norm;
    }
  }
  const double reach = longest + centre_norm;
  const bool vague = relative_error<T>(key, static_cast<double>(dim)) > kWorstError;
  if (vague || (reach > 0 && reach < Precision<T>::min_norm)) frame.max_norm = -1;
  const int smaller = key.of_products() ? 0 : 2;
  frame.unit = reach >= Precision<T>::min_norm
                   ? static_cast<T>(__builtin_ldexp(1, -__builtin_ilogb(reach) - smaller))
                   : T(1);
  frame.centre_norm = centre_norm * static_cast<double>(frame.unit);
}

// Writes the bounds of one packed row. All normalised rows are equally long, so |y|^2 / 2 orders
// them as product keys do, without the rounding of <centre, y>; `gap` is what a row shorter than
// kMinNorm, which is not normalised to 1, lacks.
template <class Tiles, class Miner, class T>
FM_INLINE void bound_row(KeyForm key, const Frame<T>& frame, const PackedRow<T>& row, double norm,
                         int64_t dim, int64_t at, const Ranked<T>& set) {
  constexpr bool farthest[2] = {Miner::positive == Seek::farthest,
                                Miner::negative == Seek::farthest};
  const auto unit = static_cast<double>(frame.unit);
  const auto square = static_cast<double>(row.square);
  const double scale = key.equally_long() ? row.factor : static_cast<double>(row.scale);
  RowLengths lengths{square_root(square), norm * scale * unit, frame.centre_norm, unit};
  lengths.residual = square_root(static_cast<double>(row.residual));
  const bool product = key.form == Form::product;
  if (product && key.equally_long() && norm < kMinNorm) {
    lengths.gap = (unit * unit - lengths.full * lengths.full) / 2;
  }
  const T offset = !key.of_products()               ? T(0)
                   : product && !key.equally_long() ? -row.along
                                                    : static_cast<T>(square / 2 + lengths.gap);
  const T slack =
      Tiles::slack(key, lengths, static_cast<double>(set.total[at]), static_cast<double>(dim)) *
      static_cast<T>(slack_factor);
  set.slack[at] = slack;
  for (int role = 0; role < 2; ++role) {
    set.lower[role][at] = (farthest[role] ? -offset : offset) - slack;
  }
}

// The row at sorted position p, as it is to be packed; and its total.
template <class T, class Set>
FM_INLINE PackedRow<T> row_to_pack(KeyForm key, const Frame<T>& frame, int64_t dim, int64_t p,
                                   const Set& set) {
  PackedRow<T> row;
  set.total[p] = 0;
  if (p >= set.n || !frame.regular(set.norm[set.order[p]])) return row;
  const int32_t i = set.order[p];
  row.from = set.rows.row(i);
  row.factor = key.needs_norms() ? 1.0 / set.rows.clamped_norm(i) : 1.0;
  row.scale = static_cast<T>(row.factor);
  if (key.relative) row.shift = static_cast<T>(set.rows.mean[i]);
  if (key.form == Form::overlap) {
    const double sum = set.rows.mean[i] * static_cast<double>(dim);
    set.total[p] = static_cast<T>(sum * static_cast<double>(frame.unit));
  }
  return row;
}

template <class Tiles, class Miner, class T>
inline void pack_block(KeyForm key, const Frame<T>& frame, int64_t dim, int64_t block,
                       const Ranked<T>& set) {
  constexpr int width = kWidth<T>;
  const RowMap<T> map{frame.centre, frame.unit, key.needs_norms(), key.relative,
                      key.equally_long()};
  for (int group = 0; group < kBlock; group += width) {
    PackedRow<T> row[width];
    for (int r = 0; r < width; ++r) {
      row[r] = row_to_pack<T>(key, frame, dim, block * kBlock + group + r, set);
    }
    Tiles::pack(row, map, dim, group, Tiles::blocks(set) + block * Tiles::depth(dim) * kBlock);
    for (int r = 0; r < width; ++r) {
      const int64_t at = block * kBlock + group + r;
      if (row[r].from != nullptr) {
        bound_row<Tiles, Miner>(key, frame, row[r], set.norm[set.order[at]], dim, at, set);
      } else {
        set.slack[at] = 0;
        for (T* const lower : set.lower) lower[at] = __builtin_huge_val();
      }
    }
  }
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
