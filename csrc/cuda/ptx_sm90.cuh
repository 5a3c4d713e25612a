// SPDX-License-Identifier: BSD-3-Clause
// PTX of compute capability 9.0a: barriers in shared memory, bulk copies, and the matrix products
// of a warpgroup. Nothing here knows tiles.
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

// A tile of rows of 128 bytes, 16-byte pieces swizzled, features contiguous: groups of eight rows
// are 1024 bytes apart. Fields count 16 bytes. The lower half says where the tile is, in 14 bits,
// and that there is no second step along the features; what is added to it moves the tile, which
// never leaves the 256 KiB that 14 bits reach. In the upper half, 1 at bit 62 names the swizzle.
FM_DEVICE uint32_t tile_place(uint32_t tile) { return (tile & 0x3FFFFU) >> 4 | uint32_t{1} << 16; }
FM_DEVICE uint64_t tile_descriptor(uint32_t place) {
  constexpr uint64_t row_groups = uint64_t{1024 / 16} << 32;
  constexpr uint64_t swizzle = uint64_t{1} << 62;
  return row_groups | swizzle | place;
}

// Rows of 16 bytes without a swizzle: eight features, groups of eight rows 128 bytes apart. The
// eight features after them are the same ones again.
FM_DEVICE uint64_t narrow_descriptor(uint32_t rows) {
  return uint64_t{128 / 16} << 32 | (rows & 0x3FFFFU) >> 4;
}

FM_DEVICE void begin_products() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
FM_DEVICE void commit_products() {
  asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}
template <int left>
FM_DEVICE void wait_for_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(left) : "memory");
}

// sum (64 x 128) = 64 x 16 by 16 x 128; of the former, a lane's first two registers are `a`, the
// others zeros.
FM_DEVICE void multiply(float (&sum)[64], uint32_t a, uint64_t b) {
  asm volatile(
      "{\n"
      ".reg .pred keep;\n"
      "setp.ne.b32 keep, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, "
      "%8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, "
      "%24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, "
      "%40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, "
      "%56, %57, %58, %59, %60, %61, %62, %63}, "
      "{%64, %64, %65, %65}, %66, keep, 1, 1, 0;\n"
      "}\n"
      : "=f"(sum[0]), "=f"(sum[1]), "=f"(sum[2]), "=f"(sum[3]), "=f"(sum[4]), "=f"(sum[5]),
        "=f"(sum[6]), "=f"(sum[7]), "=f"(sum[8]), "=f"(sum[9]), "=f"(sum[10]), "=f"(sum[11]),
        "=f"(sum[12]), "=f"(sum[13]), "=f"(sum[14]), "=f"(sum[15]), "=f"(sum[16]), "=f"(sum[17]),
        "=f"(sum[18]), "=f"(sum[19]), "=f"(sum[20]), "=f"(sum[21]), "=f"(sum[22]), "=f"(sum[23]),
        "=f"(sum[24]), "=f"(sum[25]), "=f"(sum[26]), "=f"(sum[27]), "=f"(sum[28]), "=f"(sum[29]),
        "=f"(sum[30]), "=f"(sum[31]), "=f"(sum[32]), "=f"(sum[33]), "=f"(sum[34]), "=f"(sum[35]),
        "=f"(sum[36]), "=f"(sum[37]), "=f"(sum[38]), "=f"(sum[39]), "=f"(sum[40]), "=f"(sum[41]),
        "=f"(sum[42]), "=f"(sum[43]), "=f"(sum[44]), "=f"(sum[45]), "=f"(sum[46]), "=f"(sum[47]),
        "=f"(sum[48]), "=f"(sum[49]), "=f"(sum[50]), "=f"(sum[51]), "=f"(sum[52]), "=f"(sum[53]),
        "=f"(sum[54]), "=f"(sum[55]), "=f"(sum[56]), "=f"(sum[57]), "=f"(sum[58]), "=f"(sum[59]),
        "=f"(sum[60]), "=f"(sum[61]), "=f"(sum[62]), "=f"(sum[63])
      : "r"(a), "r"(0), "l"(b));
}

// sum (64 x 128) += 64 x 16 by 16 x 128.
FM_DEVICE void multiply_add(float (&sum)[64], uint64_t a, uint64_t b) {
  asm volatile(
      "{\n"
      ".reg .pred keep;\n"
      "setp.eq.b32 keep, 0, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, "
      "%8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, "
      "%24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, "
      "%40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, "
      "%56, %57, %58, %59, %60, %61, %62, %63}, "
      "%64, %65, keep, 1, 1, 0, 0;\n"
      "}\n"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3]), "+f"(sum[4]), "+f"(sum[5]),
        "+f"(sum[6]), "+f"(sum[7]), "+f"(sum[8]), "+f"(sum[9]), "+f"(sum[10]), "+f"(sum[11]),
        "+f"(sum[12]), "+f"(sum[13]), "+f"(sum[14]), "+f"(sum[15]), "+f"(sum[16]), "+f"(sum[17]),
        "+f"(sum[18]), "+f"(sum[19]), "+f"(sum[20]), "+f"(sum[21]), "+f"(sum[22]), "+f"(sum[23]),
        "+f"(sum[24]), "+f"(sum[25]), "+f"(sum[26]), "+f"(sum[27]), "+f"(sum[28]), "+f"(sum[29]),
        "+f"(sum[30]), "+f"(sum[31]), "+f"(sum[32]), "+f"(sum[33]), "+f"(sum[34]), "+f"(sum[35]),
        "+f"(sum[36]), "+f"(sum[37]), "+f"(sum[38]), "+f"(sum[39]), "+f"(sum[40]), "+f"(sum[41]),
        "+f"(sum[42]), "+f"(sum[43]), "+f"(sum[44]), "+f"(sum[45]), "+f"(sum[46]), "+f"(sum[47]),
        "+f"(sum[48]), "+f"(sum[49]), "+f"(sum[50]), "+f"(sum[51]), "+f"(sum[52]), "+f"(sum[53]),
        "+f"(sum[54]), "+f"(sum[55]), "+f"(sum[56]), "+f"(sum[57]), "+f"(sum[58]), "+f"(sum[59]),
        "+f"(sum[60]), "+f"(sum[61]), "+f"(sum[62]), "+f"(sum[63])
      : "l"(a), "l"(b));
}

}  // namespace flashmetric::cuda
