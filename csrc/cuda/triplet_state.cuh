// SPDX-License-Identifier: BSD-3-Clause
// What the stages of a triplet loss hand to each other.
#pragma once

#include "../names.h"
#include "state.cuh"

namespace flashmetric::cuda {

// The three pairs of a triplet. kPN only carries gradient when anchor and positive swap.
enum Pair : int { kAP = 0, kAN = 1, kPN = 2 };
constexpr int kPairs = 3;

// Touches of a row that are listed; up to six more are known without a list. A row that more pairs
// touch is a hub, which a block gathers: one warp would take as long as all others together.
constexpr int kTouches = 26;
constexpr int kMostTouches = kTouches + 6;
// Touches of a hub that its block can sort; of a larger one it looks through all triplets.
constexpr int kHubTouches = 512;
// Touches beyond all lists that a hub looks through for its own; of more it follows its chain, one
// memory latency each.
constexpr int kFewOverflows = 1 << 16;

// Of a block that evaluates or adds up: most of its time goes into sums, one level after the other,
// and many small blocks have fewer of them.
constexpr int kTripletThreads = 128;

// Over triplets, in a fixed tree.
struct TripletSums {
  ExactSum total, counted, active, ap, an, norms;
  double valid = 0;
  double valid_active = 0;
  double farthest = 0;
  double nearest = 0;

  // The negated comparisons let NaN win, as torch.max and torch.min do.
  FM_HD void reach(double d_ap, double d_an) {
    if (valid == 0 || !(d_ap <= farthest)) farthest = farthest != farthest ? farthest : d_ap;
    if (valid == 0 || !(d_an >= nearest)) nearest = nearest != nearest ? nearest : d_an;
  }
  FM_HD void add(const TripletSums& other, bool with_stats) {
    total.add(other.total);
    counted.add(other.counted);
    active.add(other.active);
    if (!with_stats) return;
    ap.add(other.ap);
    an.add(other.an);
    norms.add(other.norms);
    if (other.valid != 0) reach(other.farthest, other.nearest);
    valid += other.valid;
    valid_active += other.valid_active;
  }
};

// A touch that found the list of its row full; chained to the one before it of the same row.
struct Overflow {
  int32_t row;
  uint32_t touch;
  int32_t before;  // 1 + its position, 0 = none
};

// The pairs that touch the rows of one set.
struct TouchLists {
  int32_t* count = nullptr;      // [rows]
  uint32_t* touch = nullptr;     // [rows][kTouches] (t * 3 + pair) * 2 + side
  int32_t* hubs = nullptr;       // [rows] those with more
  Overflow* overflow = nullptr;  // what they have more
  int32_t* last = nullptr;       // [rows] 1 + where the chain of a row begins
};

struct TripletState {
  KeyForm key{};
  int64_t dim = 0;
  int64_t n = 0;
  AnyRows rows[3];
  int first_role[3] = {0, 1, 2};
  const int64_t* index[3] = {};  // null = t itself
  double margin = 0;
  const double* margin_values = nullptr;
  int64_t margin_stride = 0;
  int shift = 0;  // 2^shift triplets in turn have the margin, weight and cotangent of one anchor
  bool soft_margin = false, swap = false, count_invalid = false, far_from_none = false;
  Reduction reduction = Reduction::mean;
  const double* weights = nullptr;
  const void* cotangent = nullptr;
  int64_t cotangent_stride = 0;
  void* loss = nullptr;
  void* grad[3] = {};
  double* stats = nullptr;
  double* totals = nullptr;

  double* keys[kPairs] = {};         // [n]
  double* coefficient[kPairs] = {};  // [n] d term / d distance * slope of the distance
  TripletSums* block_sums = nullptr;
  double* scale = nullptr;       // 1 / what the sum is divided by
  TouchLists touches[3];         // by first role
  double* hub_buffer = nullptr;  // [kHubBlocks][warps][dim]
  Tally* tally = nullptr;
  const int32_t* elsewhere = nullptr;  // not 0: another path has this loss; null = there is none

  __device__ bool is_elsewhere() const { return elsewhere != nullptr && *elsewhere != 0; }
  __device__ int64_t anchor_of(int64_t t) const { return t >> shift; }
  __device__ int64_t row_of(int role, int64_t t) const {
    return index[role] == nullptr ? t : index[role][t];
  }
};

// What an index points to until it has memory: not null, or the layout would take its role for one
// that no list names.
inline constexpr int64_t kNoIndexYet = 0;

constexpr int kHubBlocks = 528;  // four for each multiprocessor of an H100

// The roles of the rows of a pair: anchor 0, positive 1, negative 2.
FM_HD int role_of(int pair, int side) {
  return side == 0 ? (pair == kPN ? 1 : 0) : (pair == kAP ? 1 : 2);
}

template <class T>
struct RowSets {
  RowView<T> of[3];  // by role
};

}  // namespace flashmetric::cuda
