// SPDX-License-Identifier: BSD-3-Clause
// The main loop of GPUs with mma.sync and cp.async (compute capability 8.0 and newer).
//
// Algorithm: a block owns 128 queries and passes over its share of the references, 128 at a time;
// chunks of 64 features of both come through a ring of three stages, or two where shared memory is
// short (99 KB). Eight warps, 4 x 2, hold 32 x 64 sums each, as m16n8k16 fragments: thread l of a
// warp has rows l / 4 and l / 4 + 8, and columns 2 (l mod 4) and the next, of every 16 x 8
// fragment.
#pragma once

#include "gate.cuh"
#include "ptx.cuh"

namespace flashmetric::cuda {

constexpr int kMmaRows = 128;
constexpr int kMmaColumns = 128;
constexpr int kMmaThreads = 256;
constexpr int kRowBytes = 2 * kFeatures;

struct alignas(128) MmaStage {
  char query[kMmaRows * kRowBytes];
  char ref[kMmaColumns * kRowBytes];
};
template <int stages>
struct MmaShared {
  MmaStage stage[stages];
  float columns[stages][kColumnNumbers][kMmaColumns];  // of tiles in turn
  alignas(16) uint16_t start[stages][kMmaColumns * kStartTerms];
};

// The address of a 16-byte piece in a swizzled tile.
__device__ inline uint32_t piece_address(uint32_t tile, int row, int piece) {
  return tile + static_cast<uint32_t>(row * kRowBytes + swizzled_piece(row, piece) * 16);
}

struct MmaSums {
  float sum[2][8][4];  // [16 rows][8 columns]

  // Slots 0..3: rows l / 4, + 8, + 16, + 24.
  FM_DEVICE float operator()(int slot, int block, int e) const {
    return sum[slot / 2][block][mma_register(slot % 2, e)];
  }

  FM_DEVICE void start(const uint16_t* terms) {
    const int lane = static_cast<int>(threadIdx.x % kWarp);
    const uint32_t ones[4] = {start_ones(lane), start_ones(lane), 0, 0};
#pragma unroll
    for (int block = 0; block < 8; ++block) {
      const auto own =
          *reinterpret_cast<const uint32_t*>(terms + 8 * block * kStartTerms + start_place(lane));
#pragma unroll
      for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (float& each : sum[m][block]) each = 0;
        multiply_add(sum[m][block], ones, own, 0);
      }
    }
  }

  FM_DEVICE void add_chunk(const MmaStage& stage, int warp_row, int warp_column) {
    const int lane = static_cast<int>(threadIdx.x % kWarp);
    const uint32_t query = shared_address(stage.query);
    const uint32_t ref = shared_address(stage.ref);
#pragma unroll
    for (int step = 0; step < kFeatures / 16; ++step) {
      uint32_t a[2][4];
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        const Piece from = query_piece(lane);
        load_fragments(a[m],
                       piece_address(query, warp_row + m * 16 + from.row, step * 2 + from.piece));
      }
#pragma unroll
      for (int pair = 0; pair < 4; ++pair) {
        uint32_t b[4];
        const Piece from = ref_piece(lane);
        load_fragments(
            b, piece_address(ref, warp_column + pair * 16 + from.row, step * 2 + from.piece));
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          multiply_add(sum[m][2 * pair], a[m], b[0], b[1]);
          multiply_add(sum[m][2 * pair + 1], a[m], b[2], b[3]);
        }
      }
    }
  }
};

// Which chunk of which tile comes next.
template <int stages>
struct MmaLoader {
  const MineState& state;
  MmaShared<stages>& shared;
  int32_t query;  // first position of the block
  int32_t first_tile, tiles;
  int32_t survey;  // of these tiles come twice
  Products products;

  __device__ int turns() const { return survey + tiles; }
  __device__ int chunks() const { return products.count(); }
  __device__ int total() const { return turns() * chunks(); }
  __device__ int32_t column_of(int turn) const {
    return (first_tile + (turn < survey ? turn : turn - survey)) * kMmaColumns;
  }

  __device__ void copy_rows(char* to, const RankedSet& set, int chunk, int32_t position) const {
    const auto* from = reinterpret_cast<const char*>(
        set.packed + (int64_t{chunk} * set.padded + position) * kFeatures);
    constexpr int bytes = kMmaRows * kRowBytes;
#pragma unroll
    for (int at = static_cast<int>(threadIdx.x) * 16; at < bytes; at += kMmaThreads * 16) {
      copy16(to + at, from + at);
    }
  }

