// SPDX-License-Identifier: BSD-3-Clause
// POLICIES of dense losses that weigh every triplet: softplus over triplets, and softmax weights
// (Ristani, Tomasi 2018, "Features for Multi-Target Multi-Camera Tracking", section 3.1). An
// exponential a triplet is the cost, so all distances are those of float64 keys.
#pragma once

#include "../losses.h"
#include "dense_list.cuh"
#include "dense_noted.cuh"

namespace flashmetric::cuda {

template <class T>
struct SoftplusRow {
  const DenseRow<T, double>& row;
  const PositiveList& list;
  double margin, mining_margin, factor;

  __device__ SoftplusRow(const DenseRow<T, double>& of, const PositiveList& positives)
      : row(of), list(positives) {
    margin = of.state.margin.of(of.i);
    mining_margin = of.state.mining_margin.of(of.i);
    factor = of.state.weight.of(of.i) * cotangent_of<T>(of.state, of.i);
  }
  __device__ bool contains(double d_ap, double d_an) const {
    return row.state.set.contains(d_an - d_ap, mining_margin);
  }

  // The slope of each positive, by a warp; in place of its distance, which is known once more from
  // its key.
  __device__ double slope_of(double d_ap) const {
    double push = 0;
    for (int64_t word = 0; word * kWarp < row.r.n; ++word) {
      if (!row.is_set(row.negative, word)) continue;
      const double d_an = row.distance(row.slot[word * kWarp + lane_of()].h);
      if (contains(d_ap, d_an)) push += SoftMargin::slope(d_ap - d_an + margin);
    }
    return warp_sum(push) * factor;
  }
  __device__ void judge_positives() const {
    for (int p = warp_of(); p < list.count; p += kRowWarps) {
      const double slope = slope_of(list.value[p]);
      if (lane_of() != 0) continue;
      const double key = row.slot[list.row[p]].h;
      row.slot[list.row[p]].c = static_cast<T>(slope == 0 ? 0 : slope * row.slope(key));
    }
  }

  // sums: values, triplets.
  __device__ void judge_negatives(ExactSum (&sums)[2]) const {
    row.each_open_word([&](const WordAhead<double>& at) {
      T c = 0;
      if (at.is_negative()) {
        const double d_an = row.distance(at.h);
        double pull = 0;
        int count = 0;
        for (int p = 0; p < list.count; ++p) {
          const double d_ap = list.value[p];
          if (!contains(d_ap, d_an)) continue;
          const double violation = d_ap - d_an + margin;
          sums[0].add(SoftMargin::value(violation));
          pull += SoftMargin::slope(violation);
          ++count;
        }
        sums[1].add(count);
        c = static_cast<T>(-(pull * factor) * row.slope(at.h));
      }
      row.keep(at, at.positive | __ballot_sync(kAllLanes, c != 0));
      if (c != 0) row.slot[at.j].c = c;
    });
  }
};

struct TripletSoftplus {
  template <class T, class H>
  static __device__ void judge(const DenseRow<T, H>& row, PositiveList& list, RowTotals& totals) {
    if (!list_positives(row, list, [&](double key) { return row.distance(key); })) {
      return row.clear();
    }
    if (row.state.stats != nullptr) note_distances(row, totals);
    const SoftplusRow<T> triplets{row, list};
    ExactSum sums[2];
    triplets.judge_positives();
    __syncthreads();
    triplets.judge_negatives(sums);
    row.settle();
    sum_block(sums, row.shared);
    const double weight = row.state.weight.of(row.i);
    totals.term[0] = sums[0].value() * weight;
    totals.members = totals.live = sums[1].value();
    totals.counted[0] = totals.active[0] = totals.live * weight;
  }
};

// Weights of one kind of pairs. Distances count from that of the largest weight, so that equal ones
// are equal to their mean.
struct Softmax {
  double rate, edge, total, mean;
  __device__ double part(double gap) const { return ::exp(rate * gap); }
  __device__ double weight(double gap) const { return part(gap) / total; }
};

template <class T>
struct SoftRow {
  const DenseRow<T, double>& row;

