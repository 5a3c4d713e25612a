// SPDX-License-Identifier: BSD-3-Clause
// Instructions of compute capability 8.0, one function each. tests/emulated_gpu/ptx.cuh has the
// same functions for the host.
#pragma once

#include "inline.cuh"
#include "state.cuh"

namespace flashmetric::cuda {

// Copies 16 bytes to shared memory, some time before the group is waited for.
FM_DEVICE void copy16(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(shared_address(to)), "l"(from));
}

// What was copied since the last call is a group.
FM_DEVICE void close_copies() { asm volatile("cp.async.commit_group;\n" ::); }
// Until at most so many groups are under way.
template <int groups>
FM_DEVICE void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(groups));
}

// Four matrices of 8 x 8 bfloat16; lane l gives the address of row l mod 8 of matrix l / 8.
FM_DEVICE void load_fragments(uint32_t (&to)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address));
}

// A 16 x 8 piece of sums.
FM_DEVICE void multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Adds a candidate to the list at `kept`, where it is wanted and there is room, without a branch;
// `count` counts those without room as well.
FM_DEVICE void keep_if(bool wanted, Candidate* kept, uint32_t& count, float lower,
                       int32_t position) {
  asm volatile(
      "{\n"
      ".reg .pred wanted, room;\n"
      ".reg .b64 to;\n"
      "setp.ne.s32 wanted, %1, 0;\n"
      "setp.lt.and.u32 room, %0, %5, wanted;\n"
      "mad.wide.u32 to, %0, 8, %2;\n"
      "@room st.global.v2.b32 [to], {%3, %4};\n"
      "@wanted add.u32 %0, %0, 1;\n"
      "}\n"
      : "+r"(count)
      : "r"(static_cast<int>(wanted)), "l"(kept), "r"(__float_as_int(lower)), "r"(position),
        "n"(kCandidates)
      : "memory");
}

}  // namespace flashmetric::cuda
