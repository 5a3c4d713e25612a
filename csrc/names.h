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

}  // namespace flashmetric
