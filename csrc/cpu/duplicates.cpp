// SPDX-License-Identifier: BSD-3-Clause
#include "duplicates.h"

#include <algorithm>
#include <cstring>
#include <tuple>

namespace flashmetric::cpu {
namespace {

// Among equal rows of one class the lowest index wins; a row that is the query itself leaves the
// place to the second.
constexpr int kPerClass = 2;

// Negatives of a query may come from every class but its own, or its own two (Relation::either).
// The query itself may be the lowest row of one more class. Of four classes one is always left, and
// its lowest row lies before those of every later class.
constexpr int kClasses = 4;

struct Content {
  const char* data;
  int64_t stride;  // bytes
  size_t bytes;

  const char* row(int64_t i) const { return data + i * stride; }
  bool equal(int32_t a, int32_t b) const { return std::memcmp(row(a), row(b), bytes) == 0; }

  // Multiply and fold, 8 bytes at a time. Rows with equal hashes are compared before use.
  uint64_t hash(int64_t i) const {
    uint64_t mixed = bytes;
    for (size_t at = 0; at < bytes; at += 8) {
      uint64_t word = 0;
      std::memcpy(&word, row(i) + at, std::min<size_t>(8, bytes - at));
      mixed = (mixed ^ word) * 0x9E3779B97F4A7C15U;  // 2^64 / golden ratio, odd
      mixed ^= mixed >> 32;
    }
    return mixed;
  }
};

// Equal rows, sorted by class and then by index.
void judge(const Duplicates::Row* begin, const Duplicates::Row* end, uint8_t* redundant) {
  int32_t lowest[kClasses];  // rows, ascending: the first ones of the kClasses earliest classes
  int classes = 0;
  for (const auto* row = begin; row < end; ++row) {
    if (row > begin && row->label == row[-1].label) continue;
    if (classes == kClasses && row->row > lowest[kClasses - 1]) continue;
    classes = std::min(classes + 1, kClasses);
    int at = classes - 1;
    for (; at > 0 && lowest[at - 1] > row->row; --at) lowest[at] = lowest[at - 1];
    lowest[at] = row->row;
  }
  const Duplicates::Row* first = begin;
  for (const auto* row = begin; row < end; ++row) {
    if (row->label != first->label) first = row;
    const bool behind = row - first >= kPerClass;
    const bool late = first->row > lowest[classes - 1];
    redundant[row->row] = static_cast<uint8_t>((behind ? 1 : 0) | (behind || late ? 2 : 0));
  }
}

}  // namespace

void lay_out_duplicates(Arena& arena, const Comparison& problem, Duplicates& duplicates) {
  duplicates.rows = arena.take<Duplicates::Row>(problem.ref.n);
  duplicates.redundant = arena.take<uint8_t>(problem.ref.n);
}

void find_duplicates(const Comparison& problem, const Order& order, const Duplicates& duplicates) {
  std::fill(duplicates.redundant, duplicates.redundant + problem.ref.n, uint8_t{0});
  const Labels& labels = problem.labels;
  if (labels.relation != Relation::classes && labels.relation != Relation::either) return;
  const auto* label = static_cast<const int64_t*>(problem.symmetric ? labels.query : labels.ref);
  const int64_t size = problem.dtype == DType::float32 ? sizeof(float) : sizeof(double);
  const Content content{static_cast<const char*>(problem.ref.data), problem.ref.stride * size,
                        static_cast<size_t>(problem.dim * size)};
  Duplicates::Row* const begin = duplicates.rows;
  Duplicates::Row* const end = begin + order.n_ref;
  for (int32_t j = 0; j < order.n_ref; ++j) {
    const int32_t row = order.ref[j];
    begin[j] = {content.hash(row), label[row], row};
  }
  std::sort(begin, end, [](const auto& a, const auto& b) {
    return std::tie(a.hash, a.label, a.row) < std::tie(b.hash, b.label, b.row);
  });
  for (Duplicates::Row* first = begin; first < end;) {
    // Rows that only share the hash of the first are left as they are.
    Duplicates::Row* const last = std::find_if(
        first, end, [first](const Duplicates::Row& row) { return row.hash != first->hash; });
    Duplicates::Row* const unequal = std::stable_partition(
        first, last,
        [&](const Duplicates::Row& row) { return content.equal(first->row, row.row); });
    judge(first, unequal, duplicates.redundant);
    first = last;
  }
}

}  // namespace flashmetric::cpu
