// SPDX-License-Identifier: BSD-3-Clause
// Who is a positive and who a negative of one query, in the order of the caller's rows: for kernels
// that look at whole rows of keys. relation.h answers the same for tiles of sorted rows.
#pragma once

#include "../arena.h"
#include "simd.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

struct RoleLists {
  int32_t* row[2];  // [n_ref] each: positives, negatives; null = only count
  int64_t n[2];
};

struct Roles {
  const Comparison& problem;
  uint64_t* words[2] = {};  // multi-hot labels of queries and references as bits
  int64_t n_words = 0;

  explicit Roles(const Comparison& comparison) : problem(comparison) {}

  FM_INLINE void lay_out(Arena& arena) {
    if (problem.labels.relation != Relation::multi_hot) return;
    n_words = (problem.labels.n_classes + 63) / 64;
    words[0] = arena.take<uint64_t>(problem.query.n * n_words);
    words[1] = problem.symmetric ? words[0] : arena.take<uint64_t>(problem.ref.n * n_words);
  }

  inline void build() const {
    if (problem.labels.relation != Relation::multi_hot) return;
    pack(problem.labels.query, problem.query.n, words[0]);
    if (!problem.symmetric) pack(problem.labels.ref, problem.ref.n, words[1]);
  }

  FM_INLINE bool kept(int64_t i) const {
    return problem.labels.query_keep == nullptr || problem.labels.query_keep[i] != 0;
  }

  inline void split(int64_t i, RoleLists& lists) const {
    lists.n[0] = lists.n[1] = 0;
    const Labels& labels = problem.labels;
    if (labels.relation == Relation::classes) {
      const auto* query = static_cast<const int64_t*>(labels.query);
      const auto* ref = problem.symmetric ? query : static_cast<const int64_t*>(labels.ref);
      const int64_t own = query[i];
      split_by(i, lists, [=](int64_t j) { return ref[j] == own; });
    } else if (labels.relation == Relation::multi_hot) {
      const uint64_t* a = words[0] + i * n_words;
      split_by(i, lists, [=, this](int64_t j) {
        const uint64_t* b = words[1] + j * n_words;
        uint64_t shared = 0;
        for (int64_t w = 0; w < n_words; ++w) shared |= a[w] & b[w];
        return shared != 0;
      });
    } else {
      const uint8_t* mask = static_cast<const uint8_t*>(labels.query) + i * problem.ref.n;
      split_by(i, lists, [=](int64_t j) { return mask[j] != 0; });
    }
  }

 private:
  FM_INLINE void pack(const void* hot, int64_t rows, uint64_t* to) const {
    const int64_t classes = problem.labels.n_classes;
    const auto* from = static_cast<const uint8_t*>(hot);
    for (int64_t i = 0; i < rows; ++i, from += classes, to += n_words) {
      for (int64_t w = 0; w < n_words; ++w) to[w] = 0;
      for (int64_t c = 0; c < classes; ++c) to[c / 64] |= uint64_t{from[c] != 0} << (c % 64);
    }
  }

  template <class Same>
  FM_INLINE void split_by(int64_t i, RoleLists& lists, const Same& same) const {
    const Labels& labels = problem.labels;
    const uint8_t* keep = problem.symmetric ? labels.query_keep : labels.ref_keep;
    const int64_t self = problem.symmetric              ? i
                         : labels.self_index == nullptr ? -1
                                                        : labels.self_index[i];
    for (int64_t j = 0; j < problem.ref.n; ++j) {
      if (j == self || (keep != nullptr && keep[j] == 0)) continue;
      const int role = same(j) ? 0 : 1;
      if (lists.row[role] != nullptr) lists.row[role][lists.n[role]] = static_cast<int32_t>(j);
      ++lists.n[role];
    }
  }
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
