// SPDX-License-Identifier: BSD-3-Clause
// Products of warpgroups (wgmma.mma_async.m64n128k16 of bfloat16, sums in float32), from the PTX
// manual: how descriptors name tiles, what lanes hold, and who waits for what.
//
// A product is made as late as it may be: when its warp waits for the group it belongs to. Until
// then the registers of the sums hold no numbers, which whoever reads them early then has, and no
// copy may write to its tiles. Each sum is rounded once, to nearest.
#pragma once

#include <cuda_bf16.h>

#include <deque>
#include <utility>

#include "barriers.h"

namespace emulated {

// By which share of themselves sums of matrix instructions are off, one way or the other: tests see
// that it is noticed.
inline double product_error = 0;

constexpr int kGroupLanes = 128;
constexpr int kSums = 64;      // of a lane
constexpr int kWarpRows = 16;  // of the 64 of a product
constexpr int kColumns = 128;
constexpr int kDepth = 16;  // features

// A tile of rows whose features are contiguous, as a descriptor tells it.
class Tile {
 public:
  explicit Tile(uint64_t descriptor)
      : start_(field(descriptor, 0)), next_(field(descriptor, 16)), down_(field(descriptor, 32)) {
    constexpr uint64_t reserved = 0x3FFF'C000'C000'C000;  // and the offset of the pattern
    const uint64_t swizzle = descriptor >> 62;
    swizzled_ = swizzle == 1;
    expect((descriptor & reserved) == 0, "a descriptor has bits that none has");
    expect(swizzle <= 1, "a descriptor names a swizzle that is not emulated");
    expect(!swizzled_ || start_ % 1024 < 128, "a swizzled tile is not aligned to 1024 bytes");
  }

  // Of features 8 * half and the seven after it.
  uint32_t piece(int row, int half) const {
    const auto eight = static_cast<uint32_t>(row) / 8;
    const auto in_eight = static_cast<uint32_t>(row) % 8;
    const auto step = static_cast<uint32_t>(half);
    const uint32_t address = start_ + eight * down_;
    if (!swizzled_) return address + in_eight * kPiece + step * next_;
    const uint32_t straight = address + in_eight * 128 + step * kPiece;
    return straight ^ (straight / 128 % 8 * kPiece);
  }

  bool overlaps(const BulkCopy& copy, int rows) const {
    const uint32_t begin = swizzled_ ? start_ / 1024 * 1024 : start_;
    const uint32_t eight_rows = swizzled_ ? 1024 : 128;
    const uint32_t end = begin + (static_cast<uint32_t>(rows) / 8 - 1) * down_ + eight_rows;
    return begin < copy.to + copy.bytes && copy.to < end;
  }

 private:
  // 14 bits that count 16 bytes.
  static uint32_t field(uint64_t descriptor, int at) {
    return static_cast<uint32_t>(descriptor >> at & 0x3FFF) * 16;
  }

