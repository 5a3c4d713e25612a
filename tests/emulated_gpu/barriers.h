// SPDX-License-Identifier: BSD-3-Clause
// What works beside the threads of a block, from the PTX manual: barriers that also count bytes
// (mbarrier), and the bulk copies that bring these (cp.async.bulk).
//
// A copy arrives as late as it may: when a thread waits for the bytes. Until then its place holds
// no numbers, so whoever reads without waiting, or waits elsewhere, has wrong ones.
#pragma once

#include <map>
#include <utility>

#include "fibers.h"

namespace emulated {

struct BulkCopy {
  uint32_t to, bytes;
  const void* from;
};

struct ByteBarrier {
  int expected;    // arrivals of a phase
  int missing;     // of this phase
  int64_t bytes;   // that are expected, without those that have come
  bool published;  // to the copy engine
  uint32_t phase;  // phases that are over
  std::vector<BulkCopy> under_way;
};

constexpr uint32_t kPiece = 16;              // bytes, the grain of copies and of tiles
constexpr int kMostPending = (1 << 20) - 1;  // arrivals, and bytes, that a barrier can count

struct CopyEngine {
  std::map<uint32_t, ByteBarrier> barriers;  // by their addresses
  // Pieces of shared memory that a copy has filled since the last one began to fill them.
  bool filled[(kSharedStart + sizeof dynamic_shared) / kPiece];
};
inline CopyEngine engine;

// Barriers by number, of some threads of the block (bar.sync).
struct NumberedBarrier {
  Barrier barrier;
  int threads;
};
inline NumberedBarrier numbered[16];

inline void start_engine() {
  engine.barriers.clear();
  std::memset(engine.filled, 0, sizeof engine.filled);
  for (NumberedBarrier& each : numbered) each = {};
}

inline void wait_by_number(int number, int threads) {
  expect(number > 0 && number < 16, "there is no barrier of this number, or __syncthreads has it");
  expect(threads > 0 && threads % kLanes == 0, "a barrier waits for a part of a warp");
  NumberedBarrier& barrier = numbered[number];
  if (barrier.barrier.arrived == 0) barrier.threads = threads;
  expect(barrier.threads == threads, "threads wait at a barrier for different numbers of threads");
  wait(barrier.barrier, threads);
}

inline ByteBarrier& byte_barrier(uint32_t address) {
  const auto found = engine.barriers.find(address);
  expect(found != engine.barriers.end(), "there is no barrier at this address");
  return found->second;
}

inline void init_byte_barrier(uint32_t address, int arrivals) {
  expect(address % 8 == 0, "the address of a barrier is not a multiple of 8");
  expect(arrivals > 0 && arrivals <= kMostPending, "a barrier cannot count so many arrivals");
  shared(address, 8);
  const bool fresh =
      engine.barriers.insert({address, {arrivals, arrivals, 0, false, 0, {}}}).second;
  expect(fresh, "a barrier is initialized twice");
}

// The phase is over when everyone and everything has come.
inline void end_phase_if_complete(ByteBarrier& barrier) {
  ++block.events;
  if (barrier.missing > 0 || barrier.bytes != 0) return;
  barrier.missing = barrier.expected;
  ++barrier.phase;
}

inline void arrive_at(ByteBarrier& barrier, uint32_t with_bytes) {
  expect(barrier.missing > 0, "more arrive at a barrier than it counts");
  barrier.bytes += with_bytes;
  expect(barrier.bytes <= kMostPending, "a barrier cannot count so many bytes");
  --barrier.missing;
  end_phase_if_complete(barrier);
}

inline void deliver(ByteBarrier& barrier) {
  const std::vector<BulkCopy> copies = std::move(barrier.under_way);
  barrier.under_way.clear();
  for (const BulkCopy& copy : copies) {
    std::memcpy(shared(copy.to, copy.bytes), copy.from, copy.bytes);
    std::memset(engine.filled + copy.to / kPiece, 1, copy.bytes / kPiece);
    barrier.bytes -= copy.bytes;
  }
  end_phase_if_complete(barrier);
}

inline void wait_for_phase(ByteBarrier& barrier, uint32_t parity) {
  expect(parity <= 1, "a parity is 0 or 1");
  while (barrier.phase % 2 == parity) {
    if (barrier.under_way.empty()) {
      pause();
    } else {
      deliver(barrier);
    }
  }
}

inline void begin_copy(const BulkCopy& copy, ByteBarrier& barrier) {
  const auto source = reinterpret_cast<uintptr_t>(copy.from);
  expect(copy.to % kPiece == 0 && source % kPiece == 0, "a bulk copy is not aligned to 16 bytes");
  expect(copy.bytes > 0 && copy.bytes % kPiece == 0, "a bulk copy is not of pieces of 16 bytes");
  expect(barrier.published, "a bulk copy arrives at a barrier that was not made visible to it");
  char* const place = shared(copy.to, copy.bytes);
  const auto after = engine.barriers.lower_bound(copy.to);
  expect(after == engine.barriers.end() || after->first >= copy.to + copy.bytes,
         "a bulk copy overwrites a barrier");
  std::memset(place, 0xFF, copy.bytes);
  std::memset(engine.filled + copy.to / kPiece, 0, copy.bytes / kPiece);
  barrier.under_way.push_back(copy);
}

// What a piece of a tile holds.
inline const char* filled_piece(uint32_t address) {
  const char* const piece = shared(address, kPiece);
  expect(engine.filled[address / kPiece], "a product reads what no copy has brought yet");
  return piece;
}

inline bool copies_are_under_way() {
  for (const auto& [_, barrier] : engine.barriers) {
    if (!barrier.under_way.empty()) return true;
  }
  return false;
}

}  // namespace emulated
