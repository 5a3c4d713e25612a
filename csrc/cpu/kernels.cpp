// SPDX-License-Identifier: BSD-3-Clause
// Compiled once per instruction set, into namespace flashmetric::cpu::<FLASHMETRIC_ISA_NAMESPACE>:
// picks the instance of each kernel. Includes no torch and no std algorithms (policy.h says why).
#include "kernels.h"

#include "../distances.h"
#include "../losses.h"
#include "../mining.h"
#include "list_rows.h"
#include "mine.h"
#include "paired.h"
#include "pairwise.h"
#include "scatter_pairs.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

// dense_kernels.cpp
void dense_entry(DenseProblem& problem, Names names);
bool pairwise_by_products(PairwiseProblem& problem, KeyForm key);

namespace {

// visitor(T{}) for the dtype of a problem.
template <class Problem, class Visitor>
FM_INLINE void visit(const Problem& problem, const Visitor& visitor) {
  if (problem.dtype == DType::float32) {
    visitor(float{});
  } else {
    visitor(double{});
  }
}

// Kernels are not instantiated by distance: they know its key (Form), and ask for its value.
template <class Problem>
FM_INLINE KeyForm key_of(const Problem& problem, Names names) {
  return key_form(names.distance, names.power, problem.normalize);
}

void mine_entry(MineProblem& problem, Names names) {
  const KeyForm key = key_of(problem, names);
  visit_by_index(Miners{}, names.mining, [&](auto miner) {
    visit(problem, [&](auto scalar) {
      using T = decltype(scalar);
      mine_rows<T, Units<FullTiles<T>>, decltype(miner)>(key, problem);
    });
  });
}

void list_entry(ListProblem& problem, Names names) {
  visit(problem, [&](auto scalar) {
    list_rows<decltype(scalar)>(key_of(problem, names), problem, names.mining);
  });
}

void triplet_entry(TripletProblem& problem, Names names) {
  const KeyForm key = key_of(problem, names);
  visit_by_index(TripletLosses{}, names.loss, [&](auto loss) {
    visit(problem, [&](auto scalar) {
      triplet_loss<decltype(scalar), decltype(loss)>(key, names.reduction, problem);
    });
  });
}

void paired_entry(PairedProblem& problem, Names names) {
  visit(problem,
        [&](auto scalar) { paired_distances<decltype(scalar)>(key_of(problem, names), problem); });
}

void pairwise_entry(PairwiseProblem& problem, Names names) {
  visit(problem,
        [&](auto scalar) { pairwise_forward<decltype(scalar)>(key_of(problem, names), problem); });
}

void pairwise_backward_entry(PairwiseProblem& problem, Names names) {
  const KeyForm key = key_of(problem, names);
  if (!pairwise_by_products(problem, key)) {
    visit(problem, [&](auto scalar) { pairwise_gradient<decltype(scalar)>(key, problem); });
  }
  if (problem.workspace.data == nullptr) return;
  __atomic_fetch_add(&call_counters.pairwise_backward, int64_t{1}, __ATOMIC_RELAXED);
}

}  // namespace

extern const KernelTable table = {mine_entry,   list_entry,     triplet_entry,          dense_entry,
                                  paired_entry, pairwise_entry, pairwise_backward_entry};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
