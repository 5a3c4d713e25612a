// SPDX-License-Identifier: BSD-3-Clause
// The runtime of the emulated GPU: one device of capability 8.0, whose memory is the host's.
// EMULATED_CAPABILITY (90 is 9.0), EMULATED_SHARED_BYTES, EMULATED_CACHE_BYTES and
// EMULATED_MULTIPROCESSORS make it another one. The usual cache is small: few rows are several
// chunks.
#pragma once

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "emulator.h"

using cudaError_t = int;
using cudaStream_t = void*;
enum : int { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
enum cudaDeviceAttr {
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrComputeCapabilityMinor,
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
  cudaDevAttrL2CacheSize,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };

inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "none" : "invalid argument";
}
inline int emulated_number(const char* name, int usual) {
  const char* const asked = std::getenv(name);
  return asked == nullptr ? usual : std::atoi(asked);
}
inline int emulated_capability() { return emulated_number("EMULATED_CAPABILITY", 80); }
inline int emulated_shared_bytes() {
  const int usual = emulated_capability() >= 90 ? 227 * 1024 : 163 * 1024;
  return emulated_number("EMULATED_SHARED_BYTES", usual);
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
      *value = emulated_capability() / 10;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = emulated_capability() % 10;
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = emulated_number("EMULATED_MULTIPROCESSORS", 2);
      break;
    case cudaDevAttrL2CacheSize:
      *value = emulated_number("EMULATED_CACHE_BYTES", 64 * 1024);
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = emulated_shared_bytes();
      break;
  }
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* at, int value, size_t bytes, cudaStream_t) {
  std::memset(at, value, bytes);
  return cudaSuccess;
}
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, cudaFuncAttribute, int bytes) {
  return bytes <= emulated_shared_bytes() ? cudaSuccess : cudaErrorInvalidValue;
}
