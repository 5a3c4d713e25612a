// SPDX-License-Identifier: BSD-3-Clause
// The host side of listing: how chunks of anchors are laid out, and their rows of keys computed.
#pragma once

#include "list_state.cuh"
#include "stages.h"

namespace flashmetric::cuda {

// Calls launch(Policy{}) with the rule at that position of ListRules.
template <class... Policies, class Launch>
void with_rule(TypeList<Policies...>, int rule, const Launch& launch) {
  int position = 0;
  ((position++ == rule ? launch(Policies{}) : void()), ...);
}

// What a rule asks for.
struct ListNeeds {
  bool keys, distances, sphere, chosen, running;
};

ListNeeds list_needs(int rule, const ListProblem& problem);

ListState list_state(const ListProblem& problem, const Names& names, const ListNeeds& needs);

// The arrays of a chunk, `more` bytes a reference beside its own; sets how many anchors it has.
void lay_out_chunk(Arena& arena, const ListNeeds& needs, int64_t more, int multiprocessors,
                   ListState& state);

// The numbers of rows, of the named distance.
void launch_list_numbers(const KeyFacts& named, const ListState& state, cudaStream_t stream,
                         Launches& launches);

// Calls visit(state) for each chunk, its anchors set.
template <class Visit>
void each_chunk(const ListState& state, const Visit& visit) {
  const int64_t n = state.problem.query.n;
  for (int64_t first = 0; first < n; first += state.anchors) {
    ListState chunk = state;
    chunk.first = first;
    chunk.anchors = n - first < state.anchors ? n - first : state.anchors;
    visit(chunk);
  }
}

}  // namespace flashmetric::cuda