  // visit(kind, key) of every pair: kind 0 is of positives.
  template <class Visit>
  __device__ void each_pair(const Visit& visit) const {
    row.each_word_ahead([&](const WordAhead<double>& at) {
      if (at.is_positive()) visit(0, at.h);
      if (at.is_negative()) visit(1, at.h);
    });
  }

  __device__ void weigh(Softmax (&kinds)[2]) const {
    double farthest = -kNever;
    double nearest = kNever;
    each_pair([&](int kind, double key) {
      const double d = row.distance(key);
      if (kind == 0) farthest = farther(farthest, d);
      if (kind == 1) nearest = nearer(nearest, d);
    });
    kinds[0].edge = largest_in_block(farthest, row.shared);
    kinds[1].edge = -largest_in_block(-nearest, row.shared);
    ExactSum sums[4];
    each_pair([&](int kind, double key) {
      const double gap = row.distance(key) - kinds[kind].edge;
      const double part = kinds[kind].part(gap);
      sums[2 * kind].add(part);
      sums[2 * kind + 1].add(part * gap);
    });
    sum_block(sums, row.shared);
    for (int kind = 0; kind < 2; ++kind) {
      kinds[kind].total = sums[2 * kind].value();
      kinds[kind].mean = sums[2 * kind + 1].value() / kinds[kind].total;
    }
  }

  // `slope`: of the violation.
  __device__ void write(const Softmax (&kinds)[2], double slope) const {
    const double bend = row.state.detach_weights ? 0 : 1 / row.state.temperature;
    row.each_word_ahead([&](const WordAhead<double>& at) {
      double c = 0;
      if (slope != 0 && (at.is_positive() || at.is_negative())) {
        const Softmax& kind = kinds[at.is_positive() ? 0 : 1];
        const double gap = row.distance(at.h) - kind.edge;
        const double bent = (at.is_positive() ? 1 : -1) * bend * (gap - kind.mean);
        const double share = slope * kind.weight(gap) * (1 + bent);
        c = share == 0 ? 0 : (at.is_positive() ? share : -share) * row.slope(at.h);
      }
      row.leave(at, static_cast<T>(c));
    });
  }
};

struct SoftWeights {
  template <class T, class H>
  static __device__ void judge(const DenseRow<T, H>& row, PositiveList&, RowTotals& totals) {
    const DenseState& state = row.state;
    row.split(row.gate(), [](int64_t, bool) {});
    if (row.shared.n_positive == 0 || row.shared.n_negative == 0) return row.clear();
    const double rate = 1 / state.temperature;
    Softmax kinds[2] = {{rate, 0, 0, 0}, {-rate, 0, 0, 0}};
    const SoftRow<T> soft{row};
    soft.weigh(kinds);
    const double apart = (kinds[0].edge - kinds[1].edge) + (kinds[0].mean - kinds[1].mean);
    const double violation = apart + state.margin.of(row.i);
    const bool smooth = state.soft_margin;
    const double value = smooth ? SoftMargin::value(violation) : Hinge::value(violation);
    const double slope = smooth ? SoftMargin::slope(violation) : Hinge::slope(violation);
    const double weight = state.weight.of(row.i);
    soft.write(kinds, slope * weight * cotangent_of<T>(state, row.i));
    row.settle();
    const bool active = !(value <= 0);
    totals.term[0] = value * weight;
    totals.counted[0] = weight;
    totals.active[0] = active ? weight : 0;
    totals.members = 1;
    totals.live = active ? 1 : 0;
    totals.sum_ap = totals.max_ap = kinds[0].edge + kinds[0].mean;
    totals.sum_an = totals.min_an = kinds[1].edge + kinds[1].mean;
    totals.n_ap = totals.n_an = 1;
  }
};

}  // namespace flashmetric::cuda
