// SPDX-License-Identifier: BSD-3-Clause
// The functions of csrc/cuda/ptx.cuh for the host, from the PTX manual: where lanes read and what
// they hold. Copies are done at once, and sums are rounded once, to nearest.
#pragma once

#include "inline.cuh"
#include "state.cuh"

namespace flashmetric::cuda {

FM_DEVICE void copy16(void* to, const void* from) { std::memcpy(to, from, 16); }
FM_DEVICE void close_copies() {}
template <int groups>
FM_DEVICE void wait_for_copies() {}

FM_DEVICE void load_fragments(uint32_t (&to)[4], uint32_t address) {
  const int lane = emulated::lane();
  for (int matrix = 0; matrix < 4; ++matrix) {
    const uint32_t row = __shfl_sync(0, address, matrix * 8 + lane / 4);
    std::memcpy(to + matrix, emulated::shared(row + lane % 4 * 4, 4), 4);
  }
}

// Half h of a register, a bfloat16.
FM_DEVICE double half_of(uint32_t both, int h) {
  return __bfloat162float({static_cast<uint16_t>(h == 0 ? both : both >> 16)});
}

FM_DEVICE void multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  static uint32_t held[emulated::kMostWarps][emulated::kLanes][6];
  auto& of_warp = held[emulated::warp()];
  const int lane = emulated::lane();
  const uint32_t own[6] = {a[0], a[1], a[2], a[3], b0, b1};
  std::memcpy(of_warp[lane], own, sizeof own);
  __syncwarp();
  for (int c = 0; c < 4; ++c) {
    const int row = lane / 4;  // + 8 for c = 2, 3
    const int column = lane % 4 * 2 + c % 2;
    double total = sum[c];
    for (int k = 0; k < 16; ++k) {
      const int holder = k % 8 / 2;
      const uint32_t x = of_warp[row * 4 + holder][k / 8 * 2 + c / 2];
      const uint32_t r = of_warp[column * 4 + holder][4 + k / 8];
      total += half_of(x, k % 2) * half_of(r, k % 2);
    }
    const int way = (row + column) % 3 - 1;
    sum[c] = static_cast<float>(total * (1 + way * emulated::product_error));
  }
  __syncwarp();
}

FM_DEVICE void keep_if(bool wanted, Candidate* kept, uint32_t& count, float lower,
                       int32_t position) {
  if (!wanted) return;
  if (count < kCandidates) kept[count] = {lower, position};
  ++count;
}

}  // namespace flashmetric::cuda
