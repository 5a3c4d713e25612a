// SPDX-License-Identifier: BSD-3-Clause
// What the loss of semi-hard triplets needs for one anchor: memory, and who is who among its
// columns.
#pragma once

#include "bucket_sort.h"
#include "dense_row.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// What one thread needs for one anchor; each array but those of the sort is [stride + kPad].
template <class T>
struct SemiHardScratch {
  BucketScratch<T> sort;
  T* positive;  // h of the run of the anchor's class, the anchor among them; zeros behind
  T* negative;  // h of the negatives in the order of their columns
  T* chosen;    // h of the choice of each positive; infinite: it has none
  T* above;     // bounds of what is sure of its place, by place
  T* below;
  int32_t* choice;  // its place among the sorted negatives; their number: none
  int32_t* open;    // positives whose choice is left to keys
  int32_t* listed;  // rows whose keys are wanted; positives that no negative lies beyond
  int32_t* sorted;  // their order by key; places whose keys are wanted
  int32_t* hits;    // how many active hinges chose a negative, by place
  double* pull;     // sum of the slopes that did
  double* key;      // of the negatives, by place
  double* found;    // of any that are listed
  double* widened;  // [dim] the row of the anchor
  uint8_t* known;   // which of them were computed
};

template <class T>
FM_INLINE void lay_out_semihard(Arena& arena, int64_t stride, int64_t dim,
                                SemiHardScratch<T>& own) {
  for (int buffer = 0; buffer < 2; ++buffer) {
    own.sort.data.value[buffer] = arena.take<T>(stride + 2 * kPad);
    own.sort.data.id[buffer] = arena.take<int32_t>(stride + 2 * kPad);
  }
  own.sort.end = arena.take<int32_t>(1 + (4 * stride < kMostBuckets ? 4 * stride : kMostBuckets));
  for (int32_t** array :
       {&own.sort.place, &own.choice, &own.open, &own.listed, &own.sorted, &own.hits}) {
    *array = arena.take<int32_t>(stride + kPad);
  }
  for (T** array : {&own.positive, &own.negative, &own.chosen, &own.above, &own.below}) {
    *array = arena.take<T>(stride + kPad);
  }
  own.widened = arena.take<double>(dim);
  for (double** array : {&own.pull, &own.key, &own.found})
    *array = arena.take<double>(stride + kPad);
  own.known = arena.take<uint8_t>(stride + kPad);
}

// The columns of an anchor: its class is one run of them, all others are negatives, and the anchor
// itself is neither.
struct AnchorColumns {
  int32_t begin, end, self, n;
  int32_t gap[2];     // where columns are left out, ascending
  int32_t length[2];  // how many

  FM_INLINE AnchorColumns(const Order& order, int32_t i)
      : begin(order.run_begin[i]),
        end(order.run_end[i]),
        self(order.self[i]),
        n(order.n_ref),
        gap{begin, n},
        length{end - begin, 0} {
    if (self < 0 || self_among_positives()) return;
    const int place = self < begin ? 0 : 1;
    gap[1 - place] = begin;
    length[1 - place] = end - begin;
    gap[place] = self;
    length[place] = 1;
  }
  FM_INLINE bool self_among_positives() const { return self >= begin && self < end; }
  FM_INLINE int32_t run() const { return end - begin; }
  FM_INLINE int32_t positives() const { return run() - (self_among_positives() ? 1 : 0); }
  FM_INLINE int32_t negatives() const { return n - length[0] - length[1]; }
  // The column of the negative number k.
  FM_INLINE int32_t negative(int32_t k) const {
    if (k >= gap[0]) k += length[0];
    return k >= gap[1] ? k + length[1] : k;
  }
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
