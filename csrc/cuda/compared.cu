// SPDX-License-Identifier: BSD-3-Clause
// What ops over two sets of rows have in common: who is compared with whom, and room for what is
// measured of them.
#include "key_rows.cuh"
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

void launch_key_rows(const Compared& state, const KeyRows& to, cudaStream_t stream,
                     Launches& launches) {
  if (!launches.fine() || state.ref.n == 0) return;
  const int64_t tiles = (state.ref.n + kKeyTile - 1) / kKeyTile;
  const unsigned blocks = blocks_for((to.rows + kKeyTile - 1) / kKeyTile * tiles, 1);
  with_value<Form::difference, Form::product, Form::absolute, Form::power, Form::maximum,
             Form::overlap>(state.key.form, [&](auto form) {
    write_key_rows<form.value><<<blocks, kKeyThreads, 0, stream>>>(state, to);
  });
  launches.check("write_key_rows");
}

void lay_out_frame(Arena& arena, Compared& state) {
  state.centre = arena.take<float>(state.dim);
  state.centre_squares = arena.take<double>((state.dim + kWarp - 1) / kWarp);
}

}  // namespace flashmetric::cuda
