// SPDX-License-Identifier: BSD-3-Clause
// The rules of list_rules.h as a block applies them to the row of an anchor. A rule is
//   prepare(anchor, shared)   by the block: which ranges of the sides, and what is chosen of them
//   each(anchor, p, visit)    by a warp, for a positive of the range: visit(has, negative) as often
//                             as it takes, each lane with the next negative or none, in order
//   each_own(anchor, visit)   by a thread: visit(p, negative) of all triplets whose negative is its
//                             own, positives ascending; every negative is some thread's
// and needs nothing but the row and the ranges after prepare.
#pragma once

#include "../mining.h"
#include "list_block.cuh"

namespace flashmetric::cuda {

// More positives than this, and negatives are sorted once instead of scanned for each of them: of
// 4096, a sort takes 78 steps of 8 swaps a thread, and a scan 16 comparisons.
constexpr int64_t kScannedPositives = 128;

// Rules that say of each pair of the ranges whether it belongs.
template <class Member>
struct ByMembers {
  template <class Visit>
  static __device__ void each(const AnchorView& anchor, int64_t p, const Visit& visit) {
    const int64_t end = anchor.range.end[kNegative];
    for (int64_t first = anchor.range.begin[kNegative]; first < end; first += kWarp) {
      const int64_t n = first + lane_of();
      visit(n < end && Member::contains(anchor, p, n), n);
    }
  }

  template <class Visit>
  static __device__ void each_own(const AnchorView& anchor, const Visit& visit) {
    const Ranges& range = anchor.range;
    for (int64_t n = range.begin[kNegative] + threadIdx.x; n < range.end[kNegative];
         n += kListThreads) {
      for (int64_t p = range.begin[kPositive]; p < range.end[kPositive]; ++p) {
        if (Member::contains(anchor, p, n)) visit(p, n);
      }
    }
  }
};

// Rules that take one negative for each draw of a positive.
template <class Draw>
struct ByDraws {
  template <class Visit>
  static __device__ void each(const AnchorView& anchor, int64_t p, const Visit& visit) {
    const int64_t draws = Draw::count(anchor);
    for (int64_t first = 0; first < draws; first += kWarp) {
      const int64_t draw = first + lane_of();
      const int64_t n = draw < draws ? Draw::negative(anchor, p, draw) : kLeftOut;
      visit(n != kLeftOut, n);
    }
  }

  template <class Visit>
  static __device__ void each_own(const AnchorView& anchor, const Visit& visit) {
    const int64_t draws = Draw::count(anchor);
    for (int64_t p = anchor.range.begin[kPositive]; p < anchor.range.end[kPositive]; ++p) {
      for (int64_t draw = 0; draw < draws; ++draw) {
        const int64_t n = Draw::negative(anchor, p, draw);
        if (n >= 0 && n % kListThreads == threadIdx.x) visit(p, n);
      }
    }
  }
};

// One draw, made by prepare.
struct ChosenBefore {
  static __device__ int64_t count(const AnchorView&) { return 1; }
  static __device__ int64_t negative(const AnchorView& anchor, int64_t p, int64_t) {
    return anchor.chosen(p);
  }
};

template <class Policy>
struct BlockRule;

template <>
struct BlockRule<SemiHard> : ByDraws<ChosenBefore> {
  static __device__ void prepare(AnchorView& anchor, ListShared& shared) {
    const int64_t farthest = farthest_of(anchor, kNegative, shared);
    if (farthest < 0 && !anchor.options().uncovered) return anchor.form_nothing();
    const int64_t nearest = nearest_of(anchor, kNegative, shared);
    const bool sorts = anchor.n(kPositive) > kScannedPositives;
    if (sorts) sort_negatives(anchor);
    for (int64_t p = warp_of(); p < anchor.n(kPositive); p += kListWarps) {
      int64_t found = kUncovered;
      if (farthest >= 0) {
        const Search search(anchor, p, nearest, farthest);
        found = sorts ? search.in_order() : search.among_all();
        if (found < 0) found = anchor.options().drop_without_semihard ? kLeftOut : farthest;
      }
      if (lane_of() == 0) anchor.chosen(p) = static_cast<int32_t>(found);
    }
    __syncthreads();
  }

