// SPDX-License-Identifier: BSD-3-Clause
// Rows in device memory, the numbers of each that its keys need, and how keys map features.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "../flashmetric.h"
#include "../key_form.h"

namespace flashmetric::cuda {

struct KeyForm : KeyFacts {
  FM_HD double value(double key) const {
    double found = 0;
    visit_by_index(Distances{}, distance,
                   [&](auto policy) { found = decltype(policy)::value(key, power); });
    return found;
  }
  FM_HD double slope(double key) const {
    double found = 0;
    visit_by_index(Distances{}, distance,
                   [&](auto policy) { found = decltype(policy)::slope(key, power); });
    return found;
  }
  // The key of a distance.
  FM_HD double key(double value) const {
    double found = 0;
    visit_by_index(Distances{}, distance,
                   [&](auto policy) { found = decltype(policy)::key(value, power); });
    return found;
  }
};

// Every dtype of rows is exact in float64.
FM_HD double widened(double x) { return x; }
FM_HD double widened(float x) { return static_cast<double>(x); }
FM_HD double widened(__half x) { return static_cast<double>(__half2float(x)); }
FM_HD double widened(__nv_bfloat16 x) { return static_cast<double>(__bfloat162float(x)); }

// x * scale - shift.
struct Mapping {
  double scale = 1;
  double shift = 0;
  FM_HD double of(double x) const { return x * scale - shift; }
};

// Written so that a NaN stays NaN.
FM_HD double clamped(double norm) { return norm < kMinNorm ? kMinNorm : norm; }

// What is measured of each row: norm; mean of the scaled features; sum of squares about the mean.
struct RowNumbers {
  double* norm = nullptr;
  double* mean = nullptr;
  double* energy = nullptr;

  FM_HD double clamped_norm(int64_t i) const { return clamped(norm[i]); }
  FM_HD bool constant(int64_t i) const { return energy[i] < kMinNorm * kMinNorm; }
  FM_HD double clamped_energy(int64_t i) const {
    return constant(i) ? kMinNorm * kMinNorm : energy[i];
  }
  FM_HD Mapping mapping(const KeyFacts& key, int64_t i) const {
    return {key.scaled ? 1.0 / clamped_norm(i) : 1.0, key.relative ? mean[i] : 0.0};
  }
};

// Eight features that lie next to each other. What does not exist is 0.
constexpr int kPiece = 8;
template <class T>
struct FeaturePiece {
  alignas(16) T of[kPiece];

  __device__ static bool is_aligned(const T* row) {
    return reinterpret_cast<uintptr_t>(row) % 16 == 0;
  }

  // Features k .. k + 7 of a row, k a multiple of 8.
  __device__ void load(const T* row, int64_t k, int64_t dim, bool aligned) {
    if (aligned && k + kPiece <= dim) {
      constexpr int each = static_cast<int>(16 / sizeof(T));
#pragma unroll
      for (int e = 0; e < kPiece; e += each) {
        const uint4 loaded = *reinterpret_cast<const uint4*>(row + k + e);
        __builtin_memcpy(of + e, &loaded, sizeof loaded);
      }
    } else {
#pragma unroll
      for (int e = 0; e < kPiece; ++e) of[e] = k + e < dim ? row[k + e] : T{};
    }
  }
};

template <class T>
struct RowView {
  const T* data = nullptr;  // [n, dim]
  int64_t n = 0;
  int64_t stride = 0;
  RowNumbers numbers;

  FM_HD const T* row(int64_t i) const { return data + i * stride; }
};

// The same where the dtype is not known to the compiler: a uniform branch for every feature.
struct AnyRows {
  const void* data = nullptr;
  int64_t n = 0;
  int64_t stride = 0;
  DType dtype = DType::float32;
  RowNumbers numbers;

  FM_HD double feature(int64_t i, int64_t k) const {
    const int64_t at = i * stride + k;
    switch (dtype) {
      case DType::float32:
        return widened(static_cast<const float*>(data)[at]);
      case DType::float64:
        return static_cast<const double*>(data)[at];
      case DType::float16:
        return widened(static_cast<const __half*>(data)[at]);
      case DType::bfloat16:
        return widened(static_cast<const __nv_bfloat16*>(data)[at]);
    }
    return 0;
  }
};

template <class T>
RowView<T> view_as(const AnyRows& rows) {
  return {static_cast<const T*>(rows.data), rows.n, rows.stride, rows.numbers};
}

// Calls launch(T{}) with the type of the rows.
template <class Launch>
void with_dtype(DType dtype, const Launch& launch) {
  switch (dtype) {
    case DType::float32:
      return launch(float{});
    case DType::float64:
      return launch(double{});
    case DType::float16:
      return launch(__half{});
    case DType::bfloat16:
      return launch(__nv_bfloat16{});
  }
}

}  // namespace flashmetric::cuda
