// SPDX-License-Identifier: BSD-3-Clause
// The host side of a dense loss: which rule judges a row, and what launches its kernels.
#pragma once

#include "dense_state.cuh"
#include "stages.h"

namespace flashmetric::cuda {

enum class DenseRule { contrastive, hinges, softplus, soft, semihard };

// Rules that sort the positives of a row, and need memory for them.
inline bool lists_positives(DenseRule rule) {
  return rule != DenseRule::contrastive && rule != DenseRule::soft;
}

// Calls launch with the type of the rows.
template <class Launch>
void with_wide(DType dtype, const Launch& launch) {
  if (dtype == DType::float64) return launch(double{});
  launch(float{});
}

// Blocks of a kernel, which take the parts of its work in turns. Where there is mostly nothing to
// do, no more than the GPU has room for: that many come and go in a microsecond.
inline unsigned few_blocks(const DenseState& state, int64_t parts) {
  const unsigned blocks = blocks_for(parts, 1);
  return state.seldom && blocks > state.room ? state.room : blocks;
}

// Memory for what a kernel leaves to the next: what the cache keeps beside what that one reads as
// well. 31 MiB of an H100's 50.
inline int64_t kept_bytes(const DeviceFacts& facts) { return int64_t{facts.cache_bytes} * 5 / 8; }

// Fills the rows of a chunk.
void launch_fill(const DenseState& state, Chunk chunk, cudaStream_t stream, Launches& launches);
// Judges them: coefficients instead of h, and what the anchors add to the loss.
void launch_rule(const DenseState& state, DenseRule rule, Chunk chunk, cudaStream_t stream,
                 Launches& launches);
// The weights of the pairs of each anchor.
void launch_counts(const DenseState& state, cudaStream_t stream, Launches& launches);
// Adds what the coefficients give the queries, the references.
void launch_sums(const DenseState& state, bool queries, bool references, Chunk chunk,
                 int multiprocessors, cudaStream_t stream, Launches& launches);
// Rows of partial sums of products, in all splits.
int64_t partial_rows(const DenseState& state, int multiprocessors);
void launch_writes(const DenseState& state, cudaStream_t stream, Launches& launches);

}  // namespace flashmetric::cuda
