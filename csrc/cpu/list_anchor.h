// SPDX-License-Identifier: BSD-3-Clause
// The list rules by number, for kernels that gather what they need. Compiled once, not per ISA: a
// rule walks lists; the arithmetic is in the keys. noexcept, since parallel regions call them: code
// that catches would bring a symbol of its own into every kernel object.
#pragma once

#include "../list_rules.h"

namespace flashmetric::cpu {

// More positives than this, and negatives are sorted once instead of scanned for each of them: a
// sort costs about as much as 16 scans.
constexpr int64_t kScannedPositives = 16;

// Classes of at most so many rows find their semi-hard negatives in tiles: a slot (slots.h) costs 4
// comparisons per vector and side of a tile, where its multiply-adds take 2 dim.
constexpr int64_t kMostSlots = 64;

// 2^21 slots of 77 bytes: less than twice what listing as many triplets takes.
constexpr int64_t kMostSlotsInAll = int64_t{1} << 21;

// Whether slots serve for the classes of the batch.
bool suits_slots(const Comparison& problem);

struct ListNeeds {
  Measure measure = Measure::none;
  bool sorted = false;  // the negatives of an anchor of more than kScannedPositives
};

ListNeeds list_needs(int rule, const ListProblem& options) noexcept;

// At most so many triplets of an anchor.
int64_t list_bound(int rule, int64_t positives, int64_t negatives,
                   const ListProblem& options) noexcept;

// Positions by key: NaN first, then ascending, equals in their order.
void sort_by_key(const double* key, int64_t n, int32_t* sorted) noexcept;

// Writes the rows of the triplets of one anchor; returns how many.
int64_t list_anchor(int rule, const AnchorRow& anchor, const ListProblem& options,
                    int64_t* positive, int64_t* negative) noexcept;

}  // namespace flashmetric::cpu
