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

void dense_entry(DenseProblem& problem, Names names);  // dense_kernels.cpp

namespace {

// visitor(T{}, Distance{}) for the dtype and the distance of a problem.
template <class Problem, class Visitor>
FM_INLINE void visit(const Problem& problem, Names names, const Visitor& visitor) {
  visit_by_index(Distances{}, names.distance, [&](auto distance) {
    if (problem.dtype == DType::float32) {
      visitor(float{}, distance);
    } else {
      visitor(double{}, distance);
    }
  });
}

// Mining is instantiated by form, not by distance: it ranks by keys, which know the form only.
void mine_entry(MineProblem& problem, Names names) {
  visit_by_index(Distances{}, names.distance, [&](auto distance) {
    const KeyForm key = key_form<decltype(distance)>(problem.normalize);
    visit_by_index(Miners{}, names.mining, [&](auto miner) {
      if (problem.dtype == DType::float32) {
        mine_rows<float, FullTiles<float>, decltype(miner)>(key, problem);
      } else {
        mine_rows<double, FullTiles<double>, decltype(miner)>(key, problem);
      }
    });
  });
}

void list_entry(ListProblem& problem, Names names) {
  visit(problem, names, [&](auto scalar, auto distance) {
    list_rows<decltype(scalar), decltype(distance)>(problem, names.mining);
  });
}

void triplet_entry(TripletProblem& problem, Names names) {
  visit(problem, names, [&](auto scalar, auto distance) {
    visit_by_index(TripletLosses{}, names.loss, [&](auto loss) {
      triplet_loss<decltype(scalar), decltype(distance), decltype(loss)>(names.reduction, problem);
    });
  });
}

void paired_entry(PairedProblem& problem, Names names) {
  visit(problem, names, [&](auto scalar, auto distance) {
    paired_distances<decltype(scalar), decltype(distance)>(problem);
  });
}

void pairwise_entry(PairwiseProblem& problem, Names names) {
  visit(problem, names, [&](auto scalar, auto distance) {
    pairwise_forward<decltype(scalar), decltype(distance)>(problem);
  });
}

void pairwise_backward_entry(PairwiseProblem& problem, Names names) {
  visit(problem, names, [&](auto scalar, auto distance) {
    pairwise_gradient<decltype(scalar), decltype(distance)>(problem);
  });
}

}  // namespace

extern const KernelTable table = {mine_entry,   list_entry,     triplet_entry,          dense_entry,
                                  paired_entry, pairwise_entry, pairwise_backward_entry};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
