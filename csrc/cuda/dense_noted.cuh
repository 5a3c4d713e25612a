// SPDX-License-Identifier: BSD-3-Clause
// What the statistics want to know of the pairs of an anchor.
#pragma once

#include "dense_row.cuh"

namespace flashmetric::cuda {

// The distances of all positives and negatives, for the statistics; before coefficients come.
template <class T, class H>
__device__ void note_distances(const DenseRow<T, H>& row, RowTotals& totals) {
  ExactSum sums[2];
  double farthest = -kNever;
  double nearest = kNever;
  double least = kNever;  // no negative that is nearest has a larger h
  row.each_word([&](int64_t word, int64_t j) {
    if (row.positive[word] != 0) {
      const bool is_positive = row.is_set(row.positive, word);
      const double key = row.key_at(j, is_positive);
      const double d_ap = is_positive ? row.distance(key) : 0;
      if (is_positive) sums[0].add(d_ap);
      if (is_positive) farthest = farther(farthest, d_ap);
    }
    if (!row.is_set(row.negative, word)) return;
    if constexpr (kWide<H>) {
      const double d_an = row.distance(static_cast<double>(row.slot[j].h));
      sums[1].add(d_an);
      nearest = nearer(nearest, d_an);
    } else {
      sums[1].add(static_cast<double>(row.half_distance(j)));
      const double h = static_cast<double>(row.slot[j].h);
      least = ::fmin(least, h + static_cast<double>(row.error(j)));
    }
  });
  sum_block(sums, row.shared);
  if constexpr (!kWide<H>) {
    least = -largest_in_block(-least, row.shared);
    row.each_word([&](int64_t word, int64_t j) {
      const bool is_negative = row.is_set(row.negative, word);
      const double h = is_negative ? static_cast<double>(row.slot[j].h) : 0;
      const double error = is_negative ? static_cast<double>(row.error(j)) : 0;
      const bool open = is_negative && !(h - error > least);  // NaN is among them
      const double key = row.key_at(j, open);
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
