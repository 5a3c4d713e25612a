// SPDX-License-Identifier: BSD-3-Clause
// Scalar functions that the policies are written in, for host and device.
#pragma once

#include <cmath>

#include "policy.h"

namespace flashmetric {

FM_HD double square_root(double x) {
#if defined(__CUDA_ARCH__)
  return ::sqrt(x);
#else
  return __builtin_sqrt(x);
#endif
}

// The first of 0 .. n - 1 that fulfils a condition that all after it fulfil too; else n.
template <class Index, class Condition>
FM_HD Index first_where(Index n, const Condition& condition) {
  Index low = 0;
  while (low < n) {
    const Index middle = low + (n - low) / 2;
    if (condition(middle)) {
      n = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// A whole p that is computed by products, or 0.
FM_HD int whole_power(double p) {
  constexpr int most = 64;
  const int whole = p <= most ? static_cast<int>(p) : 0;
  return static_cast<double>(whole) == p ? whole : 0;
}

// max(x, 0) that lets NaN through, as torch.relu does.
FM_HD double relu(double x) { return x <= 0 ? 0.0 : x; }

// log(1 + e^x) without overflow: max(x, 0) + log1p(e^-|x|).
FM_HD double softplus(double x) { return relu(x) + ::log1p(::exp(x > 0 ? -x : x)); }

// d softplus / dx, each branch free of overflow.
FM_HD double sigmoid(double x) {
  const double decay = ::exp(x > 0 ? -x : x);
  return (x > 0 ? 1.0 : decay) / (1.0 + decay);
}

}  // namespace flashmetric
