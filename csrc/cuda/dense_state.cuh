// SPDX-License-Identifier: BSD-3-Clause
// What the stages of a dense loss hand to each other. For a chunk of anchors at a time the
// workspace holds a row of numbers h, one for each reference, which the rule turns into
// coefficients
//   c_ij = d loss / d distance * slope of the distance:
//   h = half a squared distance of packed rows, float     for hinges under distances of products;
//       NaN or infinite where only the key says more
//   h = the float64 key                                   else
// What is summed over a chunk goes to float64 sums of the rows, which the next chunk adds to.
#pragma once

#include "../dense_terms.h"
#include "state.cuh"

namespace flashmetric::cuda {

constexpr int kTile = 64;          // rows and columns of a tile of products
constexpr int kTileThreads = 256;  // 4 x 4 of them each
constexpr int kRowThreads = 128;   // of a block that judges one row
constexpr int kRowWarps = kRowThreads / kWarp;

// Whether h are keys.
template <class H>
constexpr bool kWide = sizeof(H) == sizeof(double);

// One number of a row: h; then c, the same memory.
template <class T, class H>
union Slot {
  H h;
  T c;
};

// A set of float32 rows, y = (x * scale - centre) * unit.
struct PackedRows {
  int64_t padded = 0;      // multiple of kTile
  float* y = nullptr;      // [padded][width]
  float* half = nullptr;   // [padded] h_ij = half_i + half_j - <y_i, y_j>
  float* slack = nullptr;  // [padded] h is off by at most the sum of both; < 0: keys judge the row
};

// Of 32 references, a word of bits (dense_gate.cuh).
struct WordBound {
  float slack, half;
};

struct HalfScale;

// A number of an anchor, or of all.
struct Numbers {
  double number = 0;
  const double* values = nullptr;
  int64_t stride = 0;

  FM_HD double of(int64_t i) const { return number_of(i, values, stride, number); }
};

struct Chunk {
  int64_t first, rows;  // queries
};

struct DenseState : Compared {
  Curve curve = Curve::linear;
  TripletRange set{""};
  Numbers margin, mining_margin, weight;
  bool squared = true, online = false, soft_margin = false;
  bool drop = false, uncovered = false;  // of the semi-hard loss
  double factor = 1;
  double temperature = 1;
  bool detach_weights = false;
  const double* bounds = nullptr;
  const void* cotangent = nullptr;
  int64_t cotangent_stride = 0;
  DenseReduction reduction = DenseReduction::mean;
  bool of_pairs = false;
  bool by_kind = false;   // positives and negatives have scales of their own
  bool scaled = false;    // which coefficients have already
  bool mirrored = false;  // c_ij = c_ji: a row adds its columns as well
  bool seldom = false;    // mostly another path does it all: see few_blocks
  unsigned room = 1;      // for blocks
  void* out = nullptr;
  void* grad[2] = {};
  double* stats = nullptr;

  bool packed = false;         // gradients are products of matrices
  bool marked = false;         // or of pairs that tiles mark (marked_state.cuh): sums by kind
  bool wide = true;            // h are keys
  int64_t width = 0;           // of a packed row: dim, padded
  PackedRows rows[2];          // of queries and references, the same one twice if they are one set
  WordBound* words = nullptr;  // [stride / 32] of the references
  HalfScale* scale = nullptr;  // of packed rows
  int64_t stride = 0;          // slots of a row, the references padded to tiles
  int64_t chunk = 0;           // rows of slots
  void* slots = nullptr;
  uint32_t* positive = nullptr;  // [chunk][stride / 32] bit j: reference j is a positive
  uint32_t* negative = nullptr;
  // Once a row is judged, its coefficients are where a bit is set, and nowhere else:
  uint32_t* near = nullptr;      // taken by difference, as all are of rows that are not packed
  uint32_t* weighed = nullptr;   // taken by products of matrices
  int64_t lists = 0;             // blocks that judge rows
  double* list_value = nullptr;  // [lists][n_ref] positives of the row of a block
  int32_t* list_row = nullptr;
  unsigned long long* list_offer = nullptr;
  int32_t* list_best = nullptr;
  RowTotals* totals = nullptr;     // [n_query]
  double* sums[2] = {};            // [rows][dim] of queries and references, or by kind
  double* weights[2] = {};         // [rows] sums of coefficients
  double* partial = nullptr;       // [splits][rows][dim + 1]
  int32_t* touched = nullptr;      // [splits][tiles of rows] has it a sum there
  ExactSum* block_sums = nullptr;  // of dense_totals.cuh
  DenseTotals* counted = nullptr;
  KindScales* scales = nullptr;

  // Whether sums become zero with the rows that are packed, so that nobody clears what is not used.
  FM_HD bool packs_zeros() const { return seldom && packed; }
  __device__ bool regular(int side, int64_t row) const { return rows[side].slack[row] >= 0; }
};

template <class T, class H>
__device__ Slot<T, H>* slots_of(const DenseState& state, int64_t at) {
  return static_cast<Slot<T, H>*>(state.slots) + at * state.stride;
}

// The sums of a row, of a side or a kind; by a warp.
__device__ inline void clear_sums(const DenseState& state, int side, int64_t i) {
  for (int64_t k = lane_of(); k < state.dim; k += kWarp) state.sums[side][i * state.dim + k] = 0;
  if (lane_of() == 0) state.weights[side][i] = 0;
}

template <class T>
__device__ double cotangent_of(const DenseState& state, int64_t i) {
  if (state.cotangent == nullptr) return 1;
  return widened(static_cast<const T*>(state.cotangent)[i * state.cotangent_stride]);
}

}  // namespace flashmetric::cuda
