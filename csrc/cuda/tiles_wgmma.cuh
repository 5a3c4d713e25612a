// SPDX-License-Identifier: BSD-3-Clause
// The main loop of compute capability 9.0: warpgroup products of tiles in shared memory, which bulk
// copies fill.
//
// Algorithm: a block owns 256 queries and passes over its share of the references, 128 at a time.
// One warpgroup only copies: chunks of 64 features through a ring of stages, the numbers of columns
// through a ring of their own. The other four hold 64 x 128 sums each and run on their own: some of
// them gate a tile while the others keep the tensor cores busy. Where the queries have at most four
// chunks, they are copied once; else they come with every stage.
//
// Why so: with two warpgroups of 64 x 256 sums nobody fills the latencies of the one that gates;
// 32768 rows of 128 features took a tenth longer on an H200. Four that multiply in turns, by
// barriers, took 3 % longer than four on their own.
#pragma once

#include "gate.cuh"
#include "ptx_sm90.cuh"
#include "tiles.h"

namespace flashmetric::cuda {

constexpr int kWarpgroup = 128;  // threads
constexpr int kWgmmaThreads = (1 + kConsumers) * kWarpgroup;
constexpr int kConsumerWarps = 4 * kConsumers;
constexpr int kConsumerBarrier = 1;  // of all of them

// Where things are in shared memory, in this order: the queries, if they stay; the stages; the
// numbers of columns; the rows of the consumers; the barriers.
struct WgmmaShared {
  uint32_t base;
  const float* columns;  // [kColumnSlots][kColumnNumbers][kWgmmaColumns]
  uint32_t starts;       // [kColumnSlots][kWgmmaColumns][kStartTerms] of two bytes
  int32_t* rows;         // what consumers know of theirs
  uint32_t barriers;

  FM_DEVICE WgmmaShared(char* memory, const WgmmaPlan& plan) {
    const uint32_t skipped = (1024 - shared_address(memory) % 1024) % 1024;
    base = shared_address(memory) + skipped;
    const int tiles = plan.resident_bytes + plan.stages * plan.stage_bytes;
    constexpr int numbers = kColumnSlots * kColumnNumbers * kWgmmaColumns * 4;
    static_assert(numbers + kColumnSlots * kWgmmaColumns * kStartBytes == kColumnsBytes);
    columns = reinterpret_cast<const float*>(memory + skipped + tiles);
    starts = base + static_cast<uint32_t>(tiles + numbers);
    rows = reinterpret_cast<int32_t*>(memory + skipped + tiles + kColumnsBytes);
    barriers = base + static_cast<uint32_t>(tiles + kColumnsBytes + kRowsBytes);
  }
  FM_DEVICE uint32_t barrier(int at) const { return barriers + static_cast<uint32_t>(8 * at); }
};

template <class Judge>
using WgmmaRows = typename Judge::template Rows<2, kConsumers * kWarpgroup, false>;

struct WgmmaLoop {
  const MineState& state;
  WgmmaShared shared;
  const WgmmaPlan& plan;
  int32_t query;  // first position of the block
  int32_t first_tile, tiles;
  int32_t survey;  // of these tiles come twice
  Products products;

  FM_DEVICE int32_t turns() const { return survey + tiles; }
  FM_DEVICE int32_t column_of(int turn) const {
    return (first_tile + (turn < survey ? turn : turn - survey)) * kWgmmaColumns;
  }

  FM_DEVICE uint32_t stage_ref(int stage) const {
    return shared.base + static_cast<uint32_t>(plan.resident_bytes + stage * plan.stage_bytes);
  }
  FM_DEVICE uint32_t query_chunk(int stage, int chunk) const {
    return plan.resident_bytes > 0 ? shared.base + static_cast<uint32_t>(chunk * kQueryChunkBytes)
                                   : stage_ref(stage) + kRefChunkBytes;
  }
  FM_DEVICE uint32_t full(int stage) const { return shared.barrier(stage); }
  FM_DEVICE uint32_t empty(int stage) const { return shared.barrier(plan.stages + stage); }
  FM_DEVICE uint32_t query_full() const { return shared.barrier(2 * plan.stages); }
  FM_DEVICE uint32_t columns_full(int slot) const {
    return shared.barrier(2 * plan.stages + 1 + slot);
  }
  FM_DEVICE uint32_t columns_empty(int slot) const {
    return shared.barrier(2 * plan.stages + 1 + kColumnSlots + slot);
  }

