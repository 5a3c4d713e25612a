// SPDX-License-Identifier: BSD-3-Clause
// What the stages hand to each other where tiles mark the pairs that may have a term in a loss over
// all pairs: negatives that the bound of certificate.h cannot exclude from the margin. Positives
// need no mark, they lie side by side.
//
// A mark is a bit. For each query in the order of classes there are 16 bits for every 64 references
// and lane of four: bit 2 b + e of lane q is reference 8 b + 2 q + e, as a thread of a main loop
// has its sums (fragments.h).
#pragma once

#include "dense_state.cuh"

namespace flashmetric::cuda {

constexpr int kMarkBits = 16;
constexpr int kMarkColumns = 4 * kMarkBits;  // that four lanes share

struct MarkedState : MineState {
  // Of the dense queries (dense_state.cuh), by their number.
  const float* half = nullptr;
  const float* dense_slack = nullptr;
  const HalfScale* scale = nullptr;
  Numbers margin;
  const double* bounds = nullptr;  // null: not online
  uint16_t* marks = nullptr;       // [queries_tiled()][padded references / kMarkBits]

  FM_HD int64_t marks_of_row() const { return ranked[1].padded / kMarkBits; }
};

}  // namespace flashmetric::cuda
