// SPDX-License-Identifier: BSD-3-Clause
// POLICY of hinges over the triplets of a set.
//
// Algorithm: a negative forms active triplets with a run of the sorted positives: as it moves away,
// positives leave at the one end, and come at the other. The ends of the run come from the float64
// distance, or from h where both ends of its uncertainty give the same run. Negatives mark with the
// positives where their runs begin and end; a running sum counts what each positive has.
//
// Numerics: the sum of d_ap - d_an + margin over triplets is made of three sums, of distances less
// one that all have in common: terms of the size of d_ap - d_an, known to 2^-106 of themselves, so
// that what cancels was never rounded.
#pragma once

#include "dense_list.cuh"
#include "dense_noted.cuh"

namespace flashmetric::cuda {

// Positives begin .. end - 1 form active triplets with a negative, member .. end - 1 triplets of
// the set.
struct Run {
  int begin, member, end;
  __device__ int active() const { return end > begin ? end - begin : 0; }
  __device__ int members() const { return end > member ? end - member : 0; }
};

// (number - base) * count, exactly.
__device__ inline void add_exactly(ExactSum& sum, double number, double base, double count) {
  const double gap = number - base;
  const double back = gap - number;
  const double lost = (number - (gap - back)) - (base + back);
  const double product = gap * count;
  sum.add({product, ::fma(gap, count, -product) + lost * count});
}
__device__ inline void add_exactly(PlainSum& sum, double number, double base, double count) {
  sum.add((number - base) * count);
}

template <class T, class H>
struct HingeRow {
  const DenseRow<T, H>& row;
  const PositiveList& list;
  double margin, mining_margin;
  double middle;        // the distance of some positive
  double factor;        // of every slope
  bool counts_members;  // with or without statistics: what is in doubt must not depend on them

  __device__ HingeRow(const DenseRow<T, H>& of, const PositiveList& positives)
      : row(of), list(positives) {
    const DenseState& state = of.state;
    margin = state.margin.of(of.i);
    mining_margin = state.mining_margin.of(of.i);
    factor = state.weight.of(of.i) * cotangent_of<T>(state, of.i);
    middle = list.numbers == 0 ? 0 : list.value[list.numbers / 2];
    if (!(::fabs(middle) < kNever)) middle = 0;
    counts_members = state.set.kind != TripletRange::all;
  }

  // The conditions are those of reference.rules, and as monotone as a rounded difference is:
  // positives from one on begin, are members, and do not end. Those whose distance is NaN belong to
  // every run, and are counted apart.
  __device__ bool is_member(double d_ap, double d_an) const {
    return row.state.set.below(d_an - d_ap, mining_margin);
  }
  __device__ bool begins(double d_ap, double d_an) const {
    return !(d_ap - d_an + margin <= 0) && is_member(d_ap, d_an);
  }
  __device__ bool ends(double d_ap, double d_an) const {
    return !row.state.set.above(d_an - d_ap, mining_margin);
  }

  // Of a negative at that distance.
  __device__ Run run_of(double d_an) const {
    const TripletRange& set = row.state.set;
    Run run;
    run.begin = list.first([&](double d_ap) { return begins(d_ap, d_an); }, list.numbers);
    run.member = run.begin;
    if (counts_members) {
      run.member = list.first([&](double d_ap) { return is_member(d_ap, d_an); }, list.numbers);
    }
    run.end = list.numbers;
    if (set.kind == TripletRange::semihard || set.kind == TripletRange::easy) {
      run.end = list.first([&](double d_ap) { return ends(d_ap, d_an); }, list.numbers);
    }
    return run;
  }
  // Whether it is that of one farther away as well: its ends only ever move to later positives.
  __device__ bool remains(const Run& run, double d_an) const {
    const auto stays = [&](int at, auto condition) {
      return at == list.numbers || condition(list.value[at]);
    };
    return stays(run.begin, [&](double d_ap) { return begins(d_ap, d_an); }) &&
           (!counts_members ||
            stays(run.member, [&](double d_ap) { return is_member(d_ap, d_an); })) &&
           stays(run.end, [&](double d_ap) { return ends(d_ap, d_an); });
  }

  // By h, and whether that is sure.
  __device__ bool run_by_half(float d, float error, Run& run) const {
    const float doubt = row.scale.uncertainty(d, error);
    const auto middle = static_cast<double>(d);
    if (!(::fabsf(d) + doubt <= Precision<float>::highest)) return false;
    run = run_of(middle - static_cast<double>(doubt));
    return remains(run, middle + static_cast<double>(doubt));
  }

