// SPDX-License-Identifier: BSD-3-Clause
// Packs rows for the tiles: the last kernel of `prepare`. Eight lanes map one row to
//   y = (x * scale - shift - centre) * unit,
// round it to bfloat16, write it to its position in the order of classes, and bound what rounding
// may have done (certificate.h). A row that is split is written as two such rows, what rounding
// takes from it being the second.
//
// Layout: chunks of 64 features; in a chunk each row has 128 bytes, whose 16-byte pieces are
// exchanged, piece p to p ^ (row mod 8): what a swizzled tile in shared memory looks like, so that
// contiguous copies fill one. A lane has one piece of each chunk.
#pragma once

#include "pack_bounds.cuh"

namespace flashmetric::cuda {

constexpr int kPackThreads = 256;
constexpr int kPackLanes = kFeatures / kPiece;  // of a row
constexpr int kPackRows = kPackThreads / kPackLanes;
static_assert(kPackRows == kWarp);  // one warp finishes them

// The pieces of a row in a chunk.
__device__ inline uint4* pieces_of(const RankedSet& set, int64_t chunk, int64_t position) {
  return reinterpret_cast<uint4*>(set.packed + (chunk * set.padded + position) * kFeatures);
}

// What no tile may see: zeros that can never be chosen.
__device__ inline void write_padding(const MineState& state, const RankedSet& set, int64_t position,
                                     int64_t chunks) {
  const int lane = threadIdx.x % kPackLanes;
  for (int64_t c = 0; c < chunks; ++c) pieces_of(set, c, position)[lane] = {0, 0, 0, 0};
  if (lane != 0) return;
  set.slack[position] = -1;
  const float never = __int_as_float(0x7F800000);
  write_start(set, position, state.split ? 0 : state.farthest[kNegative] ? never : -never);
  set.shift[position] = never;
}

// Rounds to bfloat16; leaves what that lost.
__device__ inline uint4 narrowed(float (&y)[kPiece]) {
  uint32_t word[kPiece / 2];
#pragma unroll
  for (int w = 0; w < kPiece / 2; ++w) {
    const __nv_bfloat162 both = __floats2bfloat162_rn(y[2 * w], y[2 * w + 1]);
    __builtin_memcpy(&word[w], &both, sizeof both);
    y[2 * w] -= __uint_as_float(word[w] << 16);
    y[2 * w + 1] -= __uint_as_float(word[w] & 0xFFFF0000U);
  }
  return {word[0], word[1], word[2], word[3]};
}

// What one lane finds out about its features of y. Float sums: of dim / 8 terms a lane.
struct LaneSums {
  float square = 0, low = 0, residual = 0, along = 0, running = 0;

  struct Halves {
    uint4 high, low;
  };
  // Rounds y. steps: of eight products, from those of y on.
  __device__ Halves add(float (&y)[kPiece], const float (&centre)[kPiece], bool split, int steps) {
    float own = 0;
#pragma unroll
    for (int e = 0; e < kPiece; ++e) {
      own = ::fmaf(y[e], y[e], own);
      along = ::fmaf(y[e], centre[e], along);
    }
    square += own;
    Halves halves{narrowed(y), {}};
    if (split) {
      float kept[kPiece];
#pragma unroll
      for (int e = 0; e < kPiece; ++e) kept[e] = y[e];
      halves.low = narrowed(y);
#pragma unroll
      for (int e = 0; e < kPiece; ++e) {
        kept[e] -= y[e];
        low = ::fmaf(kept[e], kept[e], low);
      }
      running += own * static_cast<float>(steps);
    }
#pragma unroll
    for (int e = 0; e < kPiece; ++e) residual = ::fmaf(y[e], y[e], residual);
    return halves;
  }
};

// A row whose features are packed: what is left to do takes one thread.
struct PackedRow {
  int32_t position = -1;  // none, or nothing is left
  double norm = 0;
  double square = 0, low = 0, residual = 0, along = 0, running = 0;  // sums over features

