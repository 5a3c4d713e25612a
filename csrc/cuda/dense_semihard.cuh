// SPDX-License-Identifier: BSD-3-Clause
// POLICY of the semi-hard loss: a triplet for every positive, with the nearest negative that is
// farther (Schroff, Kalenichenko, Philbin 2015, "FaceNet", section 3.2), else the farthest of all.
//
// Algorithm: every negative is offered to the last of the sorted positives that it lies beyond.
// What a positive and those before it, back to the next that was offered one, choose is the best
// that it was offered: any later one is farther. So positives fall into runs that share a negative;
// a warp takes a run.
#pragma once

#include <limits>

#include "../losses.h"
#include "dense_offers.cuh"

namespace flashmetric::cuda {

// What a thread adds up of its triplets.
struct SemiHardSums {
  ExactSum
      of[7];  // values, triplets, active ones; with a negative: triplets, active ones, distances
  double farthest = -kNever, nearest = kNever;
};

template <class T, class H>
struct SemiHardRow {
  const DenseRow<T, H>& row;
  const PositiveList& list;
  double margin, factor;
  bool soft_margin;

  __device__ SemiHardRow(const DenseRow<T, H>& of, const PositiveList& positives)
      : row(of), list(positives), soft_margin(of.state.soft_margin) {
    margin = of.state.margin.of(of.i);
    factor = of.state.weight.of(of.i) * cotangent_of<T>(of.state, of.i);
  }

  // Those that have been chosen have no coefficients yet.
  __device__ void open_coefficients(const Rival& farthest) const {
    for (int p = static_cast<int>(threadIdx.x); p < list.count; p += kRowThreads) {
      if (list.best[p] != kNobody) row.slot[list.best[p]].c = 0;
    }
    if (threadIdx.x == 0 && farthest.row != kNobody) row.slot[farthest.row].c = 0;
    __syncthreads();
  }
  __device__ void keep_coefficients(const Rival& farthest) const {
    row.open_columns();
    for (int p = static_cast<int>(threadIdx.x); p < list.count; p += kRowThreads) {
      row.keep_column(list.row[p]);
      if (list.best[p] != kNobody) row.keep_column(list.best[p]);
    }
    if (threadIdx.x == 0 && farthest.row != kNobody) row.keep_column(farthest.row);
    row.close_columns();
  }

  // One triplet, by the key of its positive; without a negative d_an is 0. Returns the slope of the
  // violation.
  __device__ double add(int p, double key, double d_an, bool has_negative,
                        SemiHardSums& sums) const {
    const double d_ap = row.distance(key);
    const double violation = d_ap - d_an + margin;
    const double value = soft_margin ? SoftMargin::value(violation) : Hinge::value(violation);
    const double slope = soft_margin ? SoftMargin::slope(violation) : Hinge::slope(violation);
    const double active = value <= 0 ? 0 : 1;
    sums.of[0].add(value);
    sums.of[1].add(1);
    sums.of[2].add(active);
    if (has_negative) {
      sums.of[3].add(1);
      sums.of[4].add(active);
      sums.of[5].add(d_ap);
      sums.of[6].add(d_an);
      sums.farthest = farther(sums.farthest, d_ap);
      sums.nearest = nearer(sums.nearest, d_an);
    }
    const double push = slope * factor;
    row.slot[list.row[p]].c = static_cast<T>(push == 0 ? 0 : push * row.slope(key));
    return push;
  }

