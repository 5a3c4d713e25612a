// SPDX-License-Identifier: BSD-3-Clause
// Sums of tiles live in registers: every function that touches them must be inlined.
#pragma once

#include <cstdint>

#define FM_DEVICE __device__ __forceinline__

namespace flashmetric::cuda {

FM_DEVICE uint32_t shared_address(const void* at) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(at));
}

}  // namespace flashmetric::cuda
