// SPDX-License-Identifier: BSD-3-Clause
// The main loop of compute capability 9.0: warpgroup products of tiles in shared memory, which bulk
// copies fill.
//
// Algorithm: a block owns 128 queries and passes over its share of the references, 256 at a time.
// One warpgroup only copies: chunks of 64 features through a ring of stages, the bounds of columns
// through a ring of two. The other two hold 64 x 256 sums each and take turns: the second starts its
// products of a tile when the first has issued its own, so that one of them gates while the other
// keeps the tensor cores busy. Where the queries have at most
// kResidentChunks chunks, they are copied once; else they come with every stage.
#pragma once

#include "gate.cuh"
#include "ptx_sm90.cuh"
#include "tiles.h"

namespace flashmetric::cuda {

constexpr int kWarpgroup = 128;  // threads
constexpr int kWgmmaThreads = 3 * kWarpgroup;
constexpr int kConsumerWarps = 8;
constexpr int kStreams = 4;  // threads that share a row

struct WgmmaShared {
  char* query;   // [chunks][kWgmmaRows] or, with each stage, [kWgmmaRows]
  char* stages;
  float* bounds;  // [2][3][kWgmmaColumns]
  uint64_t* full;
  uint64_t* empty;
  uint64_t* query_full;
  uint64_t* bounds_full;
  uint64_t* bounds_empty;
};

struct WgmmaLoop {
  const MineState& state;
  WgmmaShared shared;
  WgmmaPlan plan;
  int32_t query;  // first position of the block
  int32_t first_tile, tiles;

  FM_DEVICE char* stage_ref(int stage) const { return shared.stages + stage * plan.stage_bytes; }
  FM_DEVICE char* query_chunk(int stage, int chunk) const {
    return plan.resident ? shared.query + chunk * kQueryChunkBytes
                         : stage_ref(stage) + kRefChunkBytes;
  }
  FM_DEVICE const void* rows_at(const RankedSet& set, int chunk, int32_t position) const {
    return set.packed + (int64_t{chunk} * set.padded + position) * kFeatures;
  }

  FM_DEVICE void produce() const {
    const RankedSet& refs = state.ranked[1];
    if (plan.resident) {
      expect_bytes(shared.query_full, static_cast<uint32_t>(plan.chunks * kQueryChunkBytes));
      for (int chunk = 0; chunk < plan.chunks; ++chunk) {
        copy_bytes(query_chunk(0, chunk), rows_at(state.ranked[0], chunk, query), kQueryChunkBytes,
                   shared.query_full);
      }
    }
    int stage = 0;
    uint32_t round = 0;  // through the ring
    for (int tile = 0; tile < tiles; ++tile) {
      const int32_t ref = (first_tile + tile) * kWgmmaColumns;
      for (int chunk = 0; chunk < plan.chunks; ++chunk) {
        if (round > 0) wait(shared.empty + stage, (round - 1) & 1);
        expect_bytes(shared.full + stage, static_cast<uint32_t>(plan.stage_bytes));
        copy_bytes(stage_ref(stage), rows_at(refs, chunk, ref), kRefChunkBytes,
                   shared.full + stage);
        if (!plan.resident) {
          copy_bytes(query_chunk(stage, chunk), rows_at(state.ranked[0], chunk, query),
                     kQueryChunkBytes, shared.full + stage);
        }
        if (++stage == plan.stages) {
          stage = 0;
          ++round;
        }
      }
      produce_bounds(tile, ref);
    }
  }

  template <class Miner>
  FM_DEVICE void consume() const {
    const int thread = static_cast<int>(threadIdx.x) - kWarpgroup;
    const int group_row = thread / kWarpgroup * 64;
    const int lane = thread % kWarp;
    RowGate<2> rows;
    rows.stream = static_cast<int>(blockIdx.y) * kStreams + lane % kStreams;
#pragma unroll
    for (int s = 0; s < 2; ++s) {
      const int row = group_row + thread % kWarpgroup / kWarp * 16 + lane / 4 + s * 8;
      rows.start(state, s, query + row);
    }
    rows.find_special();
    if (plan.resident) wait(shared.query_full, 0);
    int stage = 0;
    uint32_t round = 0;
    const int group = thread / kWarpgroup;
    if (group == 1) pass_turn(0);
    for (int tile = 0; tile < tiles; ++tile) {
      WgmmaSums sums;
      int before = -1;  // the stage whose products may still run
      await_turn(group);
      for (int chunk = 0; chunk < plan.chunks; ++chunk) {
        wait(shared.full + stage, round & 1);
        multiply_chunk(sums, stage, chunk, group_row);
        if (chunk == plan.turn - 1) pass_turn(1 - group);
        wait_for_products<1>();
        if (before >= 0 && lane == 0) arrive(shared.empty + before);
        before = stage;
        if (++stage == plan.stages) {
          stage = 0;
          ++round;
        }
      }
      wait_for_products<0>();
      sums.settle();
      if (lane == 0) arrive(shared.empty + before);
      gate_tile<Miner>(rows, sums, tile, lane);
      }
    publish_rows(state, rows);
  }

 private:
  // Barriers 1 and 2 of the block: one warpgroup waits, the other lets it go on.
  FM_DEVICE static void await_turn(int group) {
    asm volatile("bar.sync %0, 256;\n" ::"r"(1 + group) : "memory");
  }
  FM_DEVICE static void pass_turn(int group) {
    asm volatile("bar.arrive %0, 256;\n" ::"r"(1 + group) : "memory");
  }