  // Of eight lanes; all lanes of the warp come.
  __device__ void add(const LaneSums& sums, bool split) {
    square = sum8(static_cast<double>(sums.square));
    residual = sum8(static_cast<double>(sums.residual));
    along = sum8(static_cast<double>(sums.along));
    if (!split) return;
    low = sum8(static_cast<double>(sums.low));
    running = sum8(static_cast<double>(sums.running));
  }
};

__device__ inline double factor_of(const KeyFacts& key, double norm) {
  return key.needs_norms() ? 1.0 / clamped(norm) : 1.0;
}

// How a row is mapped. The differences of narrow rows round once in float as they do in double.
struct RowMap {
  double factor, shift, unit;
  bool wide;

  template <class T>
  __device__ float wide_of(T x, float centre) const {
    return static_cast<float>((widened(x) * factor - shift - static_cast<double>(centre)) * unit);
  }
  template <class T>
  __device__ float narrow_of(T x, float centre) const {
    return (static_cast<float>(x) - centre) * static_cast<float>(unit);
  }
  template <class T>
  __device__ float of(T x, float centre) const {
    return wide ? wide_of(x, centre) : narrow_of(x, centre);
  }
};

template <class T>
__device__ RowMap map_of(const KeyFacts& key, const RowView<T>& rows, int64_t i, double unit) {
  const bool wide = key.needs_norms() || key.relative || sizeof(T) == sizeof(double);
  return {factor_of(key, rows.numbers.norm[i]), key.relative ? rows.numbers.mean[i] : 0.0, unit,
          wide};
}

// The features of a row that eight lanes pack. Those of two chunks, and of the centre, are read
// before it is known where they go and whether there is a centre.
template <class T>
struct RowFeatures {
  const MineState& state;
  const T* x;
  int64_t dim;  // 0: no row
  int64_t chunks;
  bool aligned;
  FeaturePiece<T> ahead[2];
  FeaturePiece<float> centre[2];

  __device__ RowFeatures(const MineState& of, const T* row, bool exists)
      : state(of),
        x(row),
        dim(exists ? of.dim : 0),
        chunks((of.dim + kFeatures - 1) / kFeatures),
        aligned(FeaturePiece<T>::is_aligned(row)) {}

  __device__ static int64_t first_of(int64_t chunk) {
    return chunk * kFeatures + threadIdx.x % kPackLanes * kPiece;
  }
  __device__ void read(int64_t chunk) {
#pragma unroll
    for (int u = 0; u < 2; ++u) {
      ahead[u].load(x, first_of(chunk + u), dim, aligned);
      centre[u].load(state.centre, first_of(chunk + u), dim, true);
    }
  }

  // Features that do not exist are 0, as in x and in the centre.
  __device__ void map(const RowMap& by, const FeaturePiece<T>& from, const float (&middle)[kPiece],
                      int64_t k, float (&y)[kPiece]) const {
    if (by.wide) {
#pragma unroll
      for (int e = 0; e < kPiece; ++e) {
        y[e] = k + e < dim ? by.wide_of(from.of[e], middle[e]) : 0;
      }
    } else {
#pragma unroll
      for (int e = 0; e < kPiece; ++e) y[e] = by.narrow_of(from.of[e], middle[e]);
    }
  }

  __device__ void pack(const RankedSet& set, const Frame& frame, const RowMap& by, int64_t position,
                       LaneSums& sums) {
    const int piece = swizzled_piece(static_cast<int>(position % 8), threadIdx.x % kPackLanes);
    const auto unit = static_cast<float>(frame.unit);
    const bool centred = frame.centre_norm > 0;
    for (int64_t first = 0; first < chunks; first += 2) {
#pragma unroll
      for (int u = 0; u < 2; ++u) {
        const int64_t chunk = first + u;
        if (chunk < chunks) {
          float y[kPiece];
          float middle[kPiece];
#pragma unroll
          for (int e = 0; e < kPiece; ++e) middle[e] = centred ? centre[u].of[e] : 0;
          map(by, ahead[u], middle, first_of(chunk), y);
#pragma unroll
          for (int e = 0; e < kPiece; ++e) middle[e] *= unit;
          // An instruction takes 16 products, two steps, in any order.
          const auto steps = static_cast<int>((dim + 15) / 16 - first_of(chunk) / 16) * 2;
          const LaneSums::Halves halves = sums.add(y, middle, state.split, steps);
          pieces_of(set, chunk, position)[piece] = halves.high;
          if (state.split) pieces_of(set, chunks + chunk, position)[piece] = halves.low;
        }
      }
      if (first + 2 < chunks) read(first + 2);
    }
  }
};

// Where a row goes, and where the references of its class are.
struct Place {
  int32_t position = -1;  // none
  int32_t run_begin = 0, run_end = 0;

