// SPDX-License-Identifier: BSD-3-Clause
// One anchor of a dense loss: the distances to all references and their roles, as rules see them
// (dense_rules.h), with what it takes to make every decision exactly.
//
// Rules compare h (dense_rows.h) with thresholds. Where the two are closer than the error bound, or
// h is NaN, the float64 keys decide.
#pragma once

#include "dense_rows.h"
#include "radix_sort.h"
#include "relation.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// For anchors with many positives (dense_sorted.h).
template <class T>
struct SortScratch {
  SortBuffers<T> data;  // [stride] each
  int32_t* positive;    // [stride] list positions of the positives, nearest first
  int32_t* step;        // [stride + 1]
  uint32_t* measured;   // [stride / 32] bit j: negative_distance[j] is known
};

template <class T>
struct SemiHardScratch;  // semihard_scratch.h

template <class T>
struct RowScratch {
  T* h;  // [rows][stride] see dense_rows.h; above every threshold where no negative is
  uint32_t* negative;         // [stride / 32] bit j: reference j is a negative
  int32_t* positive;          // [n_ref] sorted positions
  double* positive_key;       // [n_ref]
  double* positive_distance;  // [n_ref]
  double* positive_slope;     // [n_ref] out: d term / d distance
  double* negative_distance;  // [stride] for rules that want every distance exact
  T* pair_factor;             // [stride] see RowFactors
  T* list_weight;             // [stride]
  int32_t* listed;            // [stride]
  double* widened;            // [dim]
  SortScratch<T> sort;
  SemiHardScratch<T>* semihard;  // null for other losses
};

// A row's h compared with two thresholds: certainly between inside the inner ones, certainly not
// beyond the outer ones, and the float64 keys decide the rest.
template <class T>
struct Limits {
  T low_out, low_in, high_in, high_out;
};

// `relative`: the error in proportion to the threshold.
template <class T>
FM_INLINE Limits<T> limits_of(double error, double relative, double low, double high) {
  constexpr auto most = static_cast<double>(Precision<T>::highest);
  const auto band = [&](double threshold) {
    const double size = threshold < 0 ? -threshold : threshold;
    return error + (size < most ? relative * size : 0);
  };
  const auto bounded = [](double x) {
    return static_cast<T>(x > most ? most : x < -most ? -most : x);
  };
  return {bounded(low - band(low)), bounded(low + band(low)), bounded(high - band(high)),
          bounded(high + band(high))};
}

template <class Mask>
FM_INLINE bool any_lane(const Mask& mask) {
  uint64_t words[sizeof(Mask) / 8];
  std::memcpy(words, &mask, sizeof mask);
  uint64_t all = 0;
  for (const uint64_t word : words) all |= word;
  return all != 0;
}

// How far h can be off in proportion to itself.
template <class T>
FM_INLINE double row_relative_error(KeyForm key, int64_t dim) {
  return 16 * Precision<T>::roundoff +
         static_cast<double>(score_spread<T>(key, static_cast<double>(dim)));
}

// The factors of an anchor's terms.
template <class T>
struct RowFactors {
  double margin;
  double mining_margin;
  double weight;     // of the anchor
  double cotangent;  // on the way back
  // Pairs only, by reference: its weight, and what multiplies its slope (weights, cotangents).
  const T* pair_weight;  // [padded]
  const T* pair_factor;  // [padded]
  double scale[2];       // of the slopes, by kind

  FM_INLINE double weight_of(int64_t j) const { return static_cast<double>(pair_weight[j]); }
};

template <class T, Curve curve>
struct DenseRow {
  const DenseSet<T>& query;
  const DenseSet<T>& ref;
  KeyForm key;
  int64_t dim;
  Scale<T, curve> scale;
  int32_t i;   // sorted position
  const T* h;  // [padded]
  T error;     // of every h
  const uint32_t* negative;
  const int32_t* positive;
  int64_t n_positive;
  int64_t n_negative;
  const double* positive_key;
  const double* positive_distance;
  double* positive_slope;
  double* negative_distance;
  const SortScratch<T>& sort;
  T* coefficient;       // [padded] of negatives, out: d term / d distance * slope of the distance
  double relative = 0;  // error of h, and of thresholds in T, in proportion to them

  FM_INLINE bool is_negative(int64_t j) const { return (negative[j / 32] >> (j % 32) & 1) != 0; }
  FM_INLINE double exact_key(int64_t j) const {
    return pair_key(key, query.rows, query.order[i], ref.rows, ref.order[j], dim);
  }
  FM_INLINE double exact_distance(int64_t j) const { return key.value(exact_key(j)); }
  FM_INLINE bool valid() const { return n_positive > 0 && n_negative > 0; }

  FM_INLINE Limits<T> limits(double low, double high) const {
    return limits_of<T>(static_cast<double>(error), relative, low, high);
  }

  // Visits the negatives with low < h < high: sure(j, bits, h) for vectors of those that certainly
  // are, then unsure(j) for each whose float64 key must say.
  template <class Sure, class Unsure>
  FM_INLINE void sweep(double low, double high, const Sure& sure, const Unsure& unsure) const {
    const Limits<T> at = limits(low, high);
    const Vec<T> low_in = broadcast(at.low_in);
    const Vec<T> low_out = broadcast(at.low_out);
    const Vec<T> high_in = broadcast(at.high_in);
    const Vec<T> high_out = broadcast(at.high_out);
    for (int64_t j = 0; j < ref.padded(); j += kWidth<T>) {
      const Vec<T> x = load(h + j);
      const auto inside = (x > low_in) & (x < high_in);
      // An infinite h may come from rows that are infinite: the keys say what d_an - d_ap is then.
      const Vec<T> most = broadcast(Precision<T>::highest);
      const auto outside = ((x < low_out) | (x > high_out)) & (x <= most);
      sure(j, inside, x);
      const auto open = ~(inside | outside);
      if (__builtin_expect(any_lane(open), 0)) {
        for (int lane = 0; lane < kWidth<T>; ++lane) {
          if (open[lane] != 0 && is_negative(j + lane)) unsure(j + lane);
        }
      }
    }
  }
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