  FM_DEVICE void produce_bounds(int tile, int32_t ref) const {
    const int slot = tile % 2;
    if (tile >= 2) wait(shared.bounds_empty + slot, (tile / 2 - 1) & 1);
    constexpr uint32_t bytes = kWgmmaColumns * sizeof(float);
    expect_bytes(shared.bounds_full + slot, 3 * bytes);
    const RankedSet& refs = state.ranked[1];
    const float* from[3] = {refs.lower[0], refs.lower[1], refs.slack};
#pragma unroll
    for (int kind = 0; kind < 3; ++kind) {
      copy_bytes(shared.bounds + (slot * 3 + kind) * kWgmmaColumns, from[kind] + ref, bytes,
                 shared.bounds_full + slot);
    }
  }

  // Register 4 b + 2 s + e of a thread: row s, column e of block b.
  struct WgmmaSums {
    float sum[128];
    FM_DEVICE float operator()(int slot, int block, int e) const {
      return sum[block * 4 + slot * 2 + e];
    }
    // The products run behind the compiler's back: nothing may read the sums before this.
    FM_DEVICE void settle() {
#pragma unroll
      for (int i = 0; i < 128; ++i) asm volatile("" : "+f"(sum[i])::"memory");
    }
  };

  FM_DEVICE void multiply_chunk(WgmmaSums& sums, int stage, int chunk, int group_row) const {
    const uint64_t a = tile_descriptor(query_chunk(stage, chunk) + group_row * 2 * kFeatures);
    const uint64_t b = tile_descriptor(stage_ref(stage));
    sums.settle();
    begin_products();
#pragma unroll
    for (int step = 0; step < kFeatures / 16; ++step) {  // 16 features are 32 bytes
      multiply(sums.sum, a + 2 * step, b + 2 * step, chunk + step);
    }
    commit_products();
  }

  template <class Miner>
  FM_DEVICE void gate_tile(RowGate<2>& rows, const WgmmaSums& sums, int tile, int lane) const {
    const int slot = tile % 2;
    wait(shared.bounds_full + slot, (tile / 2) & 1);
    const float* bounds = shared.bounds + slot * 3 * kWgmmaColumns;
    const ColumnBounds columns{{bounds, bounds + kWgmmaColumns}, bounds + 2 * kWgmmaColumns};
    const int32_t first = (first_tile + tile) * kWgmmaColumns;
    TileGate<Miner, 2, kWgmmaColumns / 8, WgmmaSums>{state, rows, columns, first, sums}.run();
    __syncwarp();
    if (lane == 0) arrive(shared.bounds_empty + slot);
  }
};

FM_DEVICE WgmmaShared carve(char* memory, const WgmmaPlan& plan) {
  WgmmaShared shared;
  char* at = memory + (1024 - shared_address(memory) % 1024) % 1024;
  shared.query = at;
  if (plan.resident) at += plan.chunks * kQueryChunkBytes;
  shared.stages = at;
  at += plan.stages * plan.stage_bytes;
  shared.bounds = reinterpret_cast<float*>(at);
  at += kBoundsBytes;
  shared.full = reinterpret_cast<uint64_t*>(at);
  shared.empty = shared.full + plan.stages;
  shared.query_full = shared.empty + plan.stages;
  shared.bounds_full = shared.query_full + 1;
  shared.bounds_empty = shared.bounds_full + 2;
  return shared;
}

FM_DEVICE void init_barriers(const WgmmaShared& shared, const WgmmaPlan& plan) {
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < plan.stages; ++stage) {
      init_barrier(shared.full + stage, 1);
      init_barrier(shared.empty + stage, kConsumerWarps);
    }
    init_barrier(shared.query_full, 1);
    for (int slot = 0; slot < 2; ++slot) {
      init_barrier(shared.bounds_full + slot, 1);
      init_barrier(shared.bounds_empty + slot, kConsumerWarps);
    }
    publish_barriers();
  }
  __syncthreads();
}

// Grid: blocks of queries x splits of the references. Of 168 registers a thread the copying
// warpgroup gives up 128, and each of the others takes 64.
template <class Miner>
__global__ void __launch_bounds__(kWgmmaThreads, 1)
    reduce_tiles_wgmma(const __grid_constant__ MineState state,
                       const __grid_constant__ WgmmaPlan plan) {
  extern __shared__ char memory[];
  const int32_t all = state.ranked[1].padded / kWgmmaColumns;
  const auto share = static_cast<int32_t>((all + gridDim.y - 1) / gridDim.y);
  const auto begin = static_cast<int32_t>(share * blockIdx.y);
  const int32_t end = begin + share < all ? begin + share : all;
  if (begin >= end) return;
  const WgmmaShared shared = carve(memory, plan);
  init_barriers(shared, plan);
  const WgmmaLoop loop{state, shared, plan, static_cast<int32_t>(blockIdx.x) * kWgmmaRows,
                       begin, end - begin};
  if (threadIdx.x < kWarpgroup) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;\n" ::);
    if (threadIdx.x == 0) loop.produce();
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;\n" ::);
    loop.consume<Miner>();
  }
}

}  // namespace flashmetric::cuda