  FM_DEVICE void init_barriers() const {
    if (threadIdx.x == 0) {
      for (int stage = 0; stage < plan.stages; ++stage) {
        init_barrier(full(stage), 1);
        init_barrier(empty(stage), kConsumerWarps);
      }
      init_barrier(query_full(), 1);
      for (int slot = 0; slot < kColumnSlots; ++slot) {
        init_barrier(columns_full(slot), 1);
        init_barrier(columns_empty(slot), kConsumerWarps);
      }
      publish_barriers();
    }
    __syncthreads();
  }

  FM_DEVICE const void* rows_at(const RankedSet& set, int chunk, int32_t position) const {
    return set.packed + (int64_t{chunk} * set.padded + position) * kFeatures;
  }

  FM_DEVICE void produce() const {
    const RankedSet& refs = state.ranked[1];
    if (plan.resident_bytes > 0) {
      const int stored = products.stored();
      expect_bytes(query_full(), static_cast<uint32_t>(stored * kQueryChunkBytes));
      for (int chunk = 0; chunk < stored; ++chunk) {
        copy_bytes(query_chunk(0, chunk), rows_at(state.ranked[0], chunk, query), kQueryChunkBytes,
                   query_full());
      }
    }
    int stage = 0;
    uint32_t round = 0;  // through the ring
    for (int turn = 0; turn < turns(); ++turn) {
      const int32_t ref = column_of(turn);
      produce_columns(turn, ref);
      for (int chunk = 0; chunk < products.count(); ++chunk) {
        if (round > 0) wait(empty(stage), (round - 1) & 1);
        expect_bytes(full(stage), static_cast<uint32_t>(plan.stage_bytes));
        copy_bytes(stage_ref(stage), rows_at(refs, products.of_ref(chunk), ref), kRefChunkBytes,
                   full(stage));
        if (plan.resident_bytes == 0) {
          const int of_query = products.of_query(chunk);
          copy_bytes(query_chunk(stage, of_query), rows_at(state.ranked[0], of_query, query),
                     kQueryChunkBytes, full(stage));
        }
        if (++stage == plan.stages) {
          stage = 0;
          ++round;
        }
      }
    }
  }

  template <class Judge>
  FM_DEVICE void consume(const typename Judge::State& judged) const {
    const int thread = static_cast<int>(threadIdx.x) - kWarpgroup;
    // From one lane: the compiler must see that it is the same in all.
    const int group_row = __shfl_sync(kAllLanes, thread / kWarpgroup, 0) * 64;
    const auto lane = static_cast<int>(threadIdx.x % kWarp);
    WgmmaRows<Judge> rows;
    static_assert(WgmmaRows<Judge>::kSharedBytes <= kRowsBytes);
    rows.attach(shared.rows, thread);
    rows.stream = static_cast<int>(blockIdx.y) * kWgmmaShape.streams + lane % kWgmmaShape.streams;
#pragma unroll
    for (int s = 0; s < 2; ++s) {
      const int row = group_row + thread % kWarpgroup / kWarp * 16 + sum_row(lane, s);
      rows.start(judged, s, query + row);
    }
    rows.find_special();
    const bool resident = plan.resident_bytes > 0;
    const uint32_t queries =
        tile_place(query_chunk(0, 0) + static_cast<uint32_t>(group_row * 2 * kFeatures));
    const uint32_t refs = tile_place(stage_ref(0));
    if (resident) wait(query_full(), 0);
    const uint32_t stage_step = static_cast<uint32_t>(plan.stage_bytes) / 16;
    const uint32_t ones = start_ones(lane);
    int stage = 0;
    uint32_t round = 0;
    for (int turn = 0; turn < turns(); ++turn) {
      WgmmaSums sums;
      const float* const columns = columns_of(turn);
      wait(columns_full(turn % kColumnSlots), (turn / kColumnSlots) & 1);
      begin_products();
      multiply(sums.sum, ones, narrow_descriptor(start_of(turn)));
      int before = -1;  // the stage whose products may still run
      for (int chunk = 0; chunk < products.count(); ++chunk) {
        wait(full(stage), round & 1);
        const uint32_t moved = static_cast<uint32_t>(stage) * stage_step;
        const auto of_query = static_cast<uint32_t>(products.of_query(chunk));
        const uint32_t query_at = resident ? of_query * (kQueryChunkBytes / 16) : moved;
        multiply_chunk(sums, queries + query_at, refs + moved);
        wait_for_products<1>();
        if (before >= 0) arrive(empty(before));
        before = stage;
        if (++stage == plan.stages) {
          stage = 0;
          ++round;
        }
      }
      wait_for_products<0>();
      settle(sums.sum);
      arrive(empty(before));
      gate_tile<Judge>(judged, rows, sums, columns, turn);
      if (turn == survey - 1) {
        share_thresholds(judged, rows, thread == 0,
                         [] { sync_some(kConsumerBarrier, kConsumers * kWarpgroup); });
      }
    }
    publish_rows(judged, rows);
  }

