// SPDX-License-Identifier: BSD-3-Clause
// What the stages of mining hand to each other, as pointers into the caller's workspace. Stages are
// kernels of one stream; what one counts on the device (rows that take part, rows that need keys)
// the next one reads there.
#pragma once

#include "../certificate.h"
#include "block.cuh"
#include "keys.cuh"
#include "launch.cuh"

namespace flashmetric::cuda {

constexpr int kPadRows = 256;  // packed rows come in multiples of the widest tile
constexpr int kFeatures = 64;  // of a packed chunk: 128 bytes of bfloat16, one swizzled row
// Candidates that one thread can keep of a row and role. After a survey (gate.cuh) a row has some 2
// in all, and log(tiles / surveyed) more, a share of them in each of the threads that hold it.
constexpr int kCandidates = 16;
constexpr int kIrregular = 32;  // rows that tiles cannot rank; beyond, keys judge every row
constexpr int kMaxKeySplits = 16;

enum Role : int { kPositive = 0, kNegative = 1, kNeither = 2 };

struct Candidate {
  float lower;
  int32_t position;  // of the reference
};

// One set of rows, class after class.
struct RankedSet {
  int32_t padded = 0;            // multiple of kPadRows
  int32_t* slot = nullptr;       // [n] class of each row, -1: takes no part
  int32_t* order = nullptr;      // [padded] position -> row, -1: padding
  int32_t* position = nullptr;   // [n] row -> position, -1: takes no part
  int32_t* taken = nullptr;      // [slots] rows of the class placed so far
  uint16_t* packed = nullptr;    // bfloat16 [stored][padded][kFeatures], 16-byte pieces swizzled
  float* slack = nullptr;        // [padded] -1: nobody, or a row that keys judge
  double* wide_slack = nullptr;  // [padded] of scores in float64; where rows are split
  uint16_t* start = nullptr;     // bfloat16 [padded][kStartTerms] what sums of products begin with,
                                 //   see gate.cuh, as terms that add up to it
  float* shift = nullptr;        // [padded] from such a sum to what a positive is compared by
  int32_t* run_begin = nullptr;  // [padded] references of the same class
  int32_t* run_end = nullptr;
};

// A hash table of class ids. Slots hold 1 + the number of a row that has the class: references
// first, then queries.
struct ClassTable {
  int32_t slots = 0;  // a power of two
  int32_t* owner = nullptr;
  int32_t* count[2] = {};  // queries, references of the class
  int32_t* begin[2] = {};  // where they begin in the order
};

// The mapping y = (x * scale - shift - centre) * unit, common to queries and references.
struct Frame {
  double unit;         // brings every |y| to at most 2
  double centre_norm;  // |centre| * unit
  double max_norm;     // rows beyond (or NaN) take no part in tiles: keys judge them
};

// Counted on the device.
struct Tally {
  unsigned long long cursor;   // rows placed: queries in the high, references in the low half
  unsigned long long longest;  // bits of the largest norm of a regular row
  int32_t is_fine;             // bfloat16 does not hold some row; noted where rows are split
  int32_t n_irregular;
  int32_t n_by_keys;
  int32_t finished;   // blocks that have delivered their share of the sums
  int32_t n_hubs[3];  // by set of rows
  int32_t n_overflow[3];
};

// Where the keys of some queries with all references go.
struct KeyRows {
  int64_t first, rows;  // queries
  int64_t stride;       // of a row
  double* key;          // [rows][stride]
  double* distance;     // the value of each; null = not wanted
};

// The best pair of a query among one split of the references.
struct PartialBest {
  double key;
  int64_t row;
};

struct LabelView {
  Relation relation = Relation::classes;
  const void* query = nullptr;
  const void* ref = nullptr;
  int64_t n_classes = 0;
  const int64_t* self_index = nullptr;
  const uint8_t* query_keep = nullptr;
  const uint8_t* ref_keep = nullptr;
  bool symmetric = false;
  int64_t n_ref = 0;

  __device__ bool query_takes_part(int64_t i) const {
    return query_keep == nullptr || query_keep[i] != 0;
  }
  __device__ bool ref_takes_part(int64_t j) const {
    return ref_keep == nullptr || ref_keep[j] != 0;
  }
  __device__ int64_t self(int64_t i) const {
    return symmetric ? i : self_index == nullptr ? -1 : self_index[i];
  }

  __device__ bool same(int64_t i, int64_t j) const {
    switch (relation) {
      case Relation::classes:
        return static_cast<const int64_t*>(query)[i] == static_cast<const int64_t*>(ref)[j];
      case Relation::either: {
        const auto* both = static_cast<const int64_t*>(query) + 2 * i;
        const int64_t other = static_cast<const int64_t*>(ref)[j];
        return both[0] == other || both[1] == other;
      }
      case Relation::multi_hot: {
        const auto* a = static_cast<const uint8_t*>(query) + i * n_classes;
        const auto* b = static_cast<const uint8_t*>(ref) + j * n_classes;
        bool shared = false;
        for (int64_t c = 0; c < n_classes && !shared; ++c) shared = (a[c] & b[c]) != 0;
        return shared;
      }
      case Relation::mask:
        return static_cast<const uint8_t*>(query)[i * n_ref + j] != 0;
    }
    return false;
  }
  __device__ Role role(int64_t i, int64_t j) const {
    if (j == self(i) || !ref_takes_part(j)) return kNeither;
    return same(i, j) ? kPositive : kNegative;
  }
};

// Who is compared with whom, and the frame that packed rows are in.
struct Compared {
  KeyForm key{};
  int64_t dim = 0;
  AnyRows query, ref;
  LabelView labels;
  float* centre = nullptr;           // [dim]
  double* centre_squares = nullptr;  // [dim / kWarp] |centre|^2, the share of kWarp features each
  Tally* tally = nullptr;
  const int32_t* asked = nullptr;  // 0: another path has done it all; null = there is none

