// SPDX-License-Identifier: BSD-3-Clause
// What each instruction set provides: one table of entry points. kernels.cpp defines it, once per
// ISA, in namespace flashmetric::cpu::<isa>.
#pragma once

#include "../names.h"

namespace flashmetric::cpu {

struct KernelTable {
  void (*mine)(MineProblem& problem, Names names);
  void (*list_triplets)(ListProblem& problem, Names names);
  void (*triplet)(TripletProblem& problem, Names names);
  void (*dense)(DenseProblem& problem, Names names);
  void (*paired)(PairedProblem& problem, Names names);
  void (*pairwise)(PairwiseProblem& problem, Names names);
  void (*pairwise_backward)(PairwiseProblem& problem, Names names);
};

namespace portable {
extern const KernelTable table;
}
#if defined(FLASHMETRIC_HAS_AVX2)
namespace avx2 {
extern const KernelTable table;
}
#endif
#if defined(FLASHMETRIC_HAS_AVX512)
namespace avx512 {
extern const KernelTable table;
}
#endif

// Whether `dense` takes the loss of semi-hard triplets: float32 rows, a distance of products, and
// classes too large for slots (slots.h). Defined in list_anchor.cpp.
bool semihard_is_dense(const Comparison& problem, Names names);

// Counts calls; only touched through __atomic builtins. Defined in isa.cpp.
struct Counters {
  int64_t mine, list_triplets, triplet, dense, paired, pairwise, pairwise_backward;
  int64_t candidates, rescored, fallback_rows, brute_rows, slots;
  int64_t dense_blocks, sorted_anchors;
};
extern Counters call_counters;

// For tests: how trials end (trial.h), 0 where they are made. Defined in isa.cpp.
extern int trial_verdict;

// For tests: 1, or less to see that a bound that is too small is noticed. Defined in isa.cpp.
extern double slack_factor;

}  // namespace flashmetric::cpu
