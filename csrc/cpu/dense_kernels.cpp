// SPDX-License-Identifier: BSD-3-Clause
// Compiled once per instruction set, like kernels.cpp, beside which it can be compiled: picks the
// instance of a dense loss.
#include "../distances.h"
#include "dense_loss.h"
#include "kernels.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// block_kernels.cpp
bool suits_blocks(const DenseProblem& problem, Names names);
bool block_entry(DenseProblem& problem, Names names);

namespace {

template <class T, Curve curve, class Rule>
void dense_loss(KeyForm key, DenseProblem& problem, DenseReduction reduction) {
  Arena arena(problem.workspace);
  DenseState<T> state;
  lay_out_dense(arena, problem, state);
  if (arena.counting()) {
    problem.workspace.bytes = arena.bytes();
    return;
  }
  state.threads = dense_threads(problem);
  prepare_dense(key, problem, true, state);
  if constexpr (std::is_same_v<Rule, SemiHardPairs>) {
    *problem.refused = semihard_fits<T, curve>(key, state.frame) ? 0 : 1;
    if (*problem.refused != 0) return;
  }
  prepare_factors(problem, state);
  const AnyRelation relation = relation_of(problem, state);
  const bool mirrored =
      Rule::of_pairs && relation.symmetric() && problem.symmetric && !key.relative;
  DenseLoss<T, curve, Rule>{problem, state, relation, key, mirrored}.run(reduction);
}

template <class Rule, Curve curve>
void visit_dtype(KeyForm key, DenseProblem& problem, Names names) {
  if (problem.dtype == DType::float32) {
    dense_loss<float, curve, Rule>(key, problem, names.dense_reduction);
  } else {
    dense_loss<double, curve, Rule>(key, problem, names.dense_reduction);
  }
}

// Dense losses are instantiated by the curve of a distance, not by the distance.
template <class Rule>
void visit_rule(Rule, DenseProblem& problem, Names names) {
  const KeyForm key = key_form(names.distance, names.power, problem.normalize);
  switch (key.curve()) {
    case Curve::linear:
      return visit_dtype<Rule, Curve::linear>(key, problem, names);
    case Curve::square_root:
      return visit_dtype<Rule, Curve::square_root>(key, problem, names);
    case Curve::root:
      return visit_dtype<Rule, Curve::root>(key, problem, names);
  }
}

// dispatch.cpp has seen to it that the batch is of float32 rows, and the distance of products.
void visit_semihard(DenseProblem& problem, Names names) {
  const KeyForm key = key_form(names.distance, names.power, problem.normalize);
  if (key.curve() == Curve::linear) {
    return dense_loss<float, Curve::linear, SemiHardPairs>(key, problem, names.dense_reduction);
  }
  dense_loss<float, Curve::square_root, SemiHardPairs>(key, problem, names.dense_reduction);
}

template <Curve curve>
void gradient_of_all(KeyForm key, DenseProblem& problem) {
  dense_loss<float, curve, GivenSlopes>(key, problem, DenseReduction::sum);
}

void count_call(bool by_blocks) {
  __atomic_fetch_add(&call_counters.dense, int64_t{1}, __ATOMIC_RELAXED);
  __atomic_fetch_add(&call_counters.dense_blocks, int64_t{by_blocks}, __ATOMIC_RELAXED);
}

void visit_rows(DenseProblem& problem, Names names) {
  if (problem.loss == "contrastive") return visit_rule(Contrastive<false>{}, problem, names);
  if (problem.loss == "online_contrastive") return visit_rule(Contrastive<true>{}, problem, names);
  if (problem.loss == "soft") return visit_rule(SoftWeights{}, problem, names);
  if (problem.loss == "semihard") return visit_semihard(problem, names);
  if (problem.soft_margin) return visit_rule(TripletSoftplus{}, problem, names);
  visit_rule(TripletHinges{}, problem, names);
}

}  // namespace

// False, and nothing done, where pairs are taken one by one (pairwise.h).
bool pairwise_by_products(PairwiseProblem& problem, KeyForm key) {
  if (problem.dtype != DType::float32 || by_pairs(key)) return false;
  DenseProblem all;
  all.normalize = problem.normalize;
  all.dim = problem.dim;
  all.query = problem.x;
  all.ref = problem.y;
  all.labels.relation = Relation::multi_hot;  // without classes nothing is sorted
  all.pairs = problem.cotangent;
  float none = 0;
  all.out = &none;
  all.grad[0] = problem.out;
  all.workspace = problem.workspace;
  all.threads = problem.threads;
  if (key.curve() == Curve::linear) {
    gradient_of_all<Curve::linear>(key, all);
  } else {
    gradient_of_all<Curve::square_root>(key, all);
  }
  problem.workspace = all.workspace;
  return true;
}

void dense_entry(DenseProblem& problem, Names names) {
  const bool by_blocks = suits_blocks(problem, names);
  size_t bytes = 0;
  if (by_blocks) {
    const bool done = block_entry(problem, names);
    bytes = problem.workspace.bytes;
    if (done && problem.workspace.data != nullptr) return count_call(true);
  }
  visit_rows(problem, names);  // also where the numbers turn out not to suit blocks
  if (problem.workspace.data != nullptr) return count_call(false);
  if (bytes > problem.workspace.bytes) problem.workspace.bytes = bytes;
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
