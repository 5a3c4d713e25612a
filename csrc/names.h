// SPDX-License-Identifier: BSD-3-Clause
// The names of a problem, resolved.
#pragma once

#include "flashmetric.h"

namespace flashmetric {

enum class Reduction : int { mean, mean_active, sum, none };

enum class DenseReduction : int { mean, mean_active, mean_pairs, sum, none };

// Problems reach the kernels with these positions in the policy lists.
struct Names {
  int distance = 0;
  double power = 2;  // of Minkowski
  int mining = 0;    // position in Miners or in ListRules
  int loss = 0;
  Reduction reduction = Reduction::mean;
  DenseReduction dense_reduction = DenseReduction::mean;
};

// A distance, or that of Minkowski with its exponent: "minkowski(3.5)".
Status resolve_distance(const char* op, std::string_view name, Names& names);

// Sorted positions are int32: 16 bytes of state a row already make 2^31 rows a matter of terabytes.
Status check_size(const char* op, int64_t rows);

Status resolve(const MineProblem& problem, Names& names);
Status resolve(const ListProblem& problem, Names& names);
Status resolve(const TripletProblem& problem, Names& names);
Status resolve(const DenseProblem& problem, Names& names);
Status resolve(const PairedProblem& problem, Names& names);
Status resolve(const PairwiseProblem& problem, Names& names);

}  // namespace flashmetric