 private:
  // For the nearest negative beyond the threshold of a positive; -1 = there is none.
  struct Search {
    const AnchorView& anchor;
    bool by_key;
    Threshold threshold{};

    __device__ Search(const AnchorView& of, int64_t p, int64_t nearest, int64_t farthest)
        : anchor(of) {
      const ListProblem& options = anchor.options();
      const double h =
          options.hardness_value == nullptr ? options.hardness : *options.hardness_value;
      by_key = h == 0.5;
      threshold = by_key ? Threshold{anchor.key(kPositive, p), false}
                         : SemiHard::threshold(h, anchor.distance(kPositive, p),
                                               anchor.distance(kNegative, nearest),
                                               anchor.distance(kNegative, farthest));
    }
    __device__ bool passed_by(int64_t n) const {
      return threshold.passed_by(by_key ? anchor.key(kNegative, n) : anchor.distance(kNegative, n));
    }
    __device__ int64_t among_all() const {
      BestPair best{0, -1};
      for (int64_t n = lane_of(); n < anchor.n(kNegative); n += kWarp) {
        if (passed_by(n)) best.offer(anchor.key(kNegative, n), n);
      }
      merge_lanes(best);
      return best.row;
    }
    // NaN first, then ascending: without NaN the answer is the first of a suffix.
    __device__ int64_t in_order() const {
      const int64_t first = anchor.sorted(0);
      const double key = anchor.key(kNegative, first);
      if (key != key) return first;
      const int64_t n = anchor.n(kNegative);
      const int64_t beyond = first_where(n, [&](int64_t k) { return passed_by(anchor.sorted(k)); });
      return beyond == n ? -1 : anchor.sorted(beyond);
    }
  };
};

// A rule of the difference of two distances.
template <class Policy>
struct DifferenceMember {
  static __device__ bool contains(const AnchorView& anchor, int64_t p, int64_t n) {
    const ListProblem& options = anchor.options();
    const double margin = options.margin_values == nullptr
                              ? options.mining_margin
                              : options.margin_values[anchor.anchor() * options.margin_stride];
    return Policy::contains(anchor.distance(kNegative, n) - anchor.distance(kPositive, p), margin);
  }
};

struct EveryMember {
  static __device__ bool contains(const AnchorView&, int64_t, int64_t) { return true; }
};

template <>
struct BlockRule<BatchAll> : ByMembers<EveryMember> {
  static __device__ void prepare(AnchorView&, ListShared&) {}
};

template <class Member>
struct BlockRule<TripletSet<Member>> : ByMembers<DifferenceMember<Member>> {
  static __device__ void prepare(AnchorView&, ListShared&) {}
};

template <>
struct BlockRule<EasyHard> : ByMembers<EveryMember> {
  static __device__ void prepare(AnchorView& anchor, ListShared& shared) {
    const Strategy of[2] = {anchor.options().positive_mining, anchor.options().negative_mining};
    if (anchor.n(kPositive) == 0 || anchor.n(kNegative) == 0) return anchor.form_nothing();
    int64_t chosen[2];
#pragma unroll
    for (int role = 0; role < 2; ++role) {
      const int64_t nearest = nearest_of(anchor, role, shared);
      const int64_t farthest = farthest_of(anchor, role, shared);
      chosen[role] = role == kPositive ? EasyHard::pick(of[role], nearest, farthest)
                                       : EasyHard::pick(of[role], farthest, nearest);
    }
    if (of[kNegative] == Strategy::semihard) {
      const Threshold beyond{anchor.key(kPositive, chosen[kPositive]), false};
      chosen[kNegative] = best_of_side(
          anchor, kNegative, Seek::nearest, [=](double key) { return beyond.passed_by(key); },
          shared);
    } else if (of[kPositive] == Strategy::semihard) {
      const double bound = anchor.key(kNegative, chosen[kNegative]);
      chosen[kPositive] = best_of_side(
          anchor, kPositive, Seek::farthest, [=](double key) { return key < bound || key != key; },
          shared);
    }
#pragma unroll
    for (int role = 0; role < 2; ++role) {
      if (of[role] == Strategy::all) continue;
      anchor.range.begin[role] = static_cast<int32_t>(chosen[role] < 0 ? 0 : chosen[role]);
      anchor.range.end[role] = static_cast<int32_t>(chosen[role] + 1);
    }
  }
};

template <>
struct BlockRule<DistanceWeighted> : ByDraws<ChosenBefore> {
  static __device__ void prepare(AnchorView& anchor, ListShared& shared) {
    const double total = add_up_weights(anchor, shared);
    if (!(total > 0)) return anchor.form_nothing();
    for (int64_t p = threadIdx.x; p < anchor.n(kPositive); p += kListThreads) {
      const double goal = DistanceWeighted::goal(anchor.options().seed, anchor.anchor(),
                                                 anchor.row(kPositive, p), total);
      const int64_t last = anchor.n(kNegative) - 1;
      const int64_t drawn = first_where(last, [&](int64_t n) { return anchor.running(n) > goal; });
      anchor.chosen(p) = static_cast<int32_t>(drawn);
    }
    __syncthreads();
  }

