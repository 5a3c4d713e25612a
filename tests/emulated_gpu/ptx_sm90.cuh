// SPDX-License-Identifier: BSD-3-Clause
// The functions of csrc/cuda/ptx_sm90.cuh for the host, where a launch throws if they are misused
// (barriers.h, warpgroups.h).
#pragma once

#include "inline.cuh"
#include "warpgroups.h"

namespace flashmetric::cuda {

FM_DEVICE void init_barrier(uint32_t barrier, int arrivals) {
  emulated::init_byte_barrier(barrier, arrivals);
}

FM_DEVICE void publish_barriers() {
  for (auto& [_, barrier] : emulated::engine.barriers) barrier.published = true;
}

FM_DEVICE void arrive(uint32_t barrier) {
  __syncwarp();
  if (emulated::lane() == 0) emulated::arrive_at(emulated::byte_barrier(barrier), 0);
}

FM_DEVICE void expect_bytes(uint32_t barrier, uint32_t bytes) {
  emulated::arrive_at(emulated::byte_barrier(barrier), bytes);
}

FM_DEVICE void wait(uint32_t barrier, uint32_t parity) {
  emulated::wait_for_phase(emulated::byte_barrier(barrier), parity);
}

FM_DEVICE void sync_some(int barrier, int threads) { emulated::wait_by_number(barrier, threads); }

FM_DEVICE void copy_bytes(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
  const emulated::BulkCopy copy{to, bytes, from};
  emulated::expect_no_product_reads(copy);
  emulated::begin_copy(copy, emulated::byte_barrier(barrier));
}

FM_DEVICE void begin_products() {
  __syncwarp();
  emulated::products_of[emulated::warp()].fenced = true;
}
FM_DEVICE void commit_products() { emulated::commit_group(); }
template <int left>
FM_DEVICE void wait_for_products() {
  emulated::wait_for_groups(left);
}

// Only the compiler of the GPU needs to be told.
FM_DEVICE void settle(float (&)[64]) {}
template <int registers>
FM_DEVICE void keep_registers() {}
template <int registers>
FM_DEVICE void get_registers() {}

FM_DEVICE void multiply(float (&sum)[64], uint32_t a, uint64_t b) {
  emulated::Product product{true, 0, b, {}};
  const uint64_t* const lanes = emulated::exchanged(a);
  for (int row = 0; row < emulated::kWarpRows; ++row) {
    for (int k = 0; k < 8; ++k) {
      const uint64_t both = lanes[row % 8 * 4 + k / 2] & 0xFFFFFFFF;
      const auto bits = static_cast<uint16_t>(both >> k % 2 * 16);
      product.registers[row][k] = __bfloat162float({bits});
    }
  }
  emulated::begin_product(sum, product);
}

FM_DEVICE void multiply_add(float (&sum)[64], uint64_t a, uint64_t b) {
  emulated::begin_product(sum, {false, a, b, {}});
}

}  // namespace flashmetric::cuda
