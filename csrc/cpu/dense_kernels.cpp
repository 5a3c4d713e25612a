// SPDX-License-Identifier: BSD-3-Clause
// Compiled once per instruction set, like kernels.cpp, beside which it can be compiled: picks the
// instance of a dense loss.
#include "../distances.h"
#include "dense_loss.h"
#include "kernels.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {
namespace {

template <class T, class Distance, class Rule>
void dense_loss(DenseProblem& problem, DenseReduction reduction) {
  Arena arena(problem.workspace);
  DenseState<T> state;
  lay_out_dense(arena, problem, state);
  if (arena.counting()) {
    problem.workspace.bytes = arena.bytes();
    return;
  }
  const double work = static_cast<double>(problem.query.n) * static_cast<double>(problem.ref.n) *
                      static_cast<double>(problem.dim);
  state.threads = work < kSerialWork ? 1 : usable_threads(problem.threads);
  const KeyForm key = key_form<Distance>(problem.normalize);
  prepare_dense(key, problem, state);
  prepare_factors(problem, state);
  const AnyRelation relation = relation_of(problem, state);
  const bool mirrored = Rule::of_pairs && relation.symmetric() && problem.symmetric;
  DenseLoss<T, Distance, Rule>{problem, state, relation, key, mirrored}.run(reduction);
  __atomic_fetch_add(&call_counters.dense, int64_t{1}, __ATOMIC_RELAXED);
}

template <class Rule>
void visit_rule(Rule, DenseProblem& problem, Names names) {
  visit_by_index(Distances{}, names.distance, [&](auto distance) {
    if (problem.dtype == DType::float32) {
      dense_loss<float, decltype(distance), Rule>(problem, names.dense_reduction);
    } else {
      dense_loss<double, decltype(distance), Rule>(problem, names.dense_reduction);
    }
  });
}

}  // namespace

void dense_entry(DenseProblem& problem, Names names) {
  if (problem.loss == "contrastive") return visit_rule(Contrastive<false>{}, problem, names);
  if (problem.loss == "online_contrastive") return visit_rule(Contrastive<true>{}, problem, names);
  if (problem.loss == "soft") return visit_rule(SoftWeights{}, problem, names);
  if (problem.soft_margin) return visit_rule(TripletSoftplus{}, problem, names);
  visit_rule(TripletHinges{}, problem, names);
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
