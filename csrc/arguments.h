// SPDX-License-Identifier: BSD-3-Clause
// From the arguments of a call from Python to a problem of flashmetric.h. Only bindings.cpp
// includes this.
#pragma once

#include <pybind11/stl.h>

#include <string_view>
#include <utility>

#include "calls.h"
#include "cuda.h"

namespace flashmetric::bindings {

namespace fm = flashmetric;

inline fm::Relation relation_named(std::string_view name) {
  const int relation = fm::relation_named(name);
  if (relation < 0) throw py::value_error("unknown relation '" + std::string(name) + "'.");
  return static_cast<fm::Relation>(relation);
}

// One number per item, or one for all of them, a tensor without dimensions.
template <class Number>
void read_values(const Number*& values, int64_t& step, Arguments& in) {
  const TensorView view = in;
  values = static_cast<const Number*>(view.data);
  step = view.stride[0];
}

// A set of rows; without any, those of the set before it, and false. The first set says what the
// rows of all of them are.
template <class Problem>
bool read_rows(Problem& problem, fm::Rows& rows, const fm::Rows* before, Arguments& in) {
  const TensorView view = in;
  if (before == nullptr) {
    problem.dtype = view.dtype;
    problem.dim = view.shape[1];
  } else if (view.data == nullptr) {
    rows = *before;
    return false;
  }
  if (view.ndim != 2 || view.dtype != problem.dtype || view.shape[1] != problem.dim) {
    throw py::type_error("rows must be matrices of one dtype and width");
  }
  rows = {view.data, view.shape[0], view.stride[0]};
  return true;
}

inline void read_comparison(fm::Comparison& problem, Arguments& in) {
  read_rows(problem, problem.query, nullptr, in);
  problem.symmetric = !read_rows(problem, problem.ref, &problem.query, in);
  const TensorView labels = in;
  problem.labels.query = labels.data;
  problem.labels.ref = in;
  problem.labels.self_index = in;
  problem.labels.query_keep = in;
  problem.labels.ref_keep = in;
  problem.labels.relation = relation_named(in);
  const bool multi_hot = problem.labels.relation == fm::Relation::multi_hot;
  problem.labels.n_classes = multi_hot ? labels.shape[1] : 0;
}

template <class Problem>
void read_metric(Problem& problem, Arguments& in) {
  problem.distance = in;
  problem.normalize = in;
}

inline fm::MineProblem read_mine(Arguments& in) {
  fm::MineProblem p;
  read_comparison(p, in);
  p.mining = in;
  read_metric(p, in);
  p.positive = in;
  p.negative = in;
  return p;
}

inline fm::ListProblem read_list(Arguments& in) {
  fm::ListProblem p;
  read_comparison(p, in);
  p.mining = in;
  read_metric(p, in);
  p.drop_without_semihard = in;
  p.hardness = in;
  p.positive_mining = in;
  p.negative_mining = in;
  p.n_negatives = in;
  p.mining_margin = in;
  read_values(p.margin_values, p.margin_stride, in);
  p.seed = static_cast<uint64_t>(static_cast<int64_t>(in));
  p.uncovered = in;
  p.for_loss = in;
  p.begin = in;
  p.capacity = in;
  for (int64_t*& out : p.out) out = in;
  return p;
}

inline fm::ListProblem read_cuda_list(Arguments& in) {
  fm::ListProblem p = read_list(in);
  p.hardness_value = in;
  p.total = in;
  return p;
}

// What an op of a loss is asked for, and what it returns: the loss, the gradients that are wanted,
// statistics if they are, and what else it tells, in the order of `more`.
template <class Problem, class... More>
void read_outputs(Problem& problem, void*& loss, Arguments& in, More*&... more) {
  const py::sequence wanted = in;
  const bool with_stats = in;
  const py::list outputs = in;
  size_t at = 0;
  const auto next = [&] { return view_of(outputs[at++]).data; };
  loss = next();
  for (size_t role = 0; role < wanted.size(); ++role) {
    if (wanted[role].cast<bool>()) problem.grad[role] = next();
  }
  if (with_stats) problem.stats = static_cast<double*>(next());
  if (at < outputs.size()) ((more = static_cast<More*>(next())), ...);
}

// The options of the op `triplet`, and its outputs.
template <class... More>
void read_terms(fm::TripletProblem& p, Arguments& in, More*&... more) {
  read_values(p.margin_values, p.margin_stride, in);
  p.weights = in;
  read_values(p.cotangent, p.cotangent_stride, in);
  p.margin = in;
  read_metric(p, in);
  p.soft_margin = in;
  p.swap = in;
  p.count_invalid = in;
  p.reduction = in;
  read_outputs(p, p.loss, in, more...);
}

inline fm::TripletProblem read_triplet(Arguments& in) {
  fm::TripletProblem p;
  for (int role = 0; role < 3; ++role) {
    const fm::Rows* const before = role == 0 ? nullptr : &p.rows[role - 1];
    const bool own = read_rows(p, p.rows[role], before, in);
    p.first_role[role] = own ? role : p.first_role[role - 1];
  }
  const TensorView anchor = in;
  p.n = anchor.data == nullptr ? p.rows[0].n : anchor.shape[0];
  p.index[0] = static_cast<const int64_t*>(anchor.data);
  p.index[1] = in;
  p.index[2] = in;
  read_terms(p, in);
  p.far_from_none = in;
  p.totals = in;
  return p;
}

// The loss of triplets of queries and references; the outputs may tell more.
template <class... More>
fm::TripletProblem read_terms_of(const fm::Comparison& chosen, Arguments& in, More*&... more) {
  fm::TripletProblem p;
  p.dtype = chosen.dtype;
  p.dim = chosen.dim;
  p.rows[0] = chosen.query;
  p.rows[1] = p.rows[2] = chosen.ref;
  p.first_role[1] = p.first_role[2] = chosen.symmetric ? 0 : 1;
  p.n = chosen.query.n;
  read_terms(p, in, more...);
  return p;
}

// One triplet of each query, which it tells if the outputs have room for it, and their loss.
inline std::pair<fm::MineProblem, fm::TripletProblem> read_mined_triplet(Arguments& in) {
  fm::MineProblem mined;
  read_comparison(mined, in);
  mined.mining = in;
  const fm::TripletProblem loss = read_terms_of(mined, in, mined.positive, mined.negative);
  mined.distance = loss.distance;
  mined.normalize = loss.normalize;
  return {mined, loss};
}

// What a rule lists, and the loss of all of it.
inline std::pair<fm::ListProblem, fm::TripletProblem> read_listed_triplet(Arguments& in) {
  fm::ListProblem lists = read_cuda_list(in);
  fm::TripletProblem loss = read_terms_of(lists, in);
  loss.far_from_none = true;
  return {lists, loss};
}

inline fm::DenseProblem read_dense(Arguments& in) {
  fm::DenseProblem p;
  read_comparison(p, in);
  p.loss = in;
  p.drop_without_semihard = in;
  p.uncovered = in;
  p.refused = in;
  read_values(p.mining_margin_values, p.mining_margin_stride, in);
  read_values(p.margin_values, p.margin_stride, in);
  p.bounds = in;
  p.weights = in;
  read_values(p.cotangent, p.cotangent_stride, in);
  p.margin = in;
  p.mining_margin = in;
  p.soft_margin = in;
  p.temperature = in;
  p.detach_weights = in;
  p.power = in;
  p.factor = in;
  read_metric(p, in);
  p.reduction = in;
  read_outputs(p, p.out, in);
  return p;
}

inline fm::PairedProblem read_paired(Arguments& in) {
  fm::PairedProblem p;
  read_rows(p, p.x, nullptr, in);
  p.shared = !read_rows(p, p.r, &p.x, in);
  const TensorView index = in;
  p.n = index.data == nullptr ? p.x.n : index.shape[0];
  p.index[0] = static_cast<const int64_t*>(index.data);
  p.index[1] = in;
  read_values(p.cotangent, p.cotangent_stride, in);
  read_metric(p, in);
  p.out = in;
  for (void*& grad : p.grad) grad = in;
  return p;
}

template <bool backward>
fm::PairwiseProblem read_pairwise(Arguments& in) {
  fm::PairwiseProblem p;
  read_rows(p, p.x, nullptr, in);
  read_rows(p, p.y, &p.x, in);
  if (backward) {
    const TensorView cotangent = in;
    p.cotangent = {cotangent.data, cotangent.stride[0], cotangent.stride[1]};
  }
  read_metric(p, in);
  if (backward) {
    p.swapped = in;
    p.cotangent.mirrored = in;
  }
  p.out = in;
  return p;
}

}  // namespace flashmetric::bindings