  __device__ Place(const MineState& state, const RankedSet& set, int side, int32_t slot) {
    if (slot < 0) return;
    const ClassTable& table = state.classes;
    run_begin = table.begin[1][slot];
    run_end = run_begin + table.count[1][slot];
    position = table.begin[side][slot] + atomicAdd(set.taken + slot, 1);
  }
  __device__ void write(const RankedSet& set, int64_t i) const {
    set.position[i] = position;
    if (position < 0) return;
    set.order[position] = static_cast<int32_t>(i);
    set.run_begin[position] = run_begin;
    set.run_end[position] = run_end;
  }
};

// A row that keys judge.
__device__ inline void leave_row(const MineState& state, int side, int64_t i, int32_t position) {
  if (side == 1 || state.labels.symmetric) {
    const int32_t at = atomicAdd(&state.tally->n_irregular, 1);
    if (at < kIrregular) state.irregular[at] = position;
  }
  if (side == 0) state.judge_by_keys(i);
}

__device__ inline void finish_row(const MineState& state, const RankedSet& set, const Frame& frame,
                                  const PackedRow& row) {
  const double factor = factor_of(state.key, row.norm);
  RowLengths lengths{::sqrt(row.square), row.norm * factor * frame.unit, frame.centre_norm,
                     frame.unit};
  lengths.residual = ::sqrt(row.residual);
  lengths.low = ::sqrt(row.low);
  lengths.running = row.running;
  write_bounds(state, set, row.position, lengths, row.square, row.along, row.norm);
}

// Eight lanes for each row number: they pack the row that has it, if it takes part, and write
// padding to the position with this number if no row comes there.
template <class T>
__global__ void __launch_bounds__(kPackThreads, 3)
    pack_rows(const __grid_constant__ MineState state, RowView<T> rows, int side) {
  await_inputs();
  __shared__ Frame frame;
  __shared__ PackedRow packed[kPackRows];
  const int group = static_cast<int>(threadIdx.x) / kPackLanes;
  const bool leads = threadIdx.x % kPackLanes == 0;
  const int64_t i = int64_t{blockIdx.x} * kPackRows + group;
  const bool exists = i < rows.n;
  const RankedSet& set = side == 0 ? state.ranked[0] : state.ranked[1];
  RowFeatures<T> features(state, rows.row(exists ? i : 0), exists);
  features.read(0);
  const Place place(state, set, side, exists && leads ? set.slot[i] : -1);
  const unsigned long long cursor = state.tally->cursor;
  const auto total = static_cast<int64_t>(side == 0 ? cursor >> 32 : cursor & 0xFFFFFFFFULL);
  if (i >= total && i < set.padded) {
    if (leads) {
      set.order[i] = -1;
      set.run_begin[i] = set.run_end[i] = 0;
    }
    write_padding(state, set, i, state.products().stored());
  }
  if (threadIdx.x == 0) frame = frame_of(state, state.is_whole());
  __syncthreads();
  if (exists && leads) place.write(set, i);
  PackedRow row{__shfl_sync(kAllLanes, place.position, lane_of() / kPackLanes * kPackLanes),
                exists ? rows.numbers.norm[i] : 0};
  const bool regular = row.norm <= frame.max_norm;
  LaneSums sums;
  if (row.position >= 0 && regular) {
    const RowMap map = map_of(state.key, rows, i, frame.unit);
    features.pack(set, frame, map, row.position, sums);
  } else if (row.position >= 0) {
    write_padding(state, set, row.position, state.products().stored());
    if (leads) leave_row(state, side, i, row.position);
  }
  row.add(sums, state.split);
  if (!regular) row.position = -1;
  if (leads) packed[group] = row;
  __syncthreads();
  if (threadIdx.x < kPackRows && packed[threadIdx.x].position >= 0) {
    finish_row(state, set, frame, packed[threadIdx.x]);
  }
}

}  // namespace flashmetric::cuda
