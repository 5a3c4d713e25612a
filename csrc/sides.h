// SPDX-License-Identifier: BSD-3-Clause
// POLICY HEADER. The two sides of an anchor, its positives and its negatives, and who of a side is
// the nearest, the farthest, or the nearest of some. Rows ascend, so the first of equals is the
// lowest row. A NaN key beats any other, as in torch.min and max.
#pragma once

#include <cstdint>

#include "math.h"
#include "policy.h"

namespace flashmetric {

// One side of an anchor: its positives or its negatives.
struct Side {
  int64_t n = 0;
  const int32_t* row = nullptr;      // [n] ascending
  const double* key = nullptr;       // [n]
  const double* distance = nullptr;  // [n] where the rule asks for distances
  // Sorted by key (NaN first, equals by row), where the rule asks for it:
  const int32_t* sorted = nullptr;  // [n] positions
};

// Position of the nearest (farthest) of a side, -1 if it is empty.
FM_HD int64_t nearest_of(const Side& side) {
  int64_t best = side.n == 0 ? -1 : 0;
  for (int64_t j = 1; j < side.n; ++j) {
    const bool settled = side.key[best] != side.key[best];
    if (!settled && !(side.key[j] >= side.key[best])) best = j;
  }
  return best;
}
FM_HD int64_t farthest_of(const Side& side) {
  int64_t best = side.n == 0 ? -1 : 0;
  for (int64_t j = 1; j < side.n; ++j) {
    const bool settled = side.key[best] != side.key[best];
    if (!settled && !(side.key[j] <= side.key[best])) best = j;
  }
  return best;
}

// What a measure has to be beyond; so is NaN.
struct Threshold {
  double at;
  bool inclusive;

  FM_HD bool passed_by(double m) const { return m != m || m > at || (inclusive && m == at); }
};

// The nearest of a side whose measure is beyond the threshold; -1 if none is.
FM_HD int64_t nearest_beyond(const Side& side, const double* measure, const Threshold& threshold) {
  if (side.sorted != nullptr) {  // NaN first, then ascending: the answer is the first of a suffix
    if (side.n > 0 && side.key[side.sorted[0]] != side.key[side.sorted[0]]) return side.sorted[0];
    const int64_t first = first_where(
        side.n, [&](int64_t k) { return threshold.passed_by(measure[side.sorted[k]]); });
    return first == side.n ? -1 : side.sorted[first];
  }
  int64_t best = -1;
  for (int64_t j = 0; j < side.n; ++j) {
    if (!threshold.passed_by(measure[j])) continue;
    if (best < 0 || (side.key[best] == side.key[best] && !(side.key[j] >= side.key[best])))
      best = j;
  }
  return best;
}

// The farthest of a side whose key is below the threshold; -1 if none is.
FM_HD int64_t farthest_below(const Side& side, double threshold) {
  int64_t best = -1;
  for (int64_t j = 0; j < side.n; ++j) {
    if (!(side.key[j] < threshold) && side.key[j] == side.key[j]) continue;  // NaN is beyond
    if (best < 0 || (side.key[best] == side.key[best] && !(side.key[j] <= side.key[best])))
      best = j;
  }
  return best;
}

}  // namespace flashmetric