 private:
  // Running sums of the weights; returns the last. A thread adds up a run of negatives, then come
  // the sums of all before it: they never descend, for each run begins with the end of the last.
  static __device__ double add_up_weights(const AnchorView& anchor, ListShared& shared) {
    const int64_t n = anchor.n(kNegative);
    const int64_t run = (n + kListThreads - 1) / kListThreads;
    const int64_t begin = run * threadIdx.x < n ? run * threadIdx.x : n;
    const int64_t end = begin + run < n ? begin + run : n;
    const double most = write_log_weights(anchor, shared);
    double sum = 0;
    for (int64_t k = begin; k < end; ++k) {
      const double weight = anchor.running(k);
      if (weight > DistanceWeighted::never) sum += ::exp(weight - most);
      anchor.running(k) = sum;
    }
    shared.of_thread[threadIdx.x] = sum;
    __syncthreads();
    double before = 0;
    for (int t = 0; t < static_cast<int>(threadIdx.x); ++t) before += shared.of_thread[t];
    for (int64_t k = begin; k < end; ++k) anchor.running(k) += before;
    __syncthreads();
    return n == 0 ? 0 : anchor.running(n - 1);
  }

  // The largest.
  static __device__ double write_log_weights(const AnchorView& anchor, ListShared& shared) {
    const auto dim = static_cast<double>(anchor.state.ranking.dim);
    double most = DistanceWeighted::never;
    for (int64_t k = threadIdx.x; k < anchor.n(kNegative); k += kListThreads) {
      const double distance = square_root(anchor.key(kNegative, k));
      anchor.running(k) = DistanceWeighted::log_weight(distance, dim);
      most = anchor.running(k) > most ? anchor.running(k) : most;
    }
    shared.of_thread[threadIdx.x] = most;
    __syncthreads();
    for (const double other : shared.of_thread) most = other > most ? other : most;
    __syncthreads();
    return most;
  }
};

struct RandomDraw {
  static __device__ int64_t count(const AnchorView& anchor) { return anchor.options().n_negatives; }
  static __device__ int64_t negative(const AnchorView& anchor, int64_t p, int64_t draw) {
    return RandomNegatives::drawn(anchor.options().seed, anchor.anchor(), anchor.row(kPositive, p),
                                  draw, anchor.n(kNegative));
  }
};

template <>
struct BlockRule<RandomNegatives> : ByDraws<RandomDraw> {
  static __device__ void prepare(AnchorView& anchor, ListShared&) {
    if (anchor.n(kNegative) == 0) anchor.form_nothing();
  }
};

}  // namespace flashmetric::cuda
