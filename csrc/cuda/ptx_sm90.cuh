// SPDX-License-Identifier: BSD-3-Clause
// PTX of compute capability 9.0a: barriers in shared memory, bulk copies, and the matrix products
// of a warpgroup. Nothing here knows tiles. tests/emulated_gpu/ptx_sm90.cuh has the same functions
// for the host.
#pragma once

#include "inline.cuh"

namespace flashmetric::cuda {

// Barriers and tiles are named by their addresses in shared memory.
FM_DEVICE void init_barrier(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(barrier), "r"(arrivals));
}

// Makes barriers visible to the copy engine.
FM_DEVICE void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
}

// Once for the warp, by a lane that the hardware elects.
FM_DEVICE void arrive(uint32_t barrier) {
  asm volatile(
      "{\n"
      ".reg .pred leads;\n"
      "elect.sync _|leads, 0xFFFFFFFF;\n"
      "@leads mbarrier.arrive.shared::cta.b64 _, [%0];\n"
      "}\n" ::"r"(barrier)
      : "memory");
}

FM_DEVICE void expect_bytes(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(barrier), "r"(bytes)
               : "memory");
}

// Until the phase of that parity is over.
FM_DEVICE void wait(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra finished;\n"
      "bra again;\n"
      "finished:\n"
      "}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// A barrier of some threads of the block, by number; 0 is that of __syncthreads.
FM_DEVICE void sync_some(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;\n" ::"r"(barrier), "r"(threads) : "memory");
}

FM_DEVICE void copy_bytes(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];\n" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}

FM_DEVICE void begin_products() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
FM_DEVICE void commit_products() {
  asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}
template <int left>
FM_DEVICE void wait_for_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(left) : "memory");
}

// The products run behind the compiler's back: nothing may read their sums before this.
FM_DEVICE void settle(float (&sum)[64]) {
#pragma unroll
  for (int i = 0; i < 64; ++i) asm volatile("" : "+f"(sum[i])::"memory");
}

// How many registers each thread of a warpgroup keeps, or gets.
template <int registers>
FM_DEVICE void keep_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(registers));
}
template <int registers>
FM_DEVICE void get_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(registers));
}

// The 64 registers of the sums, as an instruction names them, and as its operands.
#define FM_SUM_NAMES                         \
  "%0, %1, %2, %3, %4, %5, %6, %7, "         \
  "%8, %9, %10, %11, %12, %13, %14, %15, "   \
  "%16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, " \
  "%40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, " \
  "%56, %57, %58, %59, %60, %61, %62, %63}, "
#define FM_SUMS(how)                                                                         \
  how(sum[0]), how(sum[1]), how(sum[2]), how(sum[3]), how(sum[4]), how(sum[5]), how(sum[6]), \
      how(sum[7]), how(sum[8]), how(sum[9]), how(sum[10]), how(sum[11]), how(sum[12]),       \
      how(sum[13]), how(sum[14]), how(sum[15]), how(sum[16]), how(sum[17]), how(sum[18]),    \
      how(sum[19]), how(sum[20]), how(sum[21]), how(sum[22]), how(sum[23]), how(sum[24]),    \
      how(sum[25]), how(sum[26]), how(sum[27]), how(sum[28]), how(sum[29]), how(sum[30]),    \
      how(sum[31]), how(sum[32]), how(sum[33]), how(sum[34]), how(sum[35]), how(sum[36]),    \
      how(sum[37]), how(sum[38]), how(sum[39]), how(sum[40]), how(sum[41]), how(sum[42]),    \
      how(sum[43]), how(sum[44]), how(sum[45]), how(sum[46]), how(sum[47]), how(sum[48]),    \
      how(sum[49]), how(sum[50]), how(sum[51]), how(sum[52]), how(sum[53]), how(sum[54]),    \
      how(sum[55]), how(sum[56]), how(sum[57]), how(sum[58]), how(sum[59]), how(sum[60]),    \
      how(sum[61]), how(sum[62]), how(sum[63])

// sum (64 x 128) = 64 x 16 by 16 x 128; of the former, a lane's first two registers are `a`, the
// others zeros.
FM_DEVICE void multiply(float (&sum)[64], uint32_t a, uint64_t b) {
  asm volatile(
      "{\n"
      ".reg .pred keep;\n"
      "setp.ne.b32 keep, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" FM_SUM_NAMES
      "{%64, %64, %65, %65}, %66, keep, 1, 1, 0;\n"
      "}\n"
      : FM_SUMS("=f")
      : "r"(a), "r"(0), "l"(b));
}

// sum (64 x 128) += 64 x 16 by 16 x 128.
FM_DEVICE void multiply_add(float (&sum)[64], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n"
      ".reg .pred keep;\n"
      "setp.eq.b32 keep, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" FM_SUM_NAMES
      "%64, %65, keep, 1, 1, 0, 0;\n"
      "}\n"
      : FM_SUMS("+f")
      : "l"(a), "l"(b));
}

#undef FM_SUM_NAMES
#undef FM_SUMS

}  // namespace flashmetric::cuda
