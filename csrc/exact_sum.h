// SPDX-License-Identifier: BSD-3-Clause
// Neumaier's compensated sum: the error does not grow with the number of terms.
#pragma once

#include "policy.h"

namespace flashmetric {

struct ExactSum {
  double sum = 0;
  double lost = 0;
  FM_HD void add(double x) {
    const double total = sum + x;
    const bool x_is_smaller = (sum < 0 ? -sum : sum) >= (x < 0 ? -x : x);
    lost += x_is_smaller ? (sum - total) + x : (x - total) + sum;
    sum = total;
  }
  FM_HD void add(const ExactSum& other) {
    add(other.sum);
    lost += other.lost;
  }
  // Where the sum is not finite the correction is NaN; the sum itself says what torch would say.
  FM_HD double value() const { return lost == lost ? sum + lost : sum; }
};

}  // namespace flashmetric
