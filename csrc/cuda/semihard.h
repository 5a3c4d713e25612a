// SPDX-License-Identifier: BSD-3-Clause
// The semi-hard loss by tiles, as the host sees it: batches of small classes. On the device it may
// turn out that classes are large; then `crowded` says so, and the dense kernels do it.
#pragma once

#include "semihard_state.cuh"
#include "stages.h"

namespace flashmetric::cuda {

struct SemiHardTiles {
  MineProblem mined;
  TripletProblem terms;
  SemiHardState state;
  TripletState loss;

  SemiHardTiles(const DenseProblem& problem, Names names, const DeviceFacts& facts);
  // Whether they can be: whatever the labels.
  bool possible() const { return state.by_tiles && terms.dtype == DType::float32; }
  void lay_out_zeros(Arena& arena, const DeviceFacts& facts);
  void lay_out_rest(Arena& arena);
  void launch(const DeviceFacts& facts, cudaStream_t stream, Launches& launches) const;
};

}  // namespace flashmetric::cuda
