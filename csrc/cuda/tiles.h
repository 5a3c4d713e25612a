// SPDX-License-Identifier: BSD-3-Clause
// The main loops that rank, as the host sees them: their tiles, and how they are launched. Each is
// compiled in a file of its own, for the architectures that have its instructions.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "fragments.h"
#include "launch.cuh"
#include "marked_state.cuh"
#include "semihard_state.cuh"

namespace flashmetric::cuda {

constexpr int kWgmmaRows = 256;
constexpr int kWgmmaColumns = 128;
constexpr int kColumnSlots = 4;  // tiles the numbers of whose columns are in shared memory
constexpr int kQueryChunkBytes = kWgmmaRows * 2 * kFeatures;
constexpr int kRefChunkBytes = kWgmmaColumns * 2 * kFeatures;
// Two numbers of each column, and what sums begin with.
constexpr int kColumnsBytes = kColumnSlots * kWgmmaColumns * (2 * 4 + kStartTerms * 2);

constexpr int kConsumers = 4;  // warpgroups that multiply
// Eight words of each of the two rows of a thread.
constexpr int kRowsBytes = 8 * 2 * kConsumers * 128 * static_cast<int>(sizeof(int32_t));

// How the shared memory of a block is used.
struct WgmmaPlan {
  Products products;
  int resident_bytes;  // of the queries, if they are copied once; else 0
  int stages;
  int stage_bytes;
};

// shared_limit: bytes of shared memory that a block may have.
void launch_tiles_mma(const MineState& state, int shared_limit, cudaStream_t stream,
                      Launches& launches);
void launch_tiles_mma(const SemiHardState& state, int shared_limit, cudaStream_t stream,
                      Launches& launches);
void launch_tiles_mma(const MarkedState& state, int shared_limit, cudaStream_t stream,
                      Launches& launches);
void launch_tiles_wgmma(const MineState& state, cudaStream_t stream, Launches& launches);
void launch_tiles_wgmma(const SemiHardState& state, cudaStream_t stream, Launches& launches);
void launch_tiles_wgmma(const MarkedState& state, cudaStream_t stream, Launches& launches);

// By the main loop of this GPU.
template <class State>
void launch_tiles(const State& state, const DeviceFacts& facts, cudaStream_t stream,
                  Launches& launches) {
  if (!launches.fine()) return;
#if defined(FLASHMETRIC_CUDA_SM90)
  if (path_of(facts.major, facts.minor) == Path::wgmma) {
    return launch_tiles_wgmma(state, stream, launches);
  }
#endif
  launch_tiles_mma(state, facts.shared_bytes, stream, launches);
}

// What a main loop asks of the layout.
struct TileShape {
  int rows, columns;
  int streams;  // threads of a block that share a row
  int blocks;   // on a multiprocessor
};
constexpr TileShape kMmaShape{128, 128, 8, 2};
constexpr TileShape kWgmmaShape{kWgmmaRows, kWgmmaColumns, 4, 1};
inline const TileShape& shape_of(Path path) {
  return path == Path::wgmma ? kWgmmaShape : kMmaShape;
}

// Splits of the references that give every multiprocessor its blocks, and have at most so many
// columns. No split is empty.
inline int column_splits(const TileShape& shape, int rows, int columns, int multiprocessors,
                         int most_columns = INT32_MAX) {
  const int row_blocks = rows / shape.rows > 0 ? rows / shape.rows : 1;
  const int tiles = columns / shape.columns > 0 ? columns / shape.columns : 1;
  const int least = 1 + (columns - 1) / most_columns;
  const int usual = shape.blocks * multiprocessors / row_blocks;
  const int wanted = usual > least ? usual : least;
  const int splits = wanted < 1 ? 1 : wanted < tiles ? wanted : tiles;
  const int share = (tiles + splits - 1) / splits;
  return (tiles + share - 1) / share;
}

// Tiles of a split that are surveyed: at least so many; of many one in sixteen, which leaves log 16
// columns to lower a threshold.
inline int survey_of(const TileShape& shape, int columns, int splits, int least) {
  constexpr int one_in = 16;
  const int tiles = columns / shape.columns > 0 ? columns / shape.columns : 1;
  const int share = (tiles + splits - 1) / splits;
  const int some = share / one_in > least ? share / one_in : least;
  return share < some ? share : some;
}

}  // namespace flashmetric::cuda
