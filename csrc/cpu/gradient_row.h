// SPDX-License-Identifier: BSD-3-Clause
// Accumulates the gradient of one row: the sum over its pairs of
//   c (z - o)   (difference forms)    or    c o   (product forms),
// z and o being the row and the other row of the pair, scaled if they are normalised.
//
// Numerics: float64 sums in the order the pairs are added, rounded once at the end. Where rows are
// normalised, z = x / |x|, the gradient goes through the scaling:
//   d/dx = (g - <g, z> z) / |x|,    0 for rows shorter than kMinNorm.
#pragma once

#include "keys.h"
#include "simd.h"

namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE {

template <class T>
struct GradientPair {
  const T* other;
  double scale;        // of the other row
  double coefficient;  // d loss / d distance * slope of the distance
};

// 32: the pairs of one row mostly fit, and the list stays in registers' reach (768 bytes of L1).
constexpr int kPairBatch = 32;

template <class T>
class GradientRow {
 public:
  FM_INLINE GradientRow(KeyForm key, int64_t dim, double* buffer)
      : key_(key), dim_(dim), buffer_(buffer) {}

  FM_INLINE void start(const RowView<T>& rows, int64_t i) {
    row_ = rows.row(i);
    norm_ = key_.needs_norms() ? rows.norm[i] : 1.0;
    scale_ = key_.needs_norms() ? 1.0 / rows.clamped_norm(i) : 1.0;
    for (int64_t k = 0; k < dim_; ++k) buffer_[k] = 0;
    pending_ = 0;
    untouched_ = true;
  }

  FM_INLINE void add(const RowView<T>& rows, int64_t j, double coefficient) {
    if (coefficient == 0) return;
    untouched_ = false;
    const double scale = key_.needs_norms() ? 1.0 / rows.clamped_norm(j) : 1.0;
    batch_[pending_++] = {rows.row(j), scale, coefficient};
    if (pending_ == kPairBatch) flush();
  }

  // out = gradient, or out += gradient.
  inline void finish(T* out, bool add_to_out) {
    flush();
    double along = 0;
    const bool projected = key_.needs_norms() && !untouched_;  // a NaN row nobody chose stays 0
    if (projected) {
      for (int64_t k = 0; k < dim_; ++k) along += buffer_[k] * (row_[k] * scale_);
    }
    for (int64_t k = 0; k < dim_; ++k) {
      double g = buffer_[k];
      if (projected) {
        g = norm_ < kMinNorm ? 0.0 : (g - along * (row_[k] * scale_)) * scale_;
      }
      out[k] = static_cast<T>(add_to_out ? static_cast<double>(out[k]) + g : g);
    }
  }

 private:
  FM_INLINE void flush() {
    if (key_.form == Form::difference) {
      flush_as<Form::difference>();
    } else {
      flush_as<Form::product>();
    }
    pending_ = 0;
  }

  // 32 features = 4 Double8 sums live in registers while the pairs pass by.
  template <Form form>
  FM_INLINE void flush_as() {
    constexpr int unroll = 4;
    int64_t k = 0;
    for (; k + 8 * unroll <= dim_; k += 8 * unroll) {
      Double8 sum[unroll];
#pragma GCC unroll 4
      for (int u = 0; u < unroll; ++u) sum[u] = load8(buffer_ + k + 8 * u);
      for (int p = 0; p < pending_; ++p) {
#pragma GCC unroll 4
        for (int u = 0; u < unroll; ++u) {
          sum[u] = step<form>(sum[u], load8(row_ + k + 8 * u), load8(batch_[p].other + k + 8 * u),
                              batch_[p]);
        }
      }
#pragma GCC unroll 4
      for (int u = 0; u < unroll; ++u) std::memcpy(buffer_ + k + 8 * u, &sum[u], sizeof sum[u]);
    }
    for (; k < dim_; k += 8) {
      const int64_t count = dim_ - k < 8 ? dim_ - k : 8;
      Double8 sum = load8_partial(buffer_ + k, count);
      for (int p = 0; p < pending_; ++p) {
        sum = step<form>(sum, load8_partial(row_ + k, count),
                         load8_partial(batch_[p].other + k, count), batch_[p]);
      }
      std::memcpy(buffer_ + k, &sum, static_cast<size_t>(count) * sizeof(double));
    }
  }

  template <Form form>
  FM_INLINE Double8 step(Double8 sum, Double8 x, Double8 other, const GradientPair<T>& pair) const {
    if constexpr (form == Form::difference) {
      return sum + (x * scale_ - other * pair.scale) * pair.coefficient;
    } else {
      return sum + other * (pair.scale * pair.coefficient);
    }
  }

  KeyForm key_;
  int64_t dim_;
  double* buffer_;  // [dim]
  const T* row_ = nullptr;
  double norm_ = 1;
  double scale_ = 1;
  int pending_ = 0;
  bool untouched_ = true;
  GradientPair<T> batch_[kPairBatch];
};

}  // namespace flashmetric::cpu::FLASHMETRIC_ISA_NAMESPACE