  // Always closes a group, so that waiting counts stages.
  __device__ void start(int step) const {
    if (step < total()) {
      MmaStage& stage = shared.stage[step % stages];
      const int chunk = step % chunks();
      const int turn = step / chunks();
      const int32_t ref = column_of(turn);
      copy_rows(stage.query, state.ranked[0], products.of_query(chunk), query);
      copy_rows(stage.ref, state.ranked[1], products.of_ref(chunk), ref);
      if (chunk == 0) copy_columns(turn % stages, ref);
    }
    close_copies();
  }

  // 16 bytes a thread.
  __device__ void copy_columns(int slot, int32_t ref) const {
    constexpr int threads = kMmaColumns / 4;  // of a kind of number
    constexpr int numbers = kColumnNumbers * threads;
    static_assert(numbers + kMmaColumns <= kMmaThreads && kStartTerms == 8);
    const RankedSet& set = state.ranked[1];
    const auto t = static_cast<int>(threadIdx.x);
    if (t < numbers) {
      const int kind = t / threads;
      const int at = t % threads * 4;
      copy16(&shared.columns[slot][kind][at], (kind == kShift ? set.shift : set.slack) + ref + at);
    } else if (t < numbers + kMmaColumns) {
      const int at = (t - numbers) * kStartTerms;
      copy16(&shared.start[slot][at], set.start + int64_t{ref} * kStartTerms + at);
    }
  }
};

// The rows of all threads come behind the stages.
template <class Judge>
using MmaRows = typename Judge::template Rows<4, kMmaThreads, true>;
template <class Judge, int stages>
constexpr int kMmaBytes =  // 128 more, to start on a swizzled row
    static_cast<int>(sizeof(MmaShared<stages>)) + MmaRows<Judge>::kSharedBytes + 128;

template <class Judge, int stages>
FM_DEVICE void rank_by_mma(const typename Judge::State& state, MmaShared<stages>& shared,
                           const MmaLoader<stages>& loader) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int warp_row = warp / 2 * 32;
  const int warp_column = warp % 2 * 64;
  MmaRows<Judge> rows;
  rows.attach(reinterpret_cast<int32_t*>(&shared + 1), static_cast<int>(threadIdx.x));
  rows.stream = (static_cast<int>(blockIdx.y) * 2 + warp % 2) * 4 + lane % 4;
#pragma unroll
  for (int s = 0; s < 4; ++s) {
    rows.start(state, s, loader.query + warp_row + sum_row(lane, s));
  }
  rows.find_special();
  for (int step = 0; step < stages - 1; ++step) loader.start(step);
  int step = 0;
  for (int turn = 0; turn < loader.turns(); ++turn) {
    MmaSums sums;
    const float* const columns = shared.columns[turn % stages][0] + warp_column;
    for (int chunk = 0; chunk < loader.chunks(); ++chunk, ++step) {
      wait_for_copies<stages - 2>();
      __syncthreads();  // the stage is full, and the one before it has been read by all
      loader.start(step + stages - 1);
      if (chunk == 0) sums.start(shared.start[turn % stages] + warp_column * kStartTerms);
      sums.add_chunk(shared.stage[step % stages], warp_row, warp_column);
    }
    const int32_t first = loader.column_of(turn) + warp_column;
    using Gate = typename Judge::template Gate<4, 8, kMmaColumns, MmaRows<Judge>, MmaSums>;
    const Gate gate{state, rows, columns, first, sums};
    if (turn >= loader.survey) {
      gate.run();
      continue;
    }
    gate.survey();
    if (turn == loader.survey - 1) {
      share_thresholds(state, rows, threadIdx.x == 0, [] { __syncthreads(); });
    }
  }
  publish_rows(state, rows);
}

// Grid: blocks of queries x splits of the references.
template <class Judge, int stages>
__global__ void __launch_bounds__(kMmaThreads, 1)
    reduce_tiles_mma(const __grid_constant__ typename Judge::State state) {
#if __CUDA_ARCH__ >= 800
  extern __shared__ char memory[];
  await_inputs();
  const TileRange range(state.ranked[1].padded / kMmaColumns);
  if (range.begin >= range.end || Judge::idle(state)) return;
  auto& shared =
      *reinterpret_cast<MmaShared<stages>*>(memory + (128 - shared_address(memory) % 128) % 128);
  const int32_t tiles = range.end - range.begin;
  const MmaLoader<stages> loader{state,
                                 shared,
                                 state.first_query + static_cast<int32_t>(blockIdx.x) * kMmaRows,
                                 range.begin,
                                 tiles,
                                 ::min(state.survey_tiles, tiles),
                                 state.needed_products()};
  rank_by_mma<Judge, stages>(state, shared, loader);
#endif
}

}  // namespace flashmetric::cuda
