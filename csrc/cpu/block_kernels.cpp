// SPDX-License-Identifier: BSD-3-Clause
// Compiled once per instruction set, beside dense_kernels.cpp: picks the instance of a dense loss
// that goes by pairs of blocks.
#include "../distances.h"
#include "dense_blocks.h"
#include "kernels.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {
namespace {

template <class T, Curve curve, class Rule>
bool block_loss(KeyForm key, DenseProblem& problem, DenseReduction reduction) {
  Arena arena(problem.workspace);
  DenseState<T> state;
  BlockState<T> blocks;
  GatherScratch<T>* scratch = nullptr;
  lay_out_sets(arena, problem, state);
  lay_out_blocks(arena, problem, !Rule::of_pairs, blocks, scratch);
  if (arena.counting()) {
    problem.workspace.bytes = arena.bytes();
    return true;
  }
  state.threads = dense_threads(problem);
  prepare_dense(key, problem, false, state);
  prepare_factors(problem, state);
  return DenseBlocks<T, curve, Rule>(problem, state, blocks, scratch, key).run(reduction);
}

template <template <class, Curve> class Rule>
bool visit_rule(DenseProblem& problem, Names names) {
  const KeyForm key = key_form(names.distance, names.power, problem.normalize);
  constexpr auto linear = Curve::linear;
  constexpr auto root = Curve::square_root;
  if (key.curve() == linear) {
    return block_loss<float, linear, Rule<float, linear>>(key, problem, names.dense_reduction);
  }
  return block_loss<float, root, Rule<float, root>>(key, problem, names.dense_reduction);
}

}  // namespace

// Problems of other kinds, and those that need numbers by anchor, go row by row.
bool suits_blocks(const DenseProblem& problem, Names names) {
  const bool by_anchor =
      problem.cotangent != nullptr || names.dense_reduction == DenseReduction::none;
  const KeyForm key = key_form(names.distance, names.power, problem.normalize);
  // Pairs of float64 rows are all taken by difference (dense.h).
  if (problem.dtype != DType::float32 || !key.of_products() || key.relative) return false;
  if (!problem.symmetric || problem.labels.relation != Relation::classes || by_anchor) return false;
  if (problem.loss == "contrastive") {
    return problem.margin_values == nullptr && problem.mining_margin_values == nullptr;
  }
  const bool sets = problem.loss == "all" || problem.loss == "semihard_all" ||
                    problem.loss == "hard_all" || problem.loss == "easy_all";
  return sets && !problem.soft_margin;
}

bool block_entry(DenseProblem& problem, Names names) {
  if (problem.loss == "contrastive") return visit_rule<ContrastiveBlocks>(problem, names);
  return visit_rule<HingeBlocks>(problem, names);
}

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
