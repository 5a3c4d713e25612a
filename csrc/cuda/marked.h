// SPDX-License-Identifier: BSD-3-Clause
// Losses over all pairs by tiles that mark (marked_state.cuh), as the host sees them.
#pragma once

#include "marked_state.cuh"
#include "stages.h"

namespace flashmetric::cuda {

struct MarkedTiles {
  MineProblem mined;
  MarkedState state;
  bool possible;

  // Whatever the labels.
  MarkedTiles(const DenseProblem& problem, const DenseState& dense, const Names& names,
              const DeviceFacts& facts);
  void lay_out_zeros(Arena& arena);
  // Also what the dense rows have in common with it.
  void lay_out_rest(Arena& arena, DenseState& dense);
  void lay_out_marks(Arena& arena, const DenseState& dense, const DeviceFacts& facts);
  // From rows that are packed to what each adds to the loss.
  void launch(const DenseState& dense, const DeviceFacts& facts, cudaStream_t stream,
              Launches& launches) const;
};

}  // namespace flashmetric::cuda
