// SPDX-License-Identifier: BSD-3-Clause
// What the stages of listing hand to each other: rows of float64 keys of a chunk of anchors, and
// what a block finds in the row of its anchor.
#pragma once

#include "../list_rules.h"
#include "triplet_state.cuh"

namespace flashmetric::cuda {

constexpr int kListThreads = 256;    // of the block of an anchor
constexpr int kFinishThreads = 512;  // of the one block that adds up those of all anchors
constexpr int kListWarps = kListThreads / kWarp;

// In place of the position of a negative.
constexpr int64_t kUncovered = -1;  // there is none, and the pair counts
constexpr int64_t kLeftOut = -2;    // there is none

// The positives and negatives that a rule forms triplets of: positions in the sides of an anchor.
struct Ranges {
  int32_t begin[2], end[2];  // by role
};

struct ListState {
  ListProblem problem;
  MineState ranking;          // the rows and the labels, and the key that ranks
  int64_t first = 0;          // anchor of the chunk
  int64_t anchors = 0;        // in the chunk
  Ranges* ranges = nullptr;   // [anchors]
  int64_t* listed = nullptr;  // [anchors] how many triplets, then how many before them
  // [anchors][n_ref]:
  double* key = nullptr;       // that ranks
  double* distance = nullptr;  // its value; null = the rule does not ask
  double* value = nullptr;     // key as a value; may be `key`
  int32_t* rows = nullptr;     // positives ascending from the front, negatives from the back
  int32_t* chosen = nullptr;   // from the front the negative of each positive, from the back what
                               // order the negatives have
  double* running = nullptr;   // sums of the weights of the negatives
  int64_t* before = nullptr;   // by positive: how many triplets, then how many before them
  double* coefficient = nullptr;  // by reference: d loss / d distance * slope of the distance
  double* lost = nullptr;         // what rounding took from it; null = the rows are not float64

  KeyRows key_rows() const { return {first, anchors, ranking.ref.n, key, distance}; }
};

// The row of one anchor of the chunk.
struct AnchorView {
  const ListState& state;
  int64_t at;  // in the chunk
  Ranges range{};

  __device__ AnchorView(const ListState& of, int64_t row) : state(of), at(row) {}

  __device__ const ListProblem& options() const { return state.problem; }
  __device__ int64_t anchor() const { return state.first + at; }
  __device__ int64_t n_ref() const { return state.ranking.ref.n; }
  __device__ int64_t own(int64_t j) const { return at * n_ref() + j; }
  // Where a position of a side is among the references: in `rows`.
  __device__ int64_t place(int role, int64_t position) const {
    return own(role == kPositive ? position : n_ref() - 1 - position);
  }
  __device__ int64_t row(int role, int64_t position) const {
    return state.rows[place(role, position)];
  }
  __device__ double key(int role, int64_t position) const {
    return state.key[own(row(role, position))];
  }
  __device__ double distance(int role, int64_t position) const {
    return state.distance[own(row(role, position))];
  }
  __device__ double value(int role, int64_t position) const {
    return state.value[own(row(role, position))];
  }
  __device__ int32_t& chosen(int64_t positive) const {
    return state.chosen[place(kPositive, positive)];
  }
  // The negative that is the k-th nearest.
  __device__ int32_t& sorted(int64_t k) const { return state.chosen[place(kNegative, k)]; }
  __device__ double& running(int64_t negative) const { return state.running[own(negative)]; }
  // After a rule has had its say: all of the side.
  __device__ int64_t n(int role) const { return range.end[role] - range.begin[role]; }
  __device__ void form_nothing() { range.end[kPositive] = range.begin[kPositive] = 0; }
};

}  // namespace flashmetric::cuda
