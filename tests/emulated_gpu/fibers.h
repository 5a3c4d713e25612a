// SPDX-License-Identifier: BSD-3-Clause
// The threads of a block as fibers. A fiber runs until it waits for others: at __syncthreads, or
// where the lanes of a warp exchange values.
#pragma once

#include <ucontext.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

namespace emulated {

constexpr int kLanes = 32;
constexpr int kMostWarps = 32;
constexpr size_t kStackBytes = size_t{1} << 17;

// Where a fiber, or the scheduler, goes on: that of the compiler, which saves three registers and
// leaves the others to the function; that of the C library also looks for cleanups of threads.
using Place = void* [5];

// Lives as long as the process, and runs every kernel that is launched with so many threads. Made
// by makecontext; from then on entered by a jump, which spares the system call of swapcontext.
struct Fiber {
  Place here;
  std::vector<char> stack = std::vector<char>(kStackBytes);
  bool started = false;
  bool done = true;
};

// A barrier of the lanes of a warp, or of the block.
struct Barrier {
  int arrived = 0;
  unsigned long passed = 0;
};

// The shared memory that a launch asks for. Addresses in it start at one that has no more alignment
// than a kernel may count on.
alignas(128) inline char dynamic_shared[size_t{1} << 18];
constexpr uint32_t kSharedStart = 16;

struct Block {
  std::vector<std::unique_ptr<Fiber>> fibers;
  Place scheduler;
  std::function<void()> kernel;
  int thread = 0;
  int n_threads = 0;
  int n_done = 0;
  uint32_t shared_bytes = 0;
  uint64_t events =
      0;  // what others may have waited for: a thread came to a barrier, or to its end
  const char* failure = nullptr;
  Barrier warps[kMostWarps], all;
  uint64_t slot[kMostWarps][2][kLanes];
};
inline Block block;

inline int warp() { return block.thread / kLanes; }
inline int lane() { return block.thread % kLanes; }

inline Fiber& fiber() { return *block.fibers[static_cast<size_t>(block.thread)]; }

// In a function of its own, as the compiler asks.
[[noreturn]] __attribute__((noinline)) inline void jump(Place& place) {
  __builtin_longjmp(place, 1);
}

// The launch ends, with an exception that says why.
[[noreturn]] inline void fail(const char* why) {
  block.failure = why;
  jump(block.scheduler);
}
inline void expect(bool fine, const char* otherwise) {
  if (!fine) fail(otherwise);
}

// Back to the scheduler. A function of its own: jumps lose the registers of whoever waits.
__attribute__((noinline)) inline void pause() {
  if (__builtin_setjmp(fiber().here) == 0) jump(block.scheduler);
}

inline void wait(Barrier& barrier, int count) {
  const unsigned long before = barrier.passed;
  ++block.events;
  if (++barrier.arrived == count) {
    barrier.arrived = 0;
    ++barrier.passed;
    return;
  }
  while (barrier.passed == before) pause();
}
inline void wait_for_warp() { wait(block.warps[warp()], kLanes); }

inline void run_fiber() {
  for (;;) {
    block.kernel();
    fiber().done = true;
    ++block.n_done;
    ++block.events;
    pause();
  }
}

// Lets a thread run until it waits.
__attribute__((noinline)) inline void resume(int thread) {
  block.thread = thread;
  Fiber& resumed = fiber();
  if (__builtin_setjmp(block.scheduler) != 0) return;
  if (resumed.started) jump(resumed.here);
  resumed.started = true;
  static ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = resumed.stack.data();
  context.uc_stack.ss_size = resumed.stack.size();
  context.uc_link = nullptr;
  makecontext(&context, run_fiber, 0);
  setcontext(&context);
}

// What all lanes of the warp give, by lane. A lane that runs ahead writes to the other half of the
// slots, and waits there until the last one has read this half.
template <class Value>
const uint64_t* exchanged(Value mine) {
  static_assert(sizeof(Value) <= sizeof(uint64_t));
  uint64_t* const slots = block.slot[warp()][block.warps[warp()].passed % 2];
  std::memcpy(slots + lane(), &mine, sizeof mine);
  wait_for_warp();
  return slots;
}

template <class Value>
Value exchange(Value value, int from) {
  const uint64_t* const slots = exchanged(value);
  std::memcpy(&value, slots + (from % kLanes), sizeof value);
  return value;
}

// What is at an address of shared memory.
inline char* shared(uint32_t address, uint32_t bytes) {
  const uint32_t end = kSharedStart + block.shared_bytes;
  expect(address >= kSharedStart && address <= end && bytes <= end - address,
         "an address is outside of the shared memory that the launch asked for");
  return dynamic_shared + (address - kSharedStart);
}

}  // namespace emulated