  // Positives `last`, last - 1, ... that share a negative: up to one that was offered another, or,
  // `all`, to the first. All lanes of a warp.
  __device__ void add_run(int last, bool all, const Rival& negative, SemiHardSums& sums) const {
    const bool exists = negative.row != kNobody;
    const double key_an = exists ? row.value_at(1, negative.row, negative.key) : 0;
    const double key_of_all = __shfl_sync(kAllLanes, key_an, 0);
    const double d_an = exists ? row.distance(key_of_all) : 0;
    double pull = 0;
    for (int end = last;; end -= kWarp) {
      const int p = end - lane_of();
      const bool stops = p < 0 || (!all && p != last && list.best[p] != kNobody);
      const unsigned stopped = __ballot_sync(kAllLanes, stops);
      const int length = stopped == 0 ? kWarp : __ffs(static_cast<int>(stopped)) - 1;
      const bool in_run = lane_of() < length;
      const unsigned run = length == kWarp ? kAllLanes : (1U << length) - 1;
      const double key = row.value_at(run, in_run ? list.row[p] : 0, in_run ? list.value[p] : 0);
      if (in_run) pull += add(p, key, d_an, exists, sums);
      if (stopped != 0) break;
    }
    pull = warp_sum(pull);
    if (lane_of() != 0 || !exists || pull == 0) return;
    T& c = row.slot[negative.row].c;
    c = static_cast<T>(static_cast<double>(c) - pull * row.slope(key_of_all));
  }

  __device__ void add_runs(SemiHardSums& sums) const {
    for (int p = warp_of(); p < list.count; p += kRowWarps) {
      const int32_t best = list.best[p];
      if (best == kNobody) continue;
      const double key = key_of_bits(list.offer[p]);
      __syncwarp();
      add_run(p, false, {best, key}, sums);
    }
    __syncthreads();
  }

  // Those that no negative lies beyond.
  __device__ void add_others(const Rival& farthest, bool drop, SemiHardSums& sums) const {
    if (warp_of() != 0 || list.best[list.count - 1] != kNobody) return;
    if (!drop) return add_run(list.count - 1, false, farthest, sums);
    for (int end = list.count - 1;; end -= kWarp) {
      const int p = end - lane_of();
      const bool stops = p < 0 || list.best[p] != kNobody;
      const unsigned stopped = __ballot_sync(kAllLanes, stops);
      const unsigned before = stopped & ((2U << lane_of()) - 1);
      if (before == 0) row.slot[list.row[p]].c = 0;
      if (stopped != 0) break;
    }
  }
};

struct SemiHardPairs {
  template <class T, class H>
  static __device__ void judge(const DenseRow<T, H>& row, PositiveList& list, RowTotals& totals) {
    const DenseState& state = row.state;
    list_positives(row, list, [](double key) { return key; });
    const int n_negative = row.shared.n_negative;
    if (list.count == 0 || (n_negative == 0 && !state.uncovered)) return row.clear();
    const SemiHardRow<T, H> semihard(row, list);
    const NegativeOffers<T, H> offers{{row, list}};
    offers.make();
    Rival farthest;
    const bool nan = row.shared.nan_row != kNobody;
    const bool all_beyond = list.best[list.count - 1] != kNobody;
    if (nan) {
      farthest = {row.shared.nan_row, std::numeric_limits<double>::quiet_NaN()};
    } else if (n_negative > 0 && !all_beyond && !state.drop) {
      farthest = offers.find_farthest();
    }
    SemiHardSums sums;
    semihard.open_coefficients(farthest);
    if (n_negative == 0 || nan) {
      if (warp_of() == 0) semihard.add_run(list.count - 1, true, farthest, sums);
    } else {
      semihard.add_runs(sums);
      semihard.add_others(farthest, state.drop, sums);
    }
    semihard.keep_coefficients(farthest);
    sum_block(sums.of, row.shared);
    const double weight = state.weight.of(row.i);
    totals.term[0] = sums.of[0].value() * weight;
    totals.counted[0] = sums.of[1].value() * weight;
    totals.active[0] = sums.of[2].value() * weight;
    totals.members = totals.n_ap = totals.n_an = sums.of[3].value();
    totals.live = sums.of[4].value();
    totals.sum_ap = sums.of[5].value();
    totals.sum_an = sums.of[6].value();
    totals.max_ap = largest_in_block(sums.farthest, row.shared);
    totals.min_an = -largest_in_block(-sums.nearest, row.shared);
  }
};

}  // namespace flashmetric::cuda