 private:
  FM_DEVICE const float* columns_of(int turn) const {
    return shared.columns + turn % kColumnSlots * kColumnNumbers * kWgmmaColumns;
  }

  FM_DEVICE uint32_t start_of(int turn) const {
    return shared.starts + static_cast<uint32_t>(turn % kColumnSlots * kWgmmaColumns * kStartBytes);
  }

  FM_DEVICE void produce_columns(int turn, int32_t ref) const {
    const int slot = turn % kColumnSlots;
    if (turn >= kColumnSlots) wait(columns_empty(slot), (turn / kColumnSlots - 1) & 1);
    constexpr uint32_t bytes = kWgmmaColumns * sizeof(float);
    constexpr uint32_t start_bytes = kWgmmaColumns * kStartBytes;
    expect_bytes(columns_full(slot), kColumnNumbers * bytes + start_bytes);
    const RankedSet& refs = state.ranked[1];
    const uint32_t to = shared_address(columns_of(turn));
    copy_bytes(to + kShift * bytes, refs.shift + ref, bytes, columns_full(slot));
    copy_bytes(to + kColumnSlack * bytes, refs.slack + ref, bytes, columns_full(slot));
    copy_bytes(start_of(turn), refs.start + int64_t{ref} * kStartTerms, start_bytes,
               columns_full(slot));
  }

  struct WgmmaSums {
    float sum[64];
    FM_DEVICE float operator()(int slot, int block, int e) const {
      return sum[wgmma_register(slot, block, e)];
    }
  };

  FM_DEVICE static void multiply_chunk(WgmmaSums& sums, uint32_t queries, uint32_t refs) {
    settle(sums.sum);
    begin_products();
#pragma unroll
    for (uint32_t step = 0; step < kFeatures / 16; ++step) {  // 16 features are 32 bytes
      multiply_add(sums.sum, tile_descriptor(queries + 2 * step), tile_descriptor(refs + 2 * step));
    }
    commit_products();
  }

  template <class Judge>
  FM_DEVICE void gate_tile(const typename Judge::State& judged, WgmmaRows<Judge>& rows,
                           const WgmmaSums& sums, const float* columns, int turn) const {
    using Gate = typename Judge::template Gate<2, kWgmmaColumns / 8, kWgmmaColumns,
                                               WgmmaRows<Judge>, WgmmaSums>;
    const Gate gate{judged, rows, columns, column_of(turn), sums};
    if (turn < survey) {
      gate.survey();
    } else {
      gate.run();
    }
    __syncwarp();
    arrive(columns_empty(turn % kColumnSlots));
  }
};

// Grid: blocks of queries x splits of the references. Of 96 registers a thread the copying
// warpgroup gives up 64, and each of the others takes 16.
template <class Judge>
__global__ void __launch_bounds__(kWgmmaThreads, 1)
    reduce_tiles_wgmma(const __grid_constant__ typename Judge::State state,
                       const __grid_constant__ WgmmaPlan plan) {
  extern __shared__ char memory[];
  const TileRange range(state.ranked[1].padded / kWgmmaColumns);
  if (range.begin >= range.end) return;
  const int32_t tiles = range.end - range.begin;
  WgmmaLoop loop{state,
                 WgmmaShared(memory, plan),
                 plan,
                 state.first_query + static_cast<int32_t>(blockIdx.x) * kWgmmaRows,
                 range.begin,
                 tiles,
                 ::min(state.survey_tiles, tiles),
                 plan.products};
  loop.init_barriers();
  await_inputs();
  if (Judge::idle(state)) return;
  loop.products = state.needed_products();
  if (threadIdx.x < kWarpgroup) {
    keep_registers<32>();
    if (threadIdx.x == 0) loop.produce();
  } else {
    get_registers<112>();
    loop.consume<Judge>(state);
  }
}

}  // namespace flashmetric::cuda
