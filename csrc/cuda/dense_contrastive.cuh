// SPDX-License-Identifier: BSD-3-Clause
// POLICY of losses over all pairs, of cpu/dense_pair_rules.h: a value is factor * excess^power,
// excess = d - pos_margin of a positive or margin - d of a negative, where it is above 0.
#pragma once

#include "dense_list.cuh"
#include "dense_noted.cuh"

namespace flashmetric::cuda {

// What a thread adds up of its pairs: terms, weights counted, weights of the active, each of
// positives, negatives; how many are active.
template <class H>
struct PairSums {
  ThreadSum<H> of[6];
  double live = 0;

  template <int kind>
  FM_DEVICE void add(double value, double weight) {
    of[kind].add(value * weight);
    of[4 + kind].add(weight);
    live += 1;
  }
  template <int kind>
  FM_DEVICE void count(double weight) {
    of[2 + kind].add(weight);
  }
};

// From PairSums, over all threads: `of`, then `live`.
__device__ inline void take_pairs(const double (&sums)[7], RowTotals& totals) {
  for (int kind = 0; kind < 2; ++kind) {
    totals.term[kind] = sums[kind];
    totals.counted[kind] = sums[2 + kind];
    totals.active[kind] = sums[4 + kind];
  }
  totals.live = sums[6];
}

// A threshold for h. Whether h, known within `error`, is below: 1, 0, or -1 where only the key
// knows. Numerics: as in WordGate; the sum of h and its error rounds by u of it, which the 4 u |h|
// of the error has room for.
struct Edge {
  float inside, outside;

  __device__ explicit Edge(double threshold) {
    constexpr double most = Precision<float>::highest;
    const double size = ::fabs(threshold);
    const double band = size < most ? 4 * Precision<float>::roundoff * size : 0;
    inside = static_cast<float>(threshold - band);
    outside = static_cast<float>(threshold + band);
  }
  __device__ int below(float h, float error) const {
    if (!(::fabsf(h) <= Precision<float>::highest)) return -1;
    return h + error < inside ? 1 : h - error > outside ? 0 : -1;
  }
};

// Of the pairs of one kind: where they are within their margin, and where below what the batch
// selects.
struct Edges {
  Edge margin, selects;
};

// Hadsell, Chopra, LeCun 2006, "Dimensionality Reduction by Learning an Invariant Mapping".
// Online: only positives beyond the nearest negative pair of the batch, and negatives nearer than
// its farthest positive pair; state.bounds are the keys of these two.
template <class T, class H>
struct ContrastiveRow {
  const DenseRow<T, H>& row;
  double margin, weight;
  bool of_columns;    // they have weights or cotangents of their own
  double factor[2];   // of slopes, by kind; where columns have none
  double selects;     // online: a negative is below this key
  double highest[2];  // h of a negative within its margin, of one that the batch selects

  __device__ explicit ContrastiveRow(const DenseRow<T, H>& of) : row(of) {
    const DenseState& state = row.state;
    margin = state.margin.of(row.i);
    weight = state.weight.of(row.i);
    const bool cotangents = state.cotangent != nullptr && state.cotangent_stride != 0;
    of_columns = (cotangents && state.mirrored) || weighs_columns();
    factor[0] = factor_of(row.i, 0, weight);
    factor[1] = factor_of(row.i, 1, weight);
    selects = state.online ? state.bounds[1] : kNever;
    highest[0] = row.scale.half(key_of(state.key, margin));
    highest[1] = row.scale.half(selects);
  }

  __device__ bool weighs_columns() const {
    return row.state.weight.values != nullptr && row.state.labels.symmetric;
  }
  __device__ double weight_of(int64_t j) const {
    return weighs_columns() ? weight * row.state.weight.of(j) : weight;
  }
  // Mirrored, the pair (j, i) adds its cotangent to that of (i, j).
  __device__ double factor_of(int64_t j, int kind, double weights) const {
    const DenseState& state = row.state;
    const double both = state.mirrored ? cotangent_of<T>(state, j) : 0.0;
    const double scale = state.scaled ? state.scales->kind[kind] : 1.0;
    return (cotangent_of<T>(state, row.i) + both) * weights * scale * state.factor;
  }
  __device__ double power(double excess) const {
    return row.state.factor * (row.state.squared ? excess * excess : excess);
  }
  template <int kind>
  __device__ double slope(int64_t j, double excess, double weights) const {
    const double of_pair = of_columns ? factor_of(j, kind, weights) : factor[kind];
    return (row.state.squared ? 2 * excess : 1.0) * of_pair;
  }

