// SPDX-License-Identifier: BSD-3-Clause
// POLICY HEADER. A list rule says which triplets an anchor forms, given the float64 keys of all its
// positives and negatives. Rows ascend, so the first of equals is the lowest row.
//   bound(n_positive, n_negative, options)  at most so many triplets
//   measure                                 what is compared with thresholds: keys or distances
//   list(anchor, options, sink)             calls sink(positive, negative): positions, not rows
// and whatever else a rule computes of single numbers, which a GPU shares (cuda/list_rules.cuh).
// Sources and exact wording: /docs/mining.md. A NaN key beats any other, as in torch.min and max.
#pragma once

#include <cstdint>
#include <string_view>

#include "flashmetric.h"
#include "math.h"
#include "random.h"
#include "sides.h"

namespace flashmetric {

struct AnchorRow {
  int64_t anchor = 0;
  Side positive, negative;
  double margin = 0;  // of the sets
  int64_t dim = 0;
  double* scratch = nullptr;  // [negatives]
};

enum class Measure { none, key, distance, sphere };  // sphere: distances of the normalised rows

// Schroff, Kalenichenko, Philbin 2015 (FaceNet), section 3.2, with a threshold that `hardness`
// moves between the farthest negative (0), d_ap (1/2) and the nearest (1).
struct SemiHard {
  static constexpr std::string_view name = "semihard";
  static constexpr bool sorts = true;
  static Measure measure(const ListProblem& options) {
    return options.hardness == 0.5 ? Measure::key : Measure::distance;
  }
  // Of distances: d_ap, those of the anchor's nearest and farthest negative; any hardness but 1/2.
  FM_HD static Threshold threshold(double h, double d_ap, double nearest, double farthest) {
    const double up = relu(farthest - d_ap);
    const double down = relu(d_ap - nearest);
    return {h < 0.5 ? d_ap + (1 - 2 * h) * up : d_ap - (2 * h - 1) * down, h > 0.5};
  }
  static int64_t bound(int64_t positives, int64_t, const ListProblem&) { return positives; }

  template <class Sink>
  static void list(const AnchorRow& anchor, const ListProblem& options, const Sink& sink) {
    const Side& negative = anchor.negative;
    const int64_t farthest = farthest_of(negative);
    if (farthest < 0 && !options.uncovered) return;
    const int64_t nearest = nearest_of(negative);
    for (int64_t p = 0; p < anchor.positive.n; ++p) {
      const int64_t found = farthest < 0 ? -1 : choose(anchor, options, p, nearest, farthest);
      const bool missing = found < 0 && farthest >= 0;
      if (missing && options.drop_without_semihard) continue;
      sink(p, missing ? farthest : found);
    }
  }

 private:
  static int64_t choose(const AnchorRow& anchor, const ListProblem& options, int64_t p,
                        int64_t nearest, int64_t farthest) {
    const double h = options.hardness;
    const Side& negative = anchor.negative;
    if (h == 0.5) return nearest_beyond(negative, negative.key, {anchor.positive.key[p], false});
    const Threshold beyond = threshold(h, anchor.positive.distance[p], negative.distance[nearest],
                                       negative.distance[farthest]);
    return nearest_beyond(negative, negative.distance, beyond);
  }
};

struct BatchAll {
  static constexpr std::string_view name = "all";
  FM_HD static bool contains(double, double) { return true; }
  static constexpr bool sorts = false;
  static Measure measure(const ListProblem&) { return Measure::none; }
  static int64_t bound(int64_t positives, int64_t negatives, const ListProblem&) {
    return positives * negatives;
  }
  template <class Sink>
  static void list(const AnchorRow& anchor, const ListProblem&, const Sink& sink) {
    for (int64_t p = 0; p < anchor.positive.n; ++p) {
      for (int64_t n = 0; n < anchor.negative.n; ++n) sink(p, n);
    }
  }
};

// The sets of Member: (diff = d_an - d_ap, margin) -> bool; NaN belongs to each.
template <class Member>
struct TripletSet {
  static constexpr std::string_view name = Member::name;
  FM_HD static bool contains(double diff, double margin) { return Member::contains(diff, margin); }
  static constexpr bool sorts = false;
  static Measure measure(const ListProblem&) { return Measure::distance; }
  static int64_t bound(int64_t positives, int64_t negatives, const ListProblem&) {
    return positives * negatives;
  }
  template <class Sink>
  static void list(const AnchorRow& anchor, const ListProblem&, const Sink& sink) {
    for (int64_t p = 0; p < anchor.positive.n; ++p) {
      for (int64_t n = 0; n < anchor.negative.n; ++n) {
        const double diff = anchor.negative.distance[n] - anchor.positive.distance[p];
        if (contains(diff, anchor.margin)) sink(p, n);
      }
    }
  }
};

struct SemiHardMember {
  static constexpr std::string_view name = "semihard_all";
  FM_HD static bool contains(double diff, double margin) {
    return !(diff <= 0) && !(diff > margin);
  }
};
struct HardMember {
  static constexpr std::string_view name = "hard_all";
  FM_HD static bool contains(double diff, double) { return !(diff > 0); }
};
struct EasyMember {
  static constexpr std::string_view name = "easy_all";
  FM_HD static bool contains(double diff, double margin) { return !(diff <= margin); }
};

// Xuan, Stylianou, Pless 2020, "Improved Embeddings with Easy Positive Triplet Mining", with the
// strategies of pytorch-metric-learning. The side that is not semi-hard is chosen first.
struct EasyHard {
  static constexpr std::string_view name = "easy_hard";
  static constexpr bool sorts = false;
  static Measure measure(const ListProblem&) { return Measure::key; }
  static int64_t bound(int64_t positives, int64_t negatives, const ListProblem& options) {
    return (options.positive_mining == Strategy::all ? positives : 1) *
           (options.negative_mining == Strategy::all ? negatives : 1);
  }
  // The one of a side that is not semi-hard.
  FM_HD static int64_t pick(Strategy strategy, int64_t easy, int64_t hard) {
    return strategy == Strategy::hard ? hard : easy;
  }

