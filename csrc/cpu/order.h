// SPDX-License-Identifier: BSD-3-Clause
// The first half of `prepare`: which rows take part, and in what order. Sorting by label puts the
// positives of a row into one contiguous run of columns, so that nearly every tile is all-negative
// or all-positive and needs no mask.
#pragma once

#include "../arena.h"
#include "../flashmetric.h"

namespace flashmetric::cpu {

struct Order {
  int32_t n_query = 0;  // rows that take part (ignored rows do not)
  int32_t n_ref = 0;
  int32_t* query = nullptr;         // [n_query] sorted position -> original row
  int32_t* ref = nullptr;           // [n_ref]; the same array when symmetric
  int32_t* ref_position = nullptr;  // [references] original row -> sorted position, -1: ignored
  int32_t* run_begin = nullptr;     // [n_query] classes and "either": the reference positions
  int32_t* run_end = nullptr;       //   run_begin..run_end-1 have the label of the query
  int32_t* other_begin = nullptr;   // [n_query] "either" only: the run of the second class
  int32_t* other_end = nullptr;
  int32_t* self = nullptr;   // [n_query] the reference position that is the query, -1: none
  int32_t* count = nullptr;  // [counters] scratch of the counting sort
  int64_t counters = 0;
};

void lay_out_order(Arena& arena, const Comparison& problem, Order& order);

// Stable: rows of one class keep their original order.
void build_order(const Comparison& problem, Order& order);

// Of class ids: how many references the largest class has.
int64_t largest_class(const Comparison& problem);

}  // namespace flashmetric::cpu