  // Words of negatives that are certainly beyond their margin, or not selected, add nothing.
  __device__ WordGate<H> gate() const {
    WordGate<H> gate = row.gate();
    if (kWide<H> || !gate.regular) return gate;
    gate.settle_above(row.state.online ? highest[1] : highest[0], row.state.rows[0].slack[row.i]);
    return gate;
  }

  __device__ double positive(int64_t j, double key, PairSums<H>& sums) const {
    const DenseState& state = row.state;
    const double weights = weight_of(j);
    const double excess = row.distance(key) - state.mining_margin.of(row.i);
    if (state.online && key <= state.bounds[0]) return 0;
    sums.template count<0>(weights);
    if (excess <= 0) return 0;
    sums.template add<0>(power(excess), weights);
    const double pull = slope<0>(j, excess, weights);
    return pull == 0 ? 0 : pull * row.slope(key);
  }

  // By the key of the pair.
  __device__ double negative(int64_t j, double key, PairSums<H>& sums) const {
    const double weights = weight_of(j);
    const double excess = margin - row.distance(key);
    const bool selected = !row.state.online || !(key >= selects);
    if (selected && row.state.online) sums.template count<1>(weights);
    if (excess <= 0 || !selected) return 0;
    sums.template add<1>(power(excess), weights);
    return -slope<1>(j, excess, weights) * row.slope(key);
  }

  template <int kind>
  __device__ Edges edges() const {
    if constexpr (kind == 1) return {Edge(highest[0]), Edge(highest[1])};
    const DenseState& state = row.state;
    const double margin_key = key_of(state.key, state.mining_margin.of(row.i));
    const double selected = state.online ? state.bounds[0] : kNever;
    return {Edge(row.scale.half(margin_key)), Edge(row.scale.half(selected))};
  }

  // From h, known within `error`, but for those in doubt: their keys must say. Positives have a
  // term beyond their margin, negatives within.
  template <int kind>
  __device__ float by_half(int64_t j, float h, float error, const Edges& edges, bool& doubt,
                           PairSums<H>& sums) const {
    const bool online = row.state.online;
    const int within = edges.margin.below(h, error);
    const int selected = online ? edges.selects.below(h, error) : kind;
    doubt = within < 0 || selected < 0;
    if (doubt || selected != kind) return 0;
    const double weights = weight_of(j);
    if (kind == 0 || online) sums.template count<kind>(weights);
    if (within != kind) return 0;
    const float d = row.half_distance(h);
    const double excess = kind == 1 ? margin - static_cast<double>(d)
                                    : static_cast<double>(d) - row.state.mining_margin.of(row.i);
    sums.template add<kind>(power(excess), weights);
    const double pull = slope<kind>(j, excess, weights);
    return static_cast<float>(kind == 1 ? -pull : pull) * row.scale.slope_at(d);
  }

  __device__ void judge(PairSums<H>& sums) const {
    const Edges of_negatives = edges<1>();
    row.each_open_word([&](const WordAhead<H>& at) {
      bool by_key = at.is_positive() || (kWide<H> && at.is_negative());
      T c = 0;
      if constexpr (!kWide<H>) {
        if (at.is_negative()) c = by_half<1>(at.j, at.h, row.error(at), of_negatives, by_key, sums);
      }
      const double key = row.key_at(at.j, by_key);
      if (by_key) {
        c = static_cast<T>(at.is_positive() ? positive(at.j, key, sums)
                                            : negative(at.j, key, sums));
      }
      row.leave(at, c);
    });
  }
};

struct Contrastive {
  template <class T, class H>
  static __device__ void judge(const DenseRow<T, H>& row, PositiveList&, RowTotals& totals) {
    const ContrastiveRow<T, H> pairs(row);
    row.split(pairs.gate(), [](int64_t, bool) {});
    if (row.state.stats != nullptr) note_distances(row, totals);
    PairSums<H> own;
    pairs.judge(own);
    row.settle();
    ExactSum sums[7];
#pragma unroll
    for (int v = 0; v < 6; ++v) sums[v] = own.of[v];
    sums[6].sum = own.live;
    sum_block(sums, row.shared);
    double values[7];
#pragma unroll
    for (int v = 0; v < 7; ++v) values[v] = sums[v].value();
    take_pairs(values, totals);
    totals.members = row.shared.n_positive + row.shared.n_negative;
  }
};

}  // namespace flashmetric::cuda
