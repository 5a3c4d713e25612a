// SPDX-License-Identifier: BSD-3-Clause
// POLICY of losses over all pairs, of cpu/dense_pair_rules.h: a value is factor * excess^power,
// excess = d - pos_margin of a positive or margin - d of a negative, where it is above 0.
#pragma once

#include "dense_list.cuh"

namespace flashmetric::cuda {

// What the thread of a pair adds up, by kind.
struct PairSums {
  ExactSum of[6];  // terms, weights counted, weights of the active, each of positives, negatives
  double live = 0;

  __device__ void add(int kind, double value, double weight) {
    of[kind].add(value * weight);
    of[4 + kind].add(weight);
    live += 1;
  }
};

// Hadsell, Chopra, LeCun 2006, "Dimensionality Reduction by Learning an Invariant Mapping".
// Online: only positives beyond the nearest negative pair of the batch, and negatives nearer than
// its farthest positive pair; state.bounds are the keys of these two.
template <class T, class H>
struct ContrastiveRow {
  const DenseRow<T, H>& row;
  double margin, pos_margin, weight, cotangent;
  double bound[2];    // online: a positive is above the first, a negative below the second
  double highest[2];  // h of a negative within its margin, of one that the batch selects

  __device__ explicit ContrastiveRow(const DenseRow<T, H>& of) : row(of) {
    const DenseState& state = row.state;
    margin = state.margin.of(row.i);
    pos_margin = state.mining_margin.of(row.i);
    weight = state.weight.of(row.i);
    cotangent = cotangent_of<T>(state, row.i);
    bound[0] = state.online ? state.bounds[0] : -kNever;
    bound[1] = state.online ? state.bounds[1] : kNever;
    highest[0] = row.scale.half(state.key.key(margin));
    highest[1] = row.scale.half(bound[1]);
  }

  __device__ double weight_of(int64_t j) const {
    return row.state.labels.symmetric ? row.state.weight.of(j) : 1.0;
  }
  __device__ double power(double excess) const {
    return row.state.factor * (row.state.squared ? excess * excess : excess);
  }
  // Of a pair with that excess; mirrored, the pair (j, i) adds its cotangent to that of (i, j).
  __device__ double slope(int64_t j, int kind, double excess, double weights) const {
    const DenseState& state = row.state;
    const double both = state.mirrored ? cotangent_of<T>(state, j) : 0.0;
    const double scale = state.by_kind ? state.scales->kind[kind] : 1.0;
    const double factor = (cotangent + both) * weights * scale * state.factor;
    return (state.squared ? 2 * excess : 1.0) * factor;
  }

  __device__ double positive(int64_t j, double key, PairSums& sums) const {
    const double weights = weight * weight_of(j);
    const double excess = row.distance(key) - pos_margin;
    if (key <= bound[0] && row.state.online) return 0;
    sums.of[2].add(weights);
    if (excess <= 0) return 0;
    sums.add(0, power(excess), weights);
    const double pull = slope(j, 0, excess, weights);
    return pull == 0 ? 0 : pull * row.slope(key);
  }

  // By the key of the pair.
  __device__ double negative(int64_t j, double key, PairSums& sums) const {
    const double weights = weight * weight_of(j);
    const double excess = margin - row.distance(key);
    const bool selected = !row.state.online || !(key >= bound[1]);
    if (selected && row.state.online) sums.of[3].add(weights);
    if (excess <= 0 || !selected) return 0;
    sums.add(1, power(excess), weights);
    return -slope(j, 1, excess, weights) * row.slope(key);
  }

  // Whether h, known within `error`, is below a threshold: 1, 0, or -1 where only the key knows.
  __device__ static int below(double h, double error, double threshold) {
    const double size = ::fabs(threshold);
    constexpr double most = Precision<float>::highest;
    constexpr double u = 4 * Precision<float>::roundoff;
    const double band = error + (size < most ? u * size : 0);
    if (!(::fabs(h) <= most)) return -1;
    return h < threshold - band ? 1 : h > threshold + band ? 0 : -1;
  }

  // From h, but for those in doubt: their keys must say.
  __device__ float by_half(int64_t j, bool& doubt, PairSums& sums) const {
    const auto h = static_cast<double>(row.slot[j].h);
    const auto error = static_cast<double>(row.error(j));
    const int within = below(h, error, highest[0]);
    const int selected = row.state.online ? below(h, error, highest[1]) : 1;
    doubt = within < 0 || selected < 0;
    if (doubt || selected == 0) return 0;
    const double weights = weight * weight_of(j);
    if (row.state.online) sums.of[3].add(weights);
    if (within == 0) return 0;
    const float d = row.half_distance(j);
    const double excess = margin - static_cast<double>(d);
    sums.add(1, power(excess), weights);
    return static_cast<float>(-slope(j, 1, excess, weights)) * row.scale.slope_at(d);
  }

  __device__ void judge(PairSums& sums) const {
    row.each_word([&](int64_t word, int64_t j) {
      const bool is_positive = row.is_set(row.positive, word);
      const bool is_negative = row.is_set(row.negative, word);
      bool by_key = is_positive || (kWide<H> && is_negative);
      T c = 0;
      if constexpr (!kWide<H>) {
        if (is_negative) c = by_half(j, by_key, sums);
      }
      const double key = row.key_at(j, by_key);
      if (by_key) {
        c = static_cast<T>(is_positive ? positive(j, key, sums) : negative(j, key, sums));
      }
      if (j < row.r.n) row.slot[j].c = c;
    });
  }
};

struct Contrastive {
  template <class T, class H>
  static __device__ void judge(const DenseRow<T, H>& row, PositiveList&, RowTotals& totals) {
    row.split([](int64_t, int64_t, Role) {});
    if (row.state.stats != nullptr) note_distances(row, totals);
    PairSums sums;
    ContrastiveRow<T, H>(row).judge(sums);
    sum_block(sums.of, row.shared);
    ExactSum live[1] = {{sums.live, 0}};
    sum_block(live, row.shared);
    for (int kind = 0; kind < 2; ++kind) {
      totals.term[kind] = sums.of[kind].value();
      totals.counted[kind] = sums.of[2 + kind].value();
      totals.active[kind] = sums.of[4 + kind].value();
    }
    totals.members = row.shared.n_positive + row.shared.n_negative;
    totals.live = live[0].value();
  }
};

// The weights of all positive and of all negative pairs of an anchor; labels alone decide.
__global__ void __launch_bounds__(kRowThreads)
    count_pairs(const __grid_constant__ DenseState state) {
  __shared__ RowShared shared;
  const int64_t i = blockIdx.x;
  const double own = state.weight.of(i);
  ExactSum sums[2];
  for (int64_t j = threadIdx.x; j < state.ref.n && state.labels.query_takes_part(i);
       j += kRowThreads) {
    const Role role = state.labels.role(i, j);
    const double weight = own * (state.labels.symmetric ? state.weight.of(j) : 1.0);
    if (role == kPositive) sums[0].add(weight);
    if (role == kNegative) sums[1].add(weight);
  }
  sum_block(sums, shared);
  if (threadIdx.x != 0) return;
  RowTotals totals;
  totals.counted[0] = sums[0].value();
  totals.counted[1] = sums[1].value();
  state.totals[i] = totals;
}

}  // namespace flashmetric::cuda
