// SPDX-License-Identifier: BSD-3-Clause
// Finds references that nobody needs to be compared with, because an equal row of lower index can
// always be chosen in their place. Equal rows have equal keys, and no bound can tell them apart, so
// a batch of duplicates would fill every list of candidates. O(n dim); only done for batches that
// have filled some.
#pragma once

#include "../arena.h"
#include "order.h"

namespace flashmetric::cpu {

struct Duplicates {
  struct Row {
    uint64_t hash;
    int64_t label;
    int32_t row;
  };
  Row* rows = nullptr;           // [references] scratch
  uint8_t* redundant = nullptr;  // [references] original rows; bit r: never the choice in role r
};

void lay_out_duplicates(Arena& arena, const Comparison& problem, Duplicates& duplicates);

// Labels must be classes: for other relations equal rows may differ in who may choose them, and
// none is redundant.
void find_duplicates(const Comparison& problem, const Order& order, const Duplicates& duplicates);

}  // namespace flashmetric::cpu