  template <class Sink>
  static void list(const AnchorRow& anchor, const ListProblem& options, const Sink& sink) {
    const Side& positive = anchor.positive;
    const Side& negative = anchor.negative;
    if (positive.n == 0 || negative.n == 0) return;
    int64_t p = pick(options.positive_mining, nearest_of(positive), farthest_of(positive));
    int64_t n = pick(options.negative_mining, farthest_of(negative), nearest_of(negative));
    if (options.negative_mining == Strategy::semihard) {
      n = nearest_beyond(negative, negative.key, {positive.key[p], false});
    } else if (options.positive_mining == Strategy::semihard) {
      p = farthest_below(positive, negative.key[n]);
    }
    const bool every_p = options.positive_mining == Strategy::all;
    const bool every_n = options.negative_mining == Strategy::all;
    if (!every_p && p < 0) return;
    if (!every_n && n < 0) return;
    for (int64_t i = every_p ? 0 : p; i < (every_p ? positive.n : p + 1); ++i) {
      for (int64_t j = every_n ? 0 : n; j < (every_n ? negative.n : n + 1); ++j) sink(i, j);
    }
  }
};

// Wu, Manmatha, Smola, Kraehenbuehl 2017, "Sampling Matters in Deep Embedding Learning", section 4:
// distances on the sphere of dimension D follow q(d) = d^(D-2) (1 - d^2/4)^((D-3)/2).
struct DistanceWeighted {
  static constexpr std::string_view name = "distance_weighted";
  static constexpr bool sorts = false;
  static constexpr double nearest = 0.5;   // nearer negatives are noise: they get its weight
  static constexpr double farthest = 1.4;  // farther ones (90 degrees are 1.414) teach nothing
  static constexpr double never = -__builtin_huge_val();
  static Measure measure(const ListProblem&) { return Measure::sphere; }
  static int64_t bound(int64_t positives, int64_t, const ListProblem&) { return positives; }
  FM_HD static double log_weight(double distance, double dim) {
    const double d = distance < nearest ? nearest : distance;
    return d < farthest ? -((dim - 2) * ::log(d) + (dim - 3) / 2 * ::log(1 - d * d / 4)) : never;
  }
  // Between the running sums of the weights, the negative of a positive row.
  FM_HD static double goal(uint64_t seed, int64_t anchor, int64_t positive, double total) {
    return uniform(seed, anchor, positive, 0) * total;
  }

  template <class Sink>
  static void list(const AnchorRow& anchor, const ListProblem& options, const Sink& sink) {
    const double total = accumulate(anchor);
    if (!(total > 0)) return;
    for (int64_t p = 0; p < anchor.positive.n; ++p) {
      const double goal_of_p = goal(options.seed, anchor.anchor, anchor.positive.row[p], total);
      int64_t n = 0;
      while (n + 1 < anchor.negative.n && !(anchor.scratch[n] > goal_of_p)) ++n;
      sink(p, n);
    }
  }

 private:
  // Running sums of the weights into the scratch; returns the last.
  static double accumulate(const AnchorRow& anchor) {
    const Side& negative = anchor.negative;
    const auto dim = static_cast<double>(anchor.dim);
    double most = never;
    for (int64_t n = 0; n < negative.n; ++n) {
      anchor.scratch[n] = log_weight(negative.distance[n], dim);
      most = anchor.scratch[n] > most ? anchor.scratch[n] : most;
    }
    double sum = 0;
    for (int64_t n = 0; n < negative.n; ++n) {
      if (anchor.scratch[n] > never) sum += ::exp(anchor.scratch[n] - most);
      anchor.scratch[n] = sum;
    }
    return sum;
  }
};

struct RandomNegatives {
  static constexpr std::string_view name = "random";
  static constexpr bool sorts = false;
  static Measure measure(const ListProblem&) { return Measure::none; }
  static int64_t bound(int64_t positives, int64_t, const ListProblem& options) {
    return positives * options.n_negatives;
  }
  // Which of so many negatives.
  FM_HD static int64_t drawn(uint64_t seed, int64_t anchor, int64_t positive, int64_t draw,
                             int64_t negatives) {
    return static_cast<int64_t>(uniform(seed, anchor, positive, draw) *
                                static_cast<double>(negatives));
  }
  template <class Sink>
  static void list(const AnchorRow& anchor, const ListProblem& options, const Sink& sink) {
    for (int64_t p = 0; p < anchor.positive.n && anchor.negative.n > 0; ++p) {
      const int64_t row = anchor.positive.row[p];
      for (int64_t draw = 0; draw < options.n_negatives; ++draw) {
        sink(p, drawn(options.seed, anchor.anchor, row, draw, anchor.negative.n));
      }
    }
  }
};

using ListRules = TypeList<SemiHard, BatchAll, TripletSet<SemiHardMember>, TripletSet<HardMember>,
                           TripletSet<EasyMember>, EasyHard, DistanceWeighted, RandomNegatives>;

}  // namespace flashmetric
