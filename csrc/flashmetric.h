// SPDX-License-Identifier: BSD-3-Clause
// The C++ API: plain structs in, status text out. No Python, no torch, no allocation of the
// caller's memory (outputs and scratch are passed in), no state besides the choice of ISA.
//
// Letters: n rows, dim features; query = row = anchor side (i), reference = column (j), feature k.
// Every stride is in elements; the features of a row are contiguous.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace flashmetric {

// The last two on a GPU only; a CPU gets them as float32.
enum class DType : int { float32 = 0, float64 = 1, float16 = 2, bfloat16 = 3 };

// "" = done; anything else is the sentence for the user.
using Status = std::string;

struct Rows {
  const void* data = nullptr;  // [n, dim]
  int64_t n = 0;
  int64_t stride = 0;
};

struct Workspace {
  void* data = nullptr;
  size_t bytes = 0;
};

enum class Relation : int { classes, either, multi_hot, mask };

// The relation of that name; -1 for an unknown one.
int relation_named(std::string_view name);

// Who is a positive of whom.
//   classes:   query, ref: int64 [n], equal bits = same class
//   either:    query: int64 [n, 2], ref: int64 [n]: the same as one of the two
//   multi_hot: query, ref: uint8 [n, n_classes] of 0/1, same = share at least one
//   mask:      query: uint8 [n_query, n_ref] of 0/1, any relation, row = query
struct Labels {
  Relation relation = Relation::classes;
  const void* query = nullptr;
  const void* ref = nullptr;
  int64_t n_classes = 0;
  const int64_t* self_index =
      nullptr;  // [n_query] the reference that is the query itself, -1: none
  const uint8_t* query_keep = nullptr;  // [n_query] 0 = not an anchor; null = all are
  const uint8_t* ref_keep = nullptr;    // [n_ref] 0 = not a candidate; null = all are
};

// Who is compared with whom, and how.
struct Comparison {
  std::string_view distance;
  bool normalize = false;
  DType dtype = DType::float32;
  int64_t dim = 0;
  Rows query, ref;
  bool symmetric = false;  // the queries are the references, no row is its own candidate
  Labels labels;
};

struct MineProblem : Comparison {
  std::string_view mining;
  int64_t* positive = nullptr;  // out [n_query]: reference row; -1 = has none, -2 = ignored anchor
  int64_t* negative = nullptr;  // out [n_query]
  Workspace workspace;
  int threads = 1;
};

enum class Strategy : int { easy, hard, semihard, all };

// Lists the triplets of the anchors from `begin` on, ordered by anchor, positive, negative, until
// the next anchor might not fit.
struct ListProblem : Comparison {
  std::string_view mining;
  bool drop_without_semihard = false;  // else the farthest negative takes the place
  double hardness = 0.5;
  Strategy positive_mining = Strategy::easy, negative_mining = Strategy::semihard;
  int64_t n_negatives = 1;
  double mining_margin = 0;
  const double* margin_values = nullptr;  // [n_query] by margin_stride, instead of the number
  int64_t margin_stride = 0;
  uint64_t seed = 0;
  bool uncovered = false;  // also pairs without any negative, as (anchor, positive, -1)
  bool for_loss = false;   // end = -1 instead of a list where `dense` takes the loss
  int64_t begin = 0, capacity = 0;
  int64_t* out[3] = {};  // [capacity] anchors, positives, negatives
  int64_t count = 0;     // out: triplets listed
  int64_t end = 0;       // out: the first anchor not listed; = begin: `capacity` must grow to
  int64_t needed = 0;    //   `needed`
  // On a GPU, all anchors at once, and in its memory:
  const double* hardness_value = nullptr;  // instead of the number
  int64_t* total = nullptr;  // out: triplets in all; those beyond `capacity` are not listed
  Workspace workspace;
  int threads = 1;
};

// Role r of a triplet reads rows[r]; roles may share a set, `first_role[r]` is the first that has
// it.
struct TripletProblem {
  std::string_view distance, reduction;
  bool normalize = false;
  DType dtype = DType::float32;
  int64_t dim = 0;
  Rows rows[3];  // of the anchors, positives, negatives
  int first_role[3] = {0, 1, 2};
  int64_t n = 0;                 // triplets
  const int64_t* index[3] = {};  // [n] into rows[role], null = t itself; < 0 as in MineProblem
  double margin = 0;
  const double* margin_values = nullptr;  // [n] by margin_stride, instead of the number
  int64_t margin_stride = 0;
  bool soft_margin = false;
  bool swap = false;
  const double* weights = nullptr;  // [n], null = 1
  bool count_invalid = false;
  bool far_from_none = false;       // a counted triplet without a negative: d_an is 0, not d_ap
  const void* cotangent = nullptr;  // [n] by cotangent_stride, of dtype; null = 1
  int64_t cotangent_stride = 0;
  void* loss = nullptr;      // out: [n] for "none", else one number
  void* grad[3] = {};        // out [rows, dim], null = not wanted
  double* stats = nullptr;   // out [7], null = not wanted
  double* totals = nullptr;  // out [3]: sum of terms, weights counted, weights of active terms
  Workspace workspace;
  int threads = 1;
};

