// SPDX-License-Identifier: BSD-3-Clause
// Keys and distances of pairs, from float64 and from h.
#pragma once

#include "dense_state.cuh"

namespace flashmetric::cuda {

// The key of packed rows: mapped_key of the two forms that they have. Never inlined: rules ask for
// keys and distances in several places each.
template <class T>
__device__ __noinline__ double exact_key(const DenseState& state, const RowView<T>& x, int64_t i,
                                         const RowView<T>& r, int64_t j) {
  const auto pair = pair_rows(state.key, x, i, r, j, state.dim);
  const double sum = state.key.form == Form::product ? -pair.template key<Form::product>(2)
                                                     : pair.template key<Form::difference>(2);
  return finished_key(state.key, sum, x.numbers, i, r.numbers, j);
}
template <class T>
__device__ __noinline__ double exact_value(const DenseState& state, const RowView<T>& x, int64_t i,
                                           const RowView<T>& r, int64_t j) {
  return pair_value(state.key, x, i, r, j, state.dim);
}
static __device__ __noinline__ double distance_of(const KeyForm& form, double key) {
  return form.value(key);
}
static __device__ __noinline__ double slope_of(const KeyForm& form, double key) {
  return form.slope(key);
}

static __device__ __noinline__ double key_of(const KeyForm& form, double distance) {
  return form.key(distance);
}

// From h of packed rows to distances, and back.
struct HalfScale {
  bool root;              // a distance is a square root
  double unit;            // keys per h: a power of two
  float root_unit;        // distance per root of 2 h
  float rest;             // unit = root_unit * rest, of which a float may not hold the product
  float constant, slope;  // of a distance that is no root: where h is 0; and its slope

  __device__ HalfScale(const DenseState& state, double frame_unit)
      : root(state.curve == Curve::square_root),
        unit((state.key.form == Form::difference ? 2 : 1) / frame_unit / frame_unit),
        root_unit(static_cast<float>(1 / frame_unit)),
        rest(static_cast<float>(unit * frame_unit)),
        constant(root ? 0 : static_cast<float>(distance_of(state.key, 0))),
        slope(root ? 0 : static_cast<float>(slope_of(state.key, 1))) {}

  __device__ double half(double key) const { return key * (1 / unit); }
  // What a row of floats keeps of a key that was measured. Of one that a float is too coarse for,
  // NaN, which leaves every decision to the key: as little is known of an infinite h.
  __device__ float measured(double key) const {
    const double h = half(key);
    const bool vanishes = key != 0 && ::fabs(h) < Precision<float>::smallest;
    return vanishes ? __int_as_float(0x7FC00000) : static_cast<float>(h);
  }
  __device__ float distance(float h, bool product) const {
    if (!product) h = h > 0 ? h : h != h ? h : 0;
    return root ? ::sqrtf(2 * h) * root_unit : h * root_unit * rest + constant;
  }
  // As distances.h has it, of a distance from above.
  __device__ float slope_at(float d) const {
    if (!root) return slope;
    return d == 0 ? 0 : 1 / d + (d - d);
  }
  // How far a distance from above can be off if its h is by `error`, at most: the root of 2 h by
  // 2 error / root(2 h), or by root(6 error) where h is below 2 error; thrice the former is above
  // both. And by the roundings of the distance, which may be subnormal.
  __device__ float uncertainty(float d, float error) const {
    constexpr auto u = static_cast<float>(4 * Precision<float>::roundoff);
    const float rounded = ::fabsf(d) * u + static_cast<float>(Precision<float>::smallest);
    if (!root) return rounded + (error * root_unit * rest + ::fabsf(constant) * u);
    const float least = root_unit * ::sqrtf(4 * error);
    return root_unit / (d > least ? d : least) * (6 * error * root_unit) + rounded;
  }
};

}  // namespace flashmetric::cuda
