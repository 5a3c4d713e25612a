// SPDX-License-Identifier: BSD-3-Clause
// POLICY HEADER. A distance of the inner-product family is four facts:
//   form       which float64 key ranks it:  difference: sum (x_k - r_k)^2,   product: -sum x_k r_k
//   quotient   the key is divided by the (clamped) norms of both rows, and gradients go through
//              the normalised rows
//   value(key) the distance itself
//   slope(key) its derivative:  d distance / d x = slope * (x - r)  or  slope * r
// Smaller is closer, always; a similarity becomes a distance by its sign, here.
#pragma once

#include <string_view>

#include "math.h"
#include "policy.h"

namespace flashmetric {

enum class Form { difference, product };

// Rows shorter than this are divided by this when they are normalised.
constexpr double kMinNorm = 1e-12;

struct Euclidean {
  static constexpr std::string_view name = "euclidean";
  static constexpr Form form = Form::difference;
  static constexpr bool quotient = false;
  FM_HD static double value(double key) { return square_root(key); }
  // Subgradient 0 on equal rows. An infinite gap has no direction: key - key makes it NaN.
  FM_HD static double slope(double key) {
    return key == 0 ? 0.0 : 1.0 / square_root(key) + (key - key);
  }
};

struct SquaredEuclidean {
  static constexpr std::string_view name = "sqeuclidean";
  static constexpr Form form = Form::difference;
  static constexpr bool quotient = false;
  FM_HD static double value(double key) { return key; }
  FM_HD static double slope(double) { return 2.0; }
};

struct Cosine {
  static constexpr std::string_view name = "cosine";
  static constexpr Form form = Form::product;
  static constexpr bool quotient = true;
  FM_HD static double value(double key) { return 1.0 + key; }
  FM_HD static double slope(double) { return -1.0; }
};

struct NegativeDot {
  static constexpr std::string_view name = "dot";
  static constexpr Form form = Form::product;
  static constexpr bool quotient = false;
  FM_HD static double value(double key) { return key; }
  FM_HD static double slope(double) { return -1.0; }
};

using Distances = TypeList<Euclidean, SquaredEuclidean, Cosine, NegativeDot>;

}  // namespace flashmetric
