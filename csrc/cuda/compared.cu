// SPDX-License-Identifier: BSD-3-Clause
// What ops over two sets of rows have in common: who is compared with whom, and room for what is
// measured of them.
#include "stages.h"

namespace flashmetric::cuda {
namespace {

LabelView view_of(const Comparison& problem) {
  const Labels& labels = problem.labels;
  LabelView view{labels.relation,  labels.query,      labels.ref,
                 labels.n_classes, labels.self_index, labels.query_keep,
                 labels.ref_keep,  problem.symmetric, problem.ref.n};
  if (problem.symmetric) {
    view.ref_keep = labels.query_keep;
    if (labels.relation != Relation::either) view.ref = labels.query;
  }
  return view;
}

}  // namespace

Compared compared_of(const Comparison& problem, const Names& names) {
  Compared state;
  state.key = {key_facts(names.distance, names.power, problem.normalize)};
  state.dim = problem.dim;
  state.query = any_rows(problem.query, problem.dtype);
  state.ref = any_rows(problem.ref, problem.dtype);
  state.labels = view_of(problem);
  return state;
}

void lay_out_numbers(Arena& arena, Compared& state) {
  state.query.numbers = take_numbers(arena, state.query.n);
  state.ref.numbers =
      state.labels.symmetric ? state.query.numbers : take_numbers(arena, state.ref.n);
}

void lay_out_frame(Arena& arena, Compared& state) {
  state.centre = arena.take<float>(state.dim);
  state.centre_squares = arena.take<double>((state.dim + kWarp - 1) / kWarp);
}

}  // namespace flashmetric::cuda
