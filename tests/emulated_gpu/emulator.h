// SPDX-License-Identifier: BSD-3-Clause
// Runs CUDA kernels on the host: a block at a time, each of its threads a fiber (fibers.h), beside
// them what copies and multiplies on its own (barriers.h, warpgroups.h).
//
// What it shows: that a kernel computes what it should, that all lanes come to each exchange, that
// no row is read that does not exist, and what else the instructions ask for (else the launch
// throws). What it cannot show: races between blocks, and between threads of a block that load and
// store without a barrier.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>

#include "warpgroups.h"

#define __device__
#define __host__
#define __global__
#define __shared__ static  // one block at a time
#define __launch_bounds__(...)
#define __grid_constant__
#define __forceinline__ inline
#define __noinline__

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned of_x = 1, unsigned of_y = 1, unsigned of_z = 1) : x(of_x), y(of_y), z(of_z) {}
};

struct float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};

namespace emulated {

struct ThreadIndex {
  struct X {
    operator unsigned() const { return static_cast<unsigned>(block.thread); }
  } x;
};

}  // namespace emulated

inline emulated::ThreadIndex threadIdx;
inline dim3 blockIdx, blockDim, gridDim;

namespace emulated {

// Leaves the fibers of a launch where they are: the next one has new ones.
[[noreturn]] inline void abandon(const char* why) {
  for (const std::unique_ptr<Fiber>& each : block.fibers) each->started = false;
  block.failure = nullptr;
  throw std::runtime_error(std::string("[emulated] ") + why);
}

inline void start_block() {
  block.n_done = 0;
  block.all = {};
  for (Barrier& barrier : block.warps) barrier = {};
  for (int t = 0; t < block.n_threads; ++t) block.fibers[static_cast<size_t>(t)]->done = false;
  start_engine();
  start_products();
  // Not a number: nobody may count on what it holds.
  std::memset(dynamic_shared, 0xFF, block.shared_bytes);
}

inline void run_block() {
  start_block();
  while (block.n_done < block.n_threads) {
    const uint64_t before = block.events;
    for (int t = 0; t < block.n_threads; ++t) {
      if (!block.fibers[static_cast<size_t>(t)]->done) resume(t);
      if (block.failure != nullptr) abandon(block.failure);
    }
    if (block.events == before) abandon("threads wait for what does not come");
  }
  if (copies_are_under_way()) abandon("a block ends before a bulk copy has arrived");
  if (products_are_under_way()) abandon("a block ends before its products do");
}

inline void expect_row(int64_t i, int64_t n) {
  expect(i >= 0 && i < n, "a row is read that does not exist");
}

// What `kernel<<<grid, threads, shared_bytes>>>(arguments)` becomes.
template <class Kernel>
void launch(dim3 grid, int threads, size_t shared_bytes, const Kernel& kernel) {
  block.kernel = kernel;
  block.n_threads = threads;
  block.shared_bytes = static_cast<uint32_t>(shared_bytes);
  while (block.fibers.size() < static_cast<size_t>(threads)) {
    block.fibers.push_back(std::make_unique<Fiber>());
  }
  gridDim = grid;
  blockDim = dim3(static_cast<unsigned>(threads));
  // Blocks come in any order: also in the other one, if asked to.
  const bool backwards = std::getenv("EMULATED_BACKWARDS") != nullptr;
  const unsigned all = grid.x * grid.y;
  for (unsigned b = 0; b < all; ++b) {
    const unsigned at = backwards ? all - 1 - b : b;
    blockIdx.x = at % grid.x;
    blockIdx.y = at / grid.x;
    run_block();
  }
}

}  // namespace emulated

// The functions of the toolkit that the kernels call. All lanes take part in each exchange.
template <class Value>
Value __shfl_sync(unsigned, Value value, int from) {
  return emulated::exchange(value, from);
}
template <class Value>
Value __shfl_xor_sync(unsigned, Value value, int mask) {
  return emulated::exchange(value, emulated::lane() ^ mask);
}
template <class Value>
Value __shfl_up_sync(unsigned, Value value, int by) {
  const int from = emulated::lane() - by;
  return emulated::exchange(value, from < 0 ? emulated::lane() : from);
}
inline unsigned __ballot_sync(unsigned, bool mine) {
  const uint64_t* const slots = emulated::exchanged(uint64_t{mine});
  unsigned all = 0;
  for (int from = 0; from < emulated::kLanes; ++from) {
    all |= static_cast<unsigned>(slots[from]) << from;
  }
  return all;
}
template <class Value>
unsigned __match_any_sync(unsigned, Value mine) {
  const uint64_t* const slots = emulated::exchanged(mine);
  unsigned same = 0;
  for (int from = 0; from < emulated::kLanes; ++from) {
    same |= (std::memcmp(slots + from, &mine, sizeof mine) == 0 ? 1U : 0U) << from;
  }
  return same;
}
inline bool __any_sync(unsigned mask, bool mine) { return __ballot_sync(mask, mine) != 0; }
inline bool __all_sync(unsigned mask, bool mine) { return !__any_sync(mask, !mine); }
inline void __syncwarp() { emulated::wait_for_warp(); }
inline void __syncthreads() { emulated::wait(emulated::block.all, emulated::block.n_threads); }
inline int __syncthreads_count(bool mine) {
  static int count;
  __syncthreads();
  if (emulated::block.thread == 0) count = 0;
  __syncthreads();
  count += mine;
  __syncthreads();
  return count;
}
inline int __syncthreads_or(int mine) { return __syncthreads_count(mine != 0) != 0; }
inline void __threadfence() {}
inline void __nanosleep(unsigned) {}
template <class Value>
Value __ldcg(const Value* at) {
  return *at;
}

template <class Value>
Value atomicAdd(Value* at, std::type_identity_t<Value> value) {
  const Value before = *at;
  *at = before + value;
  return before;
}
template <class Value>
Value atomicMax(Value* at, std::type_identity_t<Value> value) {
  const Value before = *at;
  *at = before > value ? before : value;
  return before;
}
template <class Value>
Value atomicMin(Value* at, std::type_identity_t<Value> value) {
  const Value before = *at;
  *at = value < before ? value : before;
  return before;
}
template <class Value>
Value atomicOr(Value* at, std::type_identity_t<Value> value) {
  const Value before = *at;
  *at = before | value;
  return before;
}
template <class Value>
Value atomicExch(Value* at, std::type_identity_t<Value> value) {
  const Value before = *at;
  *at = value;
  return before;
}
template <class Value>
Value atomicCAS(Value* at, std::type_identity_t<Value> expected,
                std::type_identity_t<Value> value) {
  const Value before = *at;
  if (before == expected) *at = value;
  return before;
}

template <class To, class From>
To emulated_bits(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline long long __double_as_longlong(double x) { return emulated_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return emulated_bits<double>(x); }
inline int __float_as_int(float x) { return emulated_bits<int>(x); }
inline unsigned __float_as_uint(float x) { return emulated_bits<unsigned>(x); }
inline float __int_as_float(int x) { return emulated_bits<float>(x); }
inline float __uint_as_float(unsigned x) { return emulated_bits<float>(x); }
template <class Value>
Value min(Value a, Value b) {
  return b < a ? b : a;
}
template <class Value>
Value max(Value a, Value b) {
  return a < b ? b : a;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline uint64_t __cvta_generic_to_shared(const void* at) {
  const auto offset = static_cast<const char*>(at) - emulated::dynamic_shared;
  return static_cast<uint64_t>(offset) + emulated::kSharedStart;
}
