// SPDX-License-Identifier: BSD-3-Clause
// The main loop of every architecture with mma.sync; for older ones an empty kernel.
#include "marked_gate.cuh"
#include "semihard_gate.cuh"
#include "tiles.h"
#include "tiles_mma.cuh"

namespace flashmetric::cuda {

namespace {

template <class Judge, int stages>
void launch(const typename Judge::State& state, cudaStream_t stream, Launches& launches) {
  constexpr int bytes = kMmaBytes<Judge, stages>;
  const auto kernel = reduce_tiles_mma<Judge, stages>;
  static std::atomic<uint64_t> allowed{0};
  launches.note(allow_shared(kernel, bytes, allowed), "cudaFuncSetAttribute");
  const int rows = state.queries_tiled() / kMmaRows;
  const dim3 grid(static_cast<unsigned>(rows), static_cast<unsigned>(state.tile_splits));
  start(launches, "reduce_tiles_mma", kernel, grid, kMmaThreads, bytes, stream, state);
}

// With as many stages as there is memory for.
template <class Judge>
void launch_stages(const typename Judge::State& state, int shared_limit, cudaStream_t stream,
                   Launches& launches) {
  if (shared_limit >= kMmaBytes<Judge, 3>) {
    launch<Judge, 3>(state, stream, launches);
  } else {
    launch<Judge, 2>(state, stream, launches);
  }
}

}  // namespace

void launch_tiles_mma(const MineState& state, int shared_limit, cudaStream_t stream,
                      Launches& launches) {
  launch_stages<SeekExtremes<BatchHard>>(state, shared_limit, stream, launches);
}
void launch_tiles_mma(const SemiHardState& state, int shared_limit, cudaStream_t stream,
                      Launches& launches) {
  launch_stages<SeekSemiHard>(state, shared_limit, stream, launches);
}
void launch_tiles_mma(const MarkedState& state, int shared_limit, cudaStream_t stream,
                      Launches& launches) {
  launch_stages<MarkPairs>(state, shared_limit, stream, launches);
}

}  // namespace flashmetric::cuda
