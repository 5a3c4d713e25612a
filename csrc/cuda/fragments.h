// SPDX-License-Identifier: BSD-3-Clause
// Where matrix instructions want their operands and leave their sums, lane by lane. Plain
// functions, for the host as well: tests/test_fragments.py multiplies with them as the instructions
// would.
#pragma once

#include <cstdint>

#include "../policy.h"

namespace flashmetric::cuda {

// Rows of a tile have 128 bytes, eight pieces of 16; piece p of row r lies where this says. Eight
// rows at the same piece then lie in all 32 banks, and wgmma's 128-byte swizzle is the same.
FM_HD constexpr int swizzled_piece(int row, int piece) { return piece ^ (row & 7); }

struct Piece {
  int row, piece;
};

// The row and piece whose address a lane gives to ldmatrix.x4: of the 16 x 16 queries, and of the
// 16 references, two fragments of eight, that one mma.m16n8k16 after the other multiplies.
FM_HD constexpr Piece query_piece(int lane) { return {lane % 16, lane / 16}; }
FM_HD constexpr Piece ref_piece(int lane) { return {lane / 16 * 8 + lane % 8, lane / 8 % 2}; }

// Sums of a lane: row slot s of its rows, column e = 0 or 1 of block b of eight columns.
FM_HD constexpr int sum_row(int lane, int slot) { return lane / 4 + 8 * slot; }
FM_HD constexpr int sum_column(int lane, int block, int e) { return 8 * block + lane % 4 * 2 + e; }

// Registers that hold them: of a 16 x 8 fragment of mma, and of the 64 x n sums of wgmma.
FM_HD constexpr int mma_register(int slot, int e) { return 2 * slot + e; }
FM_HD constexpr int wgmma_register(int slot, int block, int e) { return 4 * block + 2 * slot + e; }

// How wgmma is told of a tile in shared memory: rows of 128 bytes, 16-byte pieces swizzled,
// features contiguous; groups of eight rows are 1024 bytes apart. Fields count 16 bytes. The lower
// half says where the tile is, in 14 bits, and that there is no second step along the features;
// what is added to it moves the tile, which never leaves the 256 KiB that 14 bits reach. In the
// upper half, 1 at bit 62 names the swizzle.
FM_HD constexpr uint32_t tile_place(uint32_t tile) {
  return (tile & 0x3FFFFU) >> 4 | uint32_t{1} << 16;
}
FM_HD constexpr uint64_t tile_descriptor(uint32_t place) {
  constexpr uint64_t row_groups = uint64_t{1024 / 16} << 32;
  constexpr uint64_t swizzle = uint64_t{1} << 62;
  return row_groups | swizzle | place;
}

// Rows of 16 bytes without a swizzle: eight features, groups of eight rows 128 bytes apart. The
// eight features after them are the same ones again.
FM_HD constexpr uint64_t narrow_descriptor(uint32_t rows) {
  return uint64_t{128 / 16} << 32 | (rows & 0x3FFFFU) >> 4;
}

// Sums begin with a number per column: the product of a row of ones, one for each of the three
// bfloat16 that a float is the sum of, with the eight terms of a column, three and zeros. These are
// a lane's first two registers of such rows, 16 features wide; the others hold zeros.
constexpr int kStartTerms = 8;
FM_HD constexpr uint32_t start_ones(int lane) {
  constexpr uint32_t one = 0x3F80;
  return lane % 4 == 0 ? one << 16 | one : lane % 4 == 1 ? one : 0;
}
// The lane's first register of the columns, a fragment of eight: two terms of a column from this
// place on. The other holds zeros.
FM_HD constexpr int start_place(int lane) { return lane / 4 * kStartTerms + lane % 4 * 2; }

}  // namespace flashmetric::cuda
