// SPDX-License-Identifier: BSD-3-Clause
// The main loop of every architecture with mma.sync; for older ones an empty kernel.
#include "tiles.h"
#include "tiles_mma.cuh"

namespace flashmetric::cuda {

namespace {

template <int stages>
void launch(const MineState& state, cudaStream_t stream, Launches& launches) {
  constexpr int bytes =
      static_cast<int>(sizeof(MmaShared<stages>)) + 128;  // to start on a swizzled row
  const auto kernel = reduce_tiles_mma<BatchHard, stages>;
  static std::atomic<uint64_t> allowed{0};
  launches.note(allow_shared(kernel, bytes, allowed), "cudaFuncSetAttribute");
  const int rows = state.ranked[0].padded / kMmaRows;
  const dim3 grid(static_cast<unsigned>(rows), static_cast<unsigned>(state.tile_splits));
  start(launches, "reduce_tiles_mma", kernel, grid, kMmaThreads, bytes, stream, state);
}

}  // namespace

void launch_tiles_mma(const MineState& state, int shared_limit, cudaStream_t stream,
                      Launches& launches) {
  constexpr int three = static_cast<int>(sizeof(MmaShared<3>)) + 128;
  if (shared_limit >= three) {
    launch<3>(state, stream, launches);
  } else {
    launch<2>(state, stream, launches);
  }
}

}  // namespace flashmetric::cuda