  uint32_t start_, next_, down_;
  bool swizzled_;
};

using LeftRows = float[kWarpRows][kDepth];

struct Product {
  bool left_in_registers;
  uint64_t left;  // a descriptor, unless
  uint64_t right;
  LeftRows registers;
};

// What a warp has under way, and the registers that it has lent for that.
struct WarpProducts {
  std::vector<Product> open;                // of the group that is not committed
  std::deque<std::vector<Product>> groups;  // oldest first
  bool fenced;
  float* lent[kLanes];        // null where a lane has its registers
  float sums[kLanes][kSums];  // what they will hold
};
inline WarpProducts products_of[kMostWarps];

// What the threads of a warpgroup must agree on.
struct Agreement {
  Barrier barrier;
  uint64_t left, right;
};
inline Agreement agreements[kMostWarps / 4];

inline void start_products() {
  for (Agreement& each : agreements) each = {};
  for (WarpProducts& each : products_of) {
    each.open.clear();
    each.groups.clear();
    each.fenced = false;
    std::memset(each.lent, 0, sizeof each.lent);
  }
}

inline bool products_are_under_way() {
  for (const WarpProducts& each : products_of) {
    if (!each.open.empty() || !each.groups.empty()) return true;
  }
  return false;
}

inline void expect_no_product_reads(const BulkCopy& copy) {
  const auto check = [&](const std::vector<Product>& group) {
    for (const Product& each : group) {
      const bool left = !each.left_in_registers && Tile(each.left).overlaps(copy, 64);
      expect(!left && !Tile(each.right).overlaps(copy, kColumns),
             "a bulk copy overwrites a tile whose products nobody has waited for");
    }
  };
  for (const WarpProducts& each : products_of) {
    check(each.open);
    for (const std::vector<Product>& group : each.groups) check(group);
  }
}

inline void read_row(const Tile& tile, int row, float (&to)[kDepth]) {
  for (int half = 0; half < 2; ++half) {
    __nv_bfloat16 numbers[8];
    std::memcpy(numbers, filled_piece(tile.piece(row, half)), sizeof numbers);
    for (int k = 0; k < 8; ++k) to[8 * half + k] = __bfloat162float(numbers[k]);
  }
}

// The lane and the register that hold a sum of the warp.
inline float& sum_at(WarpProducts& warp, int row, int column) {
  const int lane = row % 8 * 4 + column % 8 / 2;
  return warp.sums[lane][column / 8 * 4 + row / 8 * 2 + column % 2];
}

inline void multiply_rows(WarpProducts& warp, const Product& product, int first_row) {
  LeftRows left;
  std::memcpy(left, product.registers, sizeof left);
  for (int row = 0; row < kWarpRows && !product.left_in_registers; ++row) {
    read_row(Tile(product.left), first_row + row, left[row]);
  }
  for (int column = 0; column < kColumns; ++column) {
    float right[kDepth];
    read_row(Tile(product.right), column, right);
    for (int row = 0; row < kWarpRows; ++row) {
      float& sum = sum_at(warp, row, column);
      // Products with registers begin sums anew.
      double total = product.left_in_registers ? 0 : sum;
      for (int k = 0; k < kDepth; ++k) total += double{left[row][k]} * double{right[k]};
      const int way = (row + column) % 3 - 1;
      sum = static_cast<float>(total * (1 + way * product_error));
    }
  }
}

// The registers of the sums belong to the products from the first one until all are waited for.
inline void lend(float (&sum)[kSums]) {
  WarpProducts& mine = products_of[warp()];
  float*& lent = mine.lent[lane()];
  expect(lent == nullptr || lent == sum, "products of a warp have sums in two places");
  if (lent != nullptr) return;
  lent = sum;
  std::memcpy(mine.sums[lane()], sum, sizeof sum);
  std::memset(sum, 0xFF, sizeof sum);
}

inline void give_back(WarpProducts& mine) {
  for (int of = 0; of < kLanes; ++of) {
    float*& lent = mine.lent[of];
    if (lent == nullptr) continue;
    for (int i = 0; i < kSums; ++i) {
      uint32_t bits;
      std::memcpy(&bits, lent + i, sizeof bits);
      expect(bits == ~uint32_t{0}, "a register of sums was written while products were under way");
    }
    std::memcpy(lent, mine.sums[of], sizeof mine.sums[of]);
    lent = nullptr;
  }
  mine.fenced = false;
}

// All threads of the warpgroup come to the same instruction.
inline void agree(uint64_t left, uint64_t right) {
  Agreement& ours = agreements[block.thread / kGroupLanes];
  if (ours.barrier.arrived == 0) {
    ours.left = left;
    ours.right = right;
  }
  expect(ours.left == left && ours.right == right, "a warpgroup does not agree on a product");
  wait(ours.barrier, kGroupLanes);
}

inline void begin_product(float (&sum)[kSums], const Product& product) {
  WarpProducts& mine = products_of[warp()];
  expect(mine.fenced, "a product begins before a fence");
  lend(sum);
  agree(product.left, product.right);
  if (lane() == 0) mine.open.push_back(product);
}

inline void commit_group() {
  wait_for_warp();
  WarpProducts& mine = products_of[warp()];
  if (lane() == 0) mine.groups.push_back(std::move(mine.open));
  if (lane() == 0) mine.open.clear();
}

// Until at most so many groups are under way.
inline void wait_for_groups(size_t left) {
  wait_for_warp();
  WarpProducts& mine = products_of[warp()];
  if (lane() == 0) {
    const int first_row = warp() % 4 * kWarpRows;
    for (; mine.groups.size() > left; mine.groups.pop_front()) {
      for (const Product& each : mine.groups.front()) multiply_rows(mine, each, first_row);
    }
    if (mine.groups.empty() && mine.open.empty()) give_back(mine);
  }
  wait_for_warp();
}

}  // namespace emulated
