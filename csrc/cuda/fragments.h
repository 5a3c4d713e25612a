// SPDX-License-Identifier: BSD-3-Clause
// Where matrix instructions want their operands and leave their sums, lane by lane. Plain
// functions, for the host as well: tests/test_fragments.py multiplies with them as the instructions
// would.
#pragma once

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

// Two columns next to each other, 0 and 1, and two rows: four registers that follow each other,
// which one load of 16 bytes fills where a number per column is stored as 0, 1, 0, 1.
FM_HD constexpr int64_t paired_column(int64_t column, int copy) {
  return column / 2 * 4 + copy * 2 + column % 2;
}

}  // namespace flashmetric::cuda
