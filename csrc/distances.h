// SPDX-License-Identifier: BSD-3-Clause
// POLICY HEADER. A distance is a few facts:
//   form        which float64 key ranks it (Form)
//   quotient    the key is divided by the (clamped) norms of both rows, and gradients go through
//               the normalised rows
//   relative    rows are compared about their means, and the key is divided by the (clamped)
//               square of the query about its mean
//   curve       from key to value, for those who compute many at a time (Curve)
//   value(key)  the distance itself
//   slope(key)  d distance / d x = slope * the direction of the form (cpu/gradient_row.h)
//   key(value)  the key of that distance; -inf for one below every distance
// p is the exponent of Minkowski. Smaller is closer, always; a similarity becomes a distance by its
// sign, here.
#pragma once

#include <string_view>

#include "math.h"
#include "policy.h"

namespace flashmetric {

// The key of two rows, and the direction of its gradient by x.
enum class Form {
  difference,  // sum (x - r)^2                  x - r
  product,     // -sum x r                       r
  absolute,    // sum |x - r|                    sign(x - r)
  power,       // sum |x - r|^p                  |x - r|^(p-1) sign(x - r)
  maximum,  // max |x - r|                    sign(x - r) where it is the maximum, in equal shares
  overlap,  // -(sum min(x, r) / sum max(x, r))
};

// value = key + a constant, its square root, or its p-th root.
enum class Curve { linear, square_root, root };

// Rows shorter than this are divided by this when they are normalised.
constexpr double kMinNorm = 1e-12;

constexpr double kBelow = -__builtin_huge_val();

struct Euclidean {
  static constexpr std::string_view name = "euclidean";
  static constexpr Form form = Form::difference;
  static constexpr Curve curve = Curve::square_root;
  static constexpr bool quotient = false;
  static constexpr bool relative = false;
  FM_HD static double value(double key, double) { return square_root(key); }
  // Subgradient 0 on equal rows. An infinite gap has no direction: key - key makes it NaN.
  FM_HD static double slope(double key, double) {
    return key == 0 ? 0.0 : 1.0 / square_root(key) + (key - key);
  }
  FM_HD static double key(double value, double) { return value < 0 ? kBelow : value * value; }
};

// What the distances whose value is their key have in common.
template <Form key_form, bool of_relative = false>
struct LinearDistance {
  static constexpr Form form = key_form;
  static constexpr Curve curve = Curve::linear;
  static constexpr bool quotient = false;
  static constexpr bool relative = of_relative;
  FM_HD static double value(double key, double) { return key; }
  FM_HD static double key(double value, double) { return value; }
};

struct SquaredEuclidean : LinearDistance<Form::difference> {
  static constexpr std::string_view name = "sqeuclidean";
  FM_HD static double slope(double, double) { return 2.0; }
};

struct Cosine {
  static constexpr std::string_view name = "cosine";
  static constexpr Form form = Form::product;
  static constexpr Curve curve = Curve::linear;
  static constexpr bool quotient = true;
  static constexpr bool relative = false;
  FM_HD static double value(double key, double) { return 1.0 + key; }
  FM_HD static double slope(double, double) { return -1.0; }
  FM_HD static double key(double value, double) { return value - 1.0; }
};

struct NegativeDot : LinearDistance<Form::product> {
  static constexpr std::string_view name = "dot";
  FM_HD static double slope(double, double) { return -1.0; }
};

struct Manhattan : LinearDistance<Form::absolute> {
  static constexpr std::string_view name = "manhattan";
  FM_HD static double slope(double, double) { return 1.0; }
};

struct Minkowski {
  static constexpr std::string_view name = "minkowski";
  static constexpr Form form = Form::power;
  static constexpr Curve curve = Curve::root;
  static constexpr bool quotient = false;
  static constexpr bool relative = false;
  FM_HD static double value(double key, double p) { return ::pow(key, 1 / p); }
  // As for Euclidean distance.
  FM_HD static double slope(double key, double p) {
    return key == 0 ? 0.0 : ::pow(key, 1 / p - 1) + (key - key);
  }
  FM_HD static double key(double value, double p) { return value < 0 ? kBelow : ::pow(value, p); }
};

struct Chebyshev : LinearDistance<Form::maximum> {
  static constexpr std::string_view name = "chebyshev";
  FM_HD static double slope(double, double) { return 1.0; }
};

// Weighted Jaccard (Ruzicka) of rows that are not negative; of 0 and 1 the Jaccard of sets.
struct Jaccard {
  static constexpr std::string_view name = "jaccard";
  static constexpr Form form = Form::overlap;
  static constexpr Curve curve = Curve::linear;
  static constexpr bool quotient = false;
  static constexpr bool relative = false;
  FM_HD static double value(double key, double) { return 1.0 + key; }
  FM_HD static double slope(double, double) { return 1.0; }
  FM_HD static double key(double value, double) { return value - 1.0; }
};

// Yuan, Deng, Tang, Tang, Chen 2019, "Signal-to-Noise Ratio: A Robust Distance Metric for Deep
// Metric Learning", section 3.1. The slope is that of the squared difference; the quotient's share
// of the query is the business of cpu/gradient_row.h.
struct NoiseToSignal : LinearDistance<Form::difference, true> {
  static constexpr std::string_view name = "snr";
  FM_HD static double slope(double, double) { return 2.0; }
};

using Distances = TypeList<Euclidean, SquaredEuclidean, Cosine, NegativeDot, Manhattan, Minkowski,
                           Chebyshev, Jaccard, NoiseToSignal>;

}  // namespace flashmetric
