// SPDX-License-Identifier: BSD-3-Clause
// What the stages that find semi-hard negatives by tiles hand to each other.
//
// With L and U the lower and upper bound of a score (certificate.h; U_ij = L_ij + 2 slack_j, and
// the score is within slack_i of both), and s the score of positive p of row i in float64, which is
// off by e at most, a reference j
//   is certainly beyond p        if  L_ij - slack_i > s + e,
//   is certainly not             if  U_ij < s - e - slack_i =: low_p,
//   is not the nearest of those  if  L_ij > T + 2 slack_i,  T the least U of one that certainly is.
// All others are candidates: U_ij - low_p is in [0, width_p + 2 slack_j] with
// width_p = T + 2 slack_i - low_p. Keys decide between them.
#pragma once

#include "state.cuh"

namespace flashmetric::cuda {

// Positives of an anchor that tiles look beyond. Batches with larger classes are left to the dense
// kernels: each positive costs a comparison of every pair.
constexpr int kMostPositives = 8;
constexpr int kPositivesShift = 3;
static_assert(1 << kPositivesShift == kMostPositives);

// Blocks that judge rows by keys: four for each multiprocessor of an H100.
constexpr int kRowKeyBlocks = 528;

// The best negative beyond a positive, and the farthest of all, by the negated key. Lane q of every
// eight has that of positive q.
struct RowBests {
  BestPair beyond{0, -1};
  BestPair farthest{0, -1};

  __device__ void offer(const RowBests& other) {
    beyond.offer(other.beyond.key, other.beyond.row);
    farthest.offer(other.farthest.key, other.farthest.row);
  }
  __device__ void offer_lane(int mask) {
    beyond.offer_lane(mask);
    farthest.offer_lane(mask);
  }
};

struct SemiHardState : MineState {
  bool drop = false;           // else the farthest negative where none is beyond
  bool uncovered = false;      // positives count where there is no negative at all
  int32_t* crowded = nullptr;  // an anchor has more positives: nothing is done here
  int32_t* n_valid = nullptr;  // anchors that have a triplet with a negative
  float* low = nullptr;        // [kMostPositives][padded queries]
  float* certain = nullptr;    // the same: s + e + slack_i
  float* widest = nullptr;     // [padded references] largest slack of the 32 that share the place
  uint32_t* width = nullptr;   // [n_query][kMostPositives] lowest_bits, 0: none known
  RowBests* bests = nullptr;   // [kRowKeyBlocks][kMostPositives] of shares of rows by keys
  int32_t* shares_judged = nullptr;  // [kRowKeyBlocks] of each such row
  int64_t* chosen[3] = {};           // [n_query * kMostPositives] anchor, positive, negative
  double* keys[2] = {};              // of both pairs
};

}  // namespace flashmetric::cuda
