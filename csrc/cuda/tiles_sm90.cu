// SPDX-License-Identifier: BSD-3-Clause
// The main loop of compute capability 9.0a, compiled for nothing else.
#include "marked_gate.cuh"
#include "semihard_gate.cuh"
#include "tiles.h"
#include "tiles_wgmma.cuh"

namespace flashmetric::cuda {

namespace {

template <class Judge>
void launch(const typename Judge::State& state, cudaStream_t stream, Launches& launches) {
  constexpr int limit = 227 * 1024;                               // shared memory of a block
  constexpr int fixed = 1024 + kColumnsBytes + kRowsBytes + 256;  // and alignment, barriers
  constexpr int resident_chunks = 4;                              // leaves three stages
  constexpr int most_stages = 8;
  WgmmaPlan plan{};
  plan.products = state.products();
  const bool resident = plan.products.stored() <= resident_chunks;
  plan.resident_bytes = resident ? plan.products.stored() * kQueryChunkBytes : 0;
  plan.stage_bytes = kRefChunkBytes + (resident ? 0 : kQueryChunkBytes);
  const int room = (limit - fixed - plan.resident_bytes) / plan.stage_bytes;
  plan.stages = room < most_stages ? room : most_stages;
  const int bytes = fixed + plan.resident_bytes + plan.stages * plan.stage_bytes;
  const auto kernel = reduce_tiles_wgmma<Judge>;
  static std::atomic<uint64_t> allowed{0};
  launches.note(allow_shared(kernel, limit, allowed), "cudaFuncSetAttribute");
  const int rows = state.queries_tiled() / kWgmmaRows;
  const dim3 grid(static_cast<unsigned>(rows), static_cast<unsigned>(state.tile_splits));
  start(launches, "reduce_tiles_wgmma", kernel, grid, kWgmmaThreads, static_cast<size_t>(bytes),
        stream, state, plan);
}

}  // namespace

void launch_tiles_wgmma(const MineState& state, cudaStream_t stream, Launches& launches) {
  launch<SeekExtremes<BatchHard>>(state, stream, launches);
}
void launch_tiles_wgmma(const SemiHardState& state, cudaStream_t stream, Launches& launches) {
  launch<SeekSemiHard>(state, stream, launches);
}
void launch_tiles_wgmma(const MarkedState& state, cudaStream_t stream, Launches& launches) {
  launch<MarkPairs>(state, stream, launches);
}

}  // namespace flashmetric::cuda
