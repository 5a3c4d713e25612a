// SPDX-License-Identifier: BSD-3-Clause
// A first look at a row, a word of 32 references at a time: most words are all negatives that no
// rule has anything to do with, and one comparison of each number shows it.
#pragma once

#include "dense_scale.cuh"
#include "inline.cuh"

namespace flashmetric::cuda {

// Words whose numbers a warp reads before it looks at the first: with six blocks on a
// multiprocessor some 36 KiB are on their way, what the L2 cache delivers in its latency.
constexpr int kWordsAhead = 4;

// What is known of a word when its turn comes: a lane has a column, or none.
template <class H>
struct WordAhead {
  int64_t word, j;
  uint32_t positive = 0, negative = 0, near = 0;
  uint32_t open = 0;  // where only open words are asked for
  H h = 0;
  float slack = 0;  // of rows that are not keys

  __device__ bool is_open() const { return (open >> lane_of() & 1U) != 0; }
  __device__ bool is_positive() const { return (positive >> lane_of() & 1U) != 0; }
  __device__ bool is_negative() const { return (negative >> lane_of() & 1U) != 0; }
};

// Never inlined: what most labels are, RowRoles knows.
static __device__ __noinline__ Role role_of(const LabelView& labels, int64_t i, int64_t j) {
  return labels.role(i, j);
}

// The roles of references beside one anchor.
struct RowRoles {
  const LabelView& labels;
  int64_t i, self;
  const int64_t* ids = nullptr;  // of the references, where labels are classes and all take part
  int64_t own = 0;

  __device__ RowRoles(const LabelView& of, int64_t anchor)
      : labels(of), i(anchor), self(of.self(anchor)) {
    if (labels.relation != Relation::classes || labels.ref_keep != nullptr) return;
    ids = static_cast<const int64_t*>(labels.ref);
    own = static_cast<const int64_t*>(labels.query)[i];
  }
  __device__ Role of(int64_t j) const {
    if (ids == nullptr) return role_of(labels, i, j);
    return j == self ? kNeither : ids[j] == own ? kPositive : kNegative;
  }
  // Whether j, j + kWarp, ... are negatives. No branch between the loads.
  FM_DEVICE void find_negatives(int64_t j, bool (&negative)[kWordsAhead]) const {
    if (ids == nullptr) {
#pragma unroll
      for (int u = 0; u < kWordsAhead; ++u) {
        negative[u] = role_of(labels, i, j + u * kWarp) == kNegative;
      }
      return;
    }
    const int64_t away = self - j;
    const int own_place = away >= 0 && away < kWordsAhead * kWarp ? static_cast<int>(away) : -1;
#pragma unroll
    for (int u = 0; u < kWordsAhead; ++u) {
      negative[u] = ids[j + u * kWarp] != own && own_place != u * kWarp;
    }
  }
};

// What the h of a word must lie above so that nothing but the count of its negatives remains to be
// seen of it: neither is one near, nor does a rule with a threshold want it.
//
// Numerics: h is within the slacks of both rows of the truth, and u |h| where it was measured; the
// threshold has rounded by u |threshold|, for which 4 u are taken in float64. The sum of slacks and
// threshold rounds three times, relative to what it is each time: 16 u of it, where 5 would do.
template <class H>
struct WordGate {
  const WordBound* words;  // null: rows are not packed, and none is near
  bool settles = false;    // has a threshold
  bool regular, difference;
  float half;                               // of the anchor
  float base = -Precision<float>::highest;  // the threshold, and the slack of the anchor
  double unit;

  __device__ WordGate(const DenseState& state, int64_t i, const HalfScale& scale)
      : words(state.packed ? state.words : nullptr),
        regular(!state.packed || state.regular(0, i)),
        difference(state.key.form == Form::difference),
        half(state.packed ? state.rows[0].half[i] : 0),
        unit(scale.unit) {}

  // Of rows that are not keys: nothing is wanted whose h is certainly above the threshold.
  __device__ void settle_above(double threshold, float slack) {
    constexpr double most = Precision<float>::highest;
    constexpr double u = Precision<float>::roundoff;
    settles = true;
    if (threshold < -most) return;
    double above = threshold + 4 * u * ::fabs(threshold) + static_cast<double>(slack);
    above += 2 * u * ::fabs(above) + Precision<float>::smallest;  // it becomes a float
    base = above < most ? static_cast<float>(above) : static_cast<float>(most);
  }

  __device__ H above(int64_t word) const {
    constexpr auto never = static_cast<H>(kNever);
    if (words == nullptr) return -never;
    const WordBound bound = words[word];
    if (!regular || !(bound.slack < static_cast<float>(kNever))) return never;
    const float lengths = half + bound.half;
    if constexpr (kWide<H>) {
      // Exact: the unit is a power of two.
      return difference ? near_limit(static_cast<double>(lengths)) * unit : -never;
    } else {
      const float sum = base + bound.slack;
      const float limit = sum + ::fabsf(sum) * static_cast<float>(16 * Precision<float>::roundoff);
      const float close = difference ? near_limit(lengths) : limit;
      return limit > close ? limit : close;
    }
  }
};

}  // namespace flashmetric::cuda