// Those of all distances, of dtype.
struct PairCotangents {
  const void* data = nullptr;  // [n_query, n_ref]
  int64_t row_stride = 0, col_stride = 0;
  bool mirrored = false;  // the references are the queries: add that of (j, i) to that of (i, j)
};

// A loss over all triplets, or over all pairs, of a batch.
struct DenseProblem : Comparison {
  std::string_view loss, reduction;
  double margin = 0;
  const double* margin_values = nullptr;  // [n_query] by margin_stride, instead of the number
  int64_t margin_stride = 0;
  double mining_margin = 0;  // of the sets of triplets; pos_margin of pairs
  const double* mining_margin_values = nullptr;
  int64_t mining_margin_stride = 0;
  bool soft_margin = false;
  bool drop_without_semihard = false;  // of semihard, as in ListProblem
  bool uncovered = false;              // likewise
  int64_t* refused = nullptr;          // out, of semihard: 1 = float32 cannot hold what it needs
  double temperature = 1;
  bool detach_weights = false;
  int power = 2;
  double factor = 1;                // of every value
  const double* bounds = nullptr;   // [2] online: keys of the nearest negative, farthest positive
  const double* weights = nullptr;  // [n_query], null = 1
  const void* cotangent = nullptr;  // [n_query] by cotangent_stride, of dtype; null = 1
  int64_t cotangent_stride = 0;
  PairCotangents pairs;     // no loss, but the gradient of all distances
  void* out = nullptr;      // out: [n_query] for "none", else one number
  void* grad[2] = {};       // out: of queries and references, null = not wanted
  double* stats = nullptr;  // out [7], null = not wanted
  Workspace workspace;
  int threads = 1;
};

// Distances of given pairs: x[index_x[t]] to r[index_r[t]].
struct PairedProblem {
  std::string_view distance;
  bool normalize = false;
  DType dtype = DType::float32;
  int64_t dim = 0;
  Rows x, r;
  bool shared = false;              // r is x
  int64_t n = 0;                    // pairs
  const int64_t* index[2] = {};     // [n], null = t itself; < 0: no pair, distance 0
  const void* cotangent = nullptr;  // [n] by cotangent_stride: asks for gradients, not distances
  int64_t cotangent_stride = 0;
  void* out = nullptr;  // [n]
  void* grad[2] = {};   // [rows, dim], null = not wanted
  Workspace workspace;
  int threads = 1;
};

struct PairwiseProblem {
  std::string_view distance;
  bool normalize = false;
  DType dtype = DType::float32;
  int64_t dim = 0;
  Rows x, y;
  bool swapped = false;      // y are the queries; backward only
  PairCotangents cotangent;  // backward only
  void* out = nullptr;       // forward: [x.n, y.n]; backward: += gradient of x, [x.n, dim]
  Workspace workspace;
  int threads = 1;
};

// Each runs the problem, or with workspace.data = null only says in workspace.bytes what it needs.
Status mine(MineProblem& problem);
Status list_triplets(ListProblem& problem);
Status triplet(TripletProblem& problem);
Status mined_triplet(MineProblem& mined, TripletProblem& loss);  // in the workspace of the loss
Status dense(DenseProblem& problem);
Status paired(PairedProblem& problem);
Status pairwise(PairwiseProblem& problem);
Status pairwise_backward(PairwiseProblem& problem);

// Name, and whether this machine and its operating system support it; best first.
std::vector<std::pair<std::string_view, bool>> compiled_isas();
std::string_view isa_in_use();
bool isa_is_forced();
Status force_isa(std::string_view name);  // "" = automatic

// What ran, for tests and for `selftest`: calls of each operation, keys computed to decide between
// near-ties ("rescored"), rows that only keys could judge ("brute_rows"), dense losses that went by
// pairs of blocks ("dense_blocks"), and anchors whose triplets were counted by sorting
// ("sorted_anchors").
std::vector<std::pair<std::string_view, int64_t>> counters();
void reset_counters();

// Version, compiler, flags and features of this binary.
using BuildFact = std::variant<bool, std::string, std::vector<std::string>>;
std::map<std::string, BuildFact> build_info();

bool built_with_cuda();

}  // namespace flashmetric
