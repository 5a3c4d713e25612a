// SPDX-License-Identifier: BSD-3-Clause
// POLICY HEADER. A per-anchor miner says which positive and which negative every anchor wants.
// How a choice is ranked, certified and stored is the business of cpu/choice.h.
#pragma once

#include <string_view>

#include "policy.h"

namespace flashmetric {

enum class Seek { nearest, farthest };

// Hermans, Beyer, Leibe 2017, "In Defense of the Triplet Loss", section 2 (batch hard).
struct BatchHard {
  static constexpr std::string_view name = "hard";
  static constexpr Seek positive = Seek::farthest;
  static constexpr Seek negative = Seek::nearest;
};

using Miners = TypeList<BatchHard>;

}  // namespace flashmetric
