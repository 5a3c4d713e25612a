// SPDX-License-Identifier: BSD-3-Clause
#include "order.h"

#include <algorithm>
#include <vector>

namespace flashmetric::cpu {
namespace {

// Labels are mostly small integers. Up to 4 counters a row the counting sort touches less memory
// than a comparison sort; 1024 spare ones let tiny batches use class ids of any usual data set.
int64_t counters_for(int64_t rows) { return 4 * rows + 1024; }

// Class ids of rows, `step` apart.
struct Keys {
  const int64_t* first;
  int64_t step;
  int64_t operator[](int64_t row) const { return first[row * step]; }
};

void stable_sort_by_key(Keys key, int32_t* row, int32_t n, Order& scratch) {
  if (n == 0) return;
  int64_t low = key[row[0]];
  int64_t high = low;
  bool sorted = true;
  for (int32_t p = 1; p < n; ++p) {
    sorted = sorted && key[row[p - 1]] <= key[row[p]];
    low = std::min(low, key[row[p]]);
    high = std::max(high, key[row[p]]);
  }
  if (sorted) return;
  const uint64_t range = static_cast<uint64_t>(high) - static_cast<uint64_t>(low);
  // The sort needs range + 2 counters and a copy of the n rows.
  if (range > static_cast<uint64_t>(scratch.counters - n - 2)) {
    std::stable_sort(row, row + n, [key](int32_t a, int32_t b) { return key[a] < key[b]; });
    return;
  }
  int32_t* count = scratch.count;
  int32_t* unsorted = count + range + 2;
  std::fill(count, unsorted, 0);
  std::copy(row, row + n, unsorted);
  for (int32_t p = 0; p < n; ++p) ++count[key[row[p]] - low + 1];
  for (uint64_t c = 0; c <= range; ++c) count[c + 1] += count[c];
  for (int32_t p = 0; p < n; ++p) {
    row[count[key[unsorted[p]] - low]++] = unsorted[p];
  }
}

int32_t keep_rows(const uint8_t* keep, int64_t n, int32_t* row) {
  int32_t kept = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (keep == nullptr || keep[i] != 0) row[kept++] = static_cast<int32_t>(i);
  }
  return kept;
}

// Both sides ascend by key, so one sweep finds every query's run of references.
void find_runs(Keys query_key, Keys ref_key, Order& order) {
  int32_t begin = 0;
  int32_t end = 0;
  for (int32_t i = 0; i < order.n_query; ++i) {
    const int64_t key = query_key[order.query[i]];
    while (begin < order.n_ref && ref_key[order.ref[begin]] < key) ++begin;
    end = std::max(end, begin);
    while (end < order.n_ref && ref_key[order.ref[end]] == key) ++end;
    order.run_begin[i] = begin;
    order.run_end[i] = end;
  }
}

void find_other_runs(Keys query_key, Keys ref_key, Order& order) {
  for (int32_t i = 0; i < order.n_query; ++i) {
    const int64_t key = query_key[order.query[i]];
    const int32_t* const begin = order.ref;
    const int32_t* const end = begin + order.n_ref;
    const int32_t* const first =
        std::lower_bound(begin, end, key, [&](int32_t row, int64_t k) { return ref_key[row] < k; });
    const int32_t* const last =
        std::upper_bound(first, end, key, [&](int64_t k, int32_t row) { return k < ref_key[row]; });
    order.other_begin[i] = static_cast<int32_t>(first - order.ref);
    order.other_end[i] = static_cast<int32_t>(last - order.ref);
  }
}

void find_self(const Comparison& problem, Order& order) {
  const int64_t* self_index = problem.labels.self_index;
  for (int32_t i = 0; i < order.n_query; ++i) {
    const int64_t row = order.query[i];
    const int64_t self = problem.symmetric ? row : self_index == nullptr ? -1 : self_index[row];
    const bool known = self >= 0 && self < problem.ref.n;
    order.self[i] = known ? order.ref_position[self] : -1;
  }
}

}  // namespace

void lay_out_order(Arena& arena, const Comparison& problem, Order& order) {
  const int64_t n_query = problem.query.n;
  const int64_t n_ref = problem.ref.n;
  order.query = arena.take<int32_t>(n_query);
  order.ref = problem.symmetric ? order.query : arena.take<int32_t>(n_ref);
  order.ref_position = arena.take<int32_t>(n_ref);
  order.self = arena.take<int32_t>(n_query);
  const bool either = problem.labels.relation == Relation::either;
  if (problem.labels.relation != Relation::classes && !either) return;
  if (either) order.other_begin = arena.take<int32_t>(n_query);
  if (either) order.other_end = arena.take<int32_t>(n_query);
  order.run_begin = arena.take<int32_t>(n_query);
  order.run_end = arena.take<int32_t>(n_query);
  order.counters = counters_for(std::max(n_query, n_ref));
  order.count = arena.take<int32_t>(order.counters);
}

void build_order(const Comparison& problem, Order& order) {
  const Labels& labels = problem.labels;
  const bool either = labels.relation == Relation::either;
  const bool classes = labels.relation == Relation::classes || either;
  const auto* labels_of_queries = static_cast<const int64_t*>(labels.query);
  const Keys query_key{labels_of_queries, either ? 2 : 1};
  const Keys ref_key{
      problem.symmetric ? labels_of_queries : static_cast<const int64_t*>(labels.ref), 1};

  order.n_query = keep_rows(labels.query_keep, problem.query.n, order.query);
  if (classes) stable_sort_by_key(query_key, order.query, order.n_query, order);
  if (problem.symmetric) {
    order.n_ref = order.n_query;
  } else {
    order.n_ref = keep_rows(labels.ref_keep, problem.ref.n, order.ref);
    if (classes) stable_sort_by_key(ref_key, order.ref, order.n_ref, order);
  }
  std::fill(order.ref_position, order.ref_position + problem.ref.n, -1);
  for (int32_t j = 0; j < order.n_ref; ++j) order.ref_position[order.ref[j]] = j;
  find_self(problem, order);
  if (classes) find_runs(query_key, ref_key, order);
  if (either) find_other_runs({labels_of_queries + 1, 2}, ref_key, order);
}

int64_t largest_class(const Comparison& problem) {
  const auto* labels =
      static_cast<const int64_t*>(problem.symmetric ? problem.labels.query : problem.labels.ref);
  const int64_t n = problem.ref.n;
  if (n == 0) return 0;
  const auto [low, high] = std::minmax_element(labels, labels + n);
  const uint64_t range = static_cast<uint64_t>(*high) - static_cast<uint64_t>(*low);
  if (range < static_cast<uint64_t>(counters_for(n))) {
    std::vector<int64_t> count(range + 1);
    for (int64_t i = 0; i < n; ++i) ++count[static_cast<size_t>(labels[i] - *low)];
    return *std::max_element(count.begin(), count.end());
  }
  std::vector<int64_t> sorted(labels, labels + n);
  std::sort(sorted.begin(), sorted.end());
  int64_t largest = 0;
  for (auto run = sorted.begin(); run != sorted.end();) {
    const auto end = std::upper_bound(run, sorted.end(), *run);
    largest = std::max(largest, static_cast<int64_t>(end - run));
    run = end;
  }
  return largest;
}

}  // namespace flashmetric::cpu