  __device__ void clear_marks() const {
    for (int p = static_cast<int>(threadIdx.x); p < list.count; p += kRowThreads) list.best[p] = 0;
    __syncthreads();
  }
  // Adds to the positive of each lane, if it has one: once for all lanes of a warp with the same.
  __device__ void mark(int p, bool has, int number) const {
    if (!__any_sync(kAllLanes, has)) return;
    const unsigned same = __match_any_sync(kAllLanes, has ? p : -1);
    const bool first = lane_of() == __ffs(static_cast<int>(same)) - 1;
    if (has && first) atomicAdd(list.best + p, number * __popc(same));
  }

  // Of all negatives; sums: d_an - middle times triplets, triplets, members.
  __device__ void judge_negatives(ThreadSum<H> (&sums)[3]) const {
    const int everywhere = list.count - list.numbers;
    row.each_word_ahead([&](const WordAhead<H>& at) {
      bool open = at.is_negative();
      double d_an = 0;
      float narrow = 0;
      Run run{0, 0, 0};
      if constexpr (!kWide<H>) {
        if (open) narrow = row.half_distance(at.h);
        if (open) open = !run_by_half(narrow, row.error(at), run);
        d_an = static_cast<double>(narrow);
      }
      const double key = kWide<H> ? static_cast<double>(at.h) : row.key_at(at.j, open);
      if (open) d_an = row.distance(key);
      if (open) run = run_of(d_an);
      const int active = at.is_negative() ? run.active() + everywhere : 0;
      T c = 0;
      if (active > 0) {
        add_exactly(sums[0], d_an, middle, active);
        sums[1].add(active);
        c = coefficient(key, narrow, open, active);
      }
      if (counts_members && at.is_negative()) sums[2].add(run.members() + everywhere);
      const bool marks = at.is_negative() && run.active() > 0;
      mark(run.begin, marks, 1);
      mark(run.end, marks && run.end < list.numbers, -1);
      row.keep(at, at.positive | __ballot_sync(kAllLanes, c != 0));
      if (c != 0) row.slot[at.j].c = c;
    });
  }
  __device__ T coefficient(double key, float d, bool by_key, int active) const {
    if (by_key) return static_cast<T>(-factor * active * row.slope(key));
    return static_cast<T>(-factor * active) * static_cast<T>(row.scale.slope_at(d));
  }

  // Of all positives: d_ap - middle times triplets.
  __device__ void judge_positives(ExactSum& sum) const {
    int before = 0;  // triplets of the last positive of the chunk before
    for (int first = 0; first < list.count; first += kRowThreads) {
      const int p = first + static_cast<int>(threadIdx.x);
      int count = p < list.numbers ? list.best[p] : 0;
      count = scan(count) + before;
      before = list.shared.scan[kRowWarps - 1] + before;
      __syncthreads();
      if (p >= list.count) continue;
      if (p >= list.numbers) count = row.shared.n_negative;
      const double d_ap = list.value[p];
      if (count > 0) add_exactly(sum, d_ap, middle, count);
      const double slope = factor * count;
      row.slot[list.row[p]].c =
          static_cast<T>(slope == 0 ? 0 : slope * row.slope(key_of(row.state.key, d_ap)));
    }
  }

  // Inclusive sums over the block; the last one is in shared.scan as well.
  __device__ int scan(int own) const {
    own = sum_through_lane(own);
    if (lane_of() == kWarp - 1) list.shared.scan[warp_of()] = own;
    __syncthreads();
    int before = 0;
    for (int w = 0; w < warp_of(); ++w) before += list.shared.scan[w];
    __syncthreads();
    if (threadIdx.x == kRowThreads - 1) list.shared.scan[kRowWarps - 1] = own + before;
    __syncthreads();
    return own + before;
  }
};

struct TripletHinges {
  template <class T, class H>
  static __device__ void judge(const DenseRow<T, H>& row, PositiveList& list, RowTotals& totals) {
    if (!list_positives(row, list, [&](double key) { return row.distance(key); })) {
      return row.clear();
    }
    if (row.state.stats != nullptr) note_distances(row, totals);
    const HingeRow<T, H> hinges(row, list);
    ExactSum sums[4];
    ThreadSum<H> of_negatives[3];
    hinges.clear_marks();
    hinges.judge_negatives(of_negatives);
    for (int s = 0; s < 3; ++s) sums[s] = of_negatives[s];
    __syncthreads();
    hinges.judge_positives(sums[3]);
    row.settle();
    sum_block(sums, row.shared);
    const double count = sums[1].value();
    const double weight = row.state.weight.of(row.i);
    // d_ap - d_an, times triplets, and their margins.
    ExactSum value = sums[3];
    value.add({-sums[0].sum, -sums[0].lost});
    if (count > 0) add_exactly(value, hinges.margin, 0, count);
    totals.term[0] = value.value() * weight;
    totals.counted[0] = totals.active[0] = count * weight;
    totals.live = count;
    const bool all = row.state.set.kind == TripletRange::all;
    totals.members =
        all ? static_cast<double>(row.shared.n_positive) * row.shared.n_negative : sums[2].value();
  }
};

}  // namespace flashmetric::cuda
