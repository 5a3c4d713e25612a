// SPDX-License-Identifier: BSD-3-Clause
#include "list_anchor.h"

#include <algorithm>
#include <numeric>

#include "../key_form.h"
#include "kernels.h"
#include "order.h"

namespace flashmetric::cpu {

bool suits_slots(const Comparison& problem) {
  if (problem.labels.relation != Relation::classes || problem.dim == 0) return false;
  const int64_t most = largest_class(problem);
  return most > 0 && most <= kMostSlots && most * problem.query.n <= kMostSlotsInAll;
}

bool semihard_is_dense(const Comparison& problem, Names names) {
  const KeyFacts key = key_facts(names.distance, names.power, problem.normalize);
  return problem.dtype == DType::float32 && problem.labels.relation == Relation::classes &&
         problem.dim > 0 && key.of_products() && !key.relative && !suits_slots(problem);
}

ListNeeds list_needs(int rule, const ListProblem& options) noexcept {
  ListNeeds needs;
  visit_by_index(ListRules{}, rule, [&](auto policy) {
    needs = {decltype(policy)::measure(options), decltype(policy)::sorts};
  });
  return needs;
}

int64_t list_bound(int rule, int64_t positives, int64_t negatives,
                   const ListProblem& options) noexcept {
  int64_t bound = 0;
  visit_by_index(ListRules{}, rule, [&](auto policy) {
    bound = decltype(policy)::bound(positives, negatives, options);
  });
  return bound;
}

void sort_by_key(const double* key, int64_t n, int32_t* sorted) noexcept {
  std::iota(sorted, sorted + n, 0);
  std::sort(sorted, sorted + n, [key](int32_t a, int32_t b) {
    const bool nan_a = key[a] != key[a];
    const bool nan_b = key[b] != key[b];
    if (nan_a != nan_b) return nan_a;
    return nan_a || key[a] == key[b] ? a < b : key[a] < key[b];
  });
}

int64_t list_anchor(int rule, const AnchorRow& anchor, const ListProblem& options,
                    int64_t* positive, int64_t* negative) noexcept {
  int64_t listed = 0;
  visit_by_index(ListRules{}, rule, [&](auto policy) {
    decltype(policy)::list(anchor, options, [&](int64_t p, int64_t n) {
      positive[listed] = anchor.positive.row[p];
      negative[listed++] = n < 0 ? -1 : anchor.negative.row[n];
    });
  });
  return listed;
}

}  // namespace flashmetric::cpu
