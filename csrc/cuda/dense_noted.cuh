// SPDX-License-Identifier: BSD-3-Clause
// What the statistics want to know of the pairs of an anchor.
#pragma once

#include "dense_row.cuh"

namespace flashmetric::cuda {

// The distances of all positives and negatives, for the statistics; before coefficients come.
template <class T, class H>
__device__ void note_distances(const DenseRow<T, H>& row, RowTotals& totals) {
  ExactSum sums[2];
  ThreadSum<H> sum_an;
  double farthest = -kNever;
  double nearest = kNever;
  float least = Precision<float>::highest;  // no negative that is nearest has a larger h
  row.each_word_ahead([&](const WordAhead<H>& at) {
    if (at.positive != 0) {
      const double key = row.key_at(at.j, at.is_positive());
      const double d_ap = at.is_positive() ? row.distance(key) : 0;
      if (at.is_positive()) sums[0].add(d_ap);
      if (at.is_positive()) farthest = farther(farthest, d_ap);
    }
    if constexpr (kWide<H>) {
      if (!at.is_negative()) return;
      const double d_an = row.distance(at.h);
      sum_an.add(d_an);
      nearest = nearer(nearest, d_an);
    } else {
      const float narrow = at.is_negative() ? row.half_distance(at.h) : 0;
      const bool unknown = !(::fabsf(narrow) <= Precision<float>::highest);
      const double key = row.key_at(at.j, unknown);
      if (!at.is_negative()) return;
      sum_an.add(unknown ? row.distance(key) : static_cast<double>(narrow));
      least = ::fminf(least, at.h + row.error(at));
    }
  });
  sums[1] = sum_an;
  sum_block(sums, row.shared);
  if constexpr (!kWide<H>) {
    least = -static_cast<float>(largest_in_block(-static_cast<double>(least), row.shared));
    row.each_word_ahead([&](const WordAhead<H>& at) {
      // NaN is among them.
      const bool open = at.is_negative() && !(at.h - row.error(at) > least);
      const double key = row.key_at(at.j, open);
      if (open) nearest = nearer(nearest, row.distance(key));
    });
  }
  totals.sum_ap = sums[0].value();
  totals.sum_an = sums[1].value();
  totals.max_ap = largest_in_block(farthest, row.shared);
  totals.min_an = -largest_in_block(-nearest, row.shared);
  totals.n_ap = row.shared.n_positive;
  totals.n_an = row.shared.n_negative;
}

}  // namespace flashmetric::cuda