  __device__ bool is_asked() const { return asked == nullptr || *asked != 0; }
};

// What a tile multiplies, a chunk of the queries by one of the references at a time: rows as they
// are packed; or, of rows split in two halves, high by low, low by high, and high by high. What is
// small comes first, while the sums are.
struct Products {
  int chunks;  // of a row, or of a half
  bool split;

  FM_HD int stored() const { return split ? 2 * chunks : chunks; }
  FM_HD int count() const { return split ? 3 * chunks : chunks; }
  FM_HD int of_query(int at) const { return at < 2 * chunks ? at : at - 2 * chunks; }
  FM_HD int of_ref(int at) const {
    if (!split) return at;
    return at < chunks ? at + chunks : of_query(at < 2 * chunks ? at - chunks : at);
  }
};

struct MineState : Compared {
  bool farthest[2] = {};  // by role
  bool by_tiles = false;  // tiles rank, keys decide; else keys do all
  bool split = false;     // rows are packed in two halves
  RankedSet ranked[2];    // of queries and references, the same one twice if they are one set
  ClassTable classes;
  int32_t* irregular = nullptr;   // [kIrregular] positions of references
  int32_t* by_keys = nullptr;     // [n_query] rows that keys must judge
  int32_t* is_by_keys = nullptr;  // [n_query] is a row listed there
  uint32_t* threshold[2] = {};    // [n_query] by role, see gate.cuh
  int32_t first_query = 0;        // position of the first query that tiles see,
  int32_t n_query_tiled = 0;      //   and how many they see; 0: all
  int32_t tile_splits = 1;        // of the references, for tiles
  int32_t survey_tiles = 0;       // of each split, seen before all others for thresholds alone
  int32_t* surveyed = nullptr;    // [blocks of rows] splits whose thresholds are known
  int32_t streams = 4;            // threads that keep candidates of a row: all splits
  int32_t* n_candidates[2] = {};  // [n_query][streams]
  Candidate* candidates[2] = {};  // [n_query][streams][kCandidates]
  PartialBest* partial[2] = {};   // [splits][n_query]
  int32_t key_splits = 1;

  // Where the row itself is among the references, or -1.
  __device__ int64_t known_position(int64_t i) const {
    const int64_t other = labels.self(i);
    return other >= 0 && other < ref.n ? ranked[1].position[other] : -1;
  }
  FM_HD int32_t queries_tiled() const {
    return n_query_tiled == 0 ? ranked[0].padded : n_query_tiled;
  }
  // All that rows may need.
  FM_HD Products products() const {
    return {static_cast<int>((dim + kFeatures - 1) / kFeatures), split};
  }
  // Whether first halves are all there is: rows of bfloat16 that no centre moves.
  __device__ bool is_whole() const;
  __device__ Products needed_products() const { return {products().chunks, split && !is_whole()}; }
  // Asks for the whole row of keys.
  __device__ void judge_by_keys(int64_t i) const {
    if (atomicExch(is_by_keys + i, 1) == 0)
      by_keys[atomicAdd(&tally->n_by_keys, 1)] = static_cast<int32_t>(i);
  }
  __device__ bool all_by_keys() const { return !by_tiles || tally->n_irregular > kIrregular; }
};

// The positives of an anchor: a run of positions, without its own.
struct PositiveRun {
  int32_t begin, end, self;  // self: a position anywhere, or -1

  __device__ PositiveRun(const MineState& state, int64_t i, int32_t position)
      : begin(state.ranked[0].run_begin[position]),
        end(state.ranked[0].run_end[position]),
        self(static_cast<int32_t>(state.known_position(i))) {}
  __device__ bool has_self() const { return self >= begin && self < end; }
  __device__ int count() const { return end - begin - (has_self() ? 1 : 0); }
  // Position of positive number `at`.
  __device__ int32_t of(int at) const {
    const int32_t position = begin + at;
    return has_self() && position >= self ? position + 1 : position;
  }
  __device__ int64_t negatives(const Tally& tally) const {
    const auto refs = static_cast<int64_t>(tally.cursor & 0xFFFFFFFFULL);
    return refs - (end - begin) - (self >= 0 && !has_self() ? 1 : 0);
  }
};

// What `prepare` has found out. Every kernel works it out again: it is a few operations.
__device__ inline double square_of_centre(const Compared& state) {
  double square = 0;
  for (int64_t share = 0; share * kWarp < state.dim; ++share) square += state.centre_squares[share];
  return square;
}
__device__ inline double longest_row(const Compared& state) {
  const auto bits = static_cast<long long>(state.tally->longest);
  return state.key.needs_norms() ? 1.0 : __longlong_as_double(bits);
}

// `whole`: the centre is taken to be 0.
__device__ inline Frame frame_of(const Compared& state, bool whole = false) {
  const double centre_norm = whole ? 0 : ::sqrt(square_of_centre(state));
  const double longest = longest_row(state);
  const double reach = longest + centre_norm;
  constexpr double least = Precision<float>::min_norm;
  const double unit = reach >= least ? ::ldexp(1.0, -::ilogb(reach)) : 1;
  return {unit, centre_norm * unit, reach > 0 && reach < least ? -1 : Precision<float>::max_norm};
}

// A centre up to half as long as the longest row is worth less than the second halves cost.
__device__ inline bool MineState::is_whole() const {
  if (!split || tally->is_fine != 0 || key.needs_norms() || key.relative) return false;
  const double longest = longest_row(*this);
  return 4 * square_of_centre(*this) <= longest * longest;
}

}  // namespace flashmetric::cuda
