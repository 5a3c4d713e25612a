// SPDX-License-Identifier: BSD-3-Clause
// Which references a query may have terms with: those of its class, and those that tiles marked.
//
// Determinism: where a row lies in the order of classes depends on which block came first. So what
// is found there is entered by its number, in a set of bits, and read from that in order.
#pragma once

#include "marked_state.cuh"

namespace flashmetric::cuda {

// Rows of a set of bits: what eight warps have is a third of the shared memory that blocks may have
// without asking. Of more rows, one window comes after another.
constexpr int kWindow = 16384;
constexpr int kWindowWords = kWindow / kWarp;

struct MarkedColumns {
  const MarkedState& state;
  uint32_t* entered;  // [kWindowWords] of the warp
  int32_t position;   // of the query
  PositiveRun run;
  int32_t n_irregular;
  bool all;           // whatever the marks: the query is not ranked, or too many are not
  int32_t first = 0;  // row of the window
  int32_t word = 0;   // that the first lane has the bits of
  uint32_t bits = 0;

  __device__ MarkedColumns(const MarkedState& of, uint32_t* set, int64_t i, int32_t at)
      : state(of),
        entered(set),
        position(at),
        run(of, i, at),
        n_irregular(of.tally->n_irregular),
        all(of.all_by_keys() || of.ranked[0].slack[at] < 0) {}

  // Enters those of a kind that are in the window from a row on.
  __device__ void open(int kind, int32_t window) {
    first = window;
    for (int w = lane_of(); w < window_words(); w += kWarp) entered[w] = 0;
    __syncwarp();
    if (kind == 0) {
      for (int32_t at = run.begin + lane_of(); at < run.end; at += kWarp) {
        if (at != run.self) enter(at);
      }
    } else {
      const int32_t words = state.ranked[1].padded / kWarp;
      for (int32_t at = lane_of(); at < words; at += kWarp) enter_marked(at);
    }
    __syncwarp();
    word = -kWarp;
    bits = 0;
  }
  // A row for each lane, -1: none. Returns whether there may be more.
  __device__ bool next(int32_t& j) {
    while (!__any_sync(kAllLanes, bits != 0)) {
      word += kWarp;
      if (word >= window_words()) return false;
      bits = word + lane_of() < window_words() ? entered[word + lane_of()] : 0;
    }
    if (bits != 0) j = first + (word + lane_of()) * kWarp + __ffs(static_cast<int>(bits)) - 1;
    bits &= bits - 1;
    return true;
  }

 private:
  __device__ int window_words() const {
    const int64_t left = (state.ref.n - first + kWarp - 1) / kWarp;
    return left < kWindowWords ? static_cast<int>(left) : kWindowWords;
  }
  __device__ void enter(int32_t at) {
    const auto row = static_cast<uint32_t>(state.ranked[1].order[at] - first);
    if (row < kWindow) atomicOr(entered + row / kWarp, 1U << row % kWarp);
  }
  __device__ void enter_marked(int32_t at) {
    for (uint32_t left = bits_at(at); left != 0; left &= left - 1) {
      const int32_t column = column_of(at, __ffs(static_cast<int>(left)) - 1);
      const bool positive = column >= run.begin && column < run.end;
      if (!positive && column != run.self) enter(column);
    }
  }
  __device__ uint32_t bits_at(int32_t at) const {
    if (all) return ~0U;
    const int64_t row = (position - state.first_query) * state.marks_of_row();
    uint32_t found = reinterpret_cast<const uint32_t*>(state.marks + row)[at];
    for (int t = 0; t < n_irregular; ++t) {
      const int32_t column = state.irregular[t];
      if (column / kMarkColumns * 2 + column / 4 % 2 == at) found |= 1U << bit_of(column);
    }
    return found;
  }
  // Where a reference is in its word, and back.
  __device__ static int bit_of(int32_t column) {
    return column / 2 % 2 * kMarkBits + column % kMarkColumns / 8 * 2 + column % 2;
  }
  __device__ static int32_t column_of(int32_t at, int bit) {
    return at / 2 * kMarkColumns + bit % kMarkBits / 2 * 8 + at % 2 * 4 + bit / kMarkBits * 2 +
           bit % 2;
  }
};

}  // namespace flashmetric::cuda
