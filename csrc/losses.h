// SPDX-License-Identifier: BSD-3-Clause
// POLICY HEADER. A triplet loss is a function of one violation = d_ap - d_an + margin.
#pragma once

#include <string_view>

#include "math.h"
#include "policy.h"

namespace flashmetric {

struct Hinge {
  static constexpr std::string_view name = "hinge";
  FM_HD static double value(double violation) { return relu(violation); }
  // 0 at exactly 0, as torch.relu; NaN is not <= 0, so its gradient is not silenced.
  FM_HD static double slope(double violation) { return violation <= 0 ? 0.0 : 1.0; }
};

struct SoftMargin {
  static constexpr std::string_view name = "soft_margin";
  FM_HD static double value(double violation) { return softplus(violation); }
  FM_HD static double slope(double violation) { return sigmoid(violation); }
};

using TripletLosses = TypeList<Hinge, SoftMargin>;

}  // namespace flashmetric
