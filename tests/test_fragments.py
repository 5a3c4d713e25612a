# SPDX-License-Identifier: BSD-3-Clause
"""csrc/cuda/fragments.h, compiled for the host: a product made as the matrix instructions make it.

What ldmatrix and mma.m16n8k16 do with the registers of 32 lanes is written out here from the PTX
manual; where lanes read and what they hold comes from the header. Two lanes exchanged are noticed.
"""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest

from sources import CSRC

PROGRAM = r"""
#include <cstdio>
#include "cuda/fragments.h"
using namespace flashmetric::cuda;
template <class Of> void list(const char* name, int n, Of of, const char* end = ",") {
  std::printf("\"%s\": [", name);
  for (int i = 0; i < n; ++i) std::printf("%s%d", i > 0 ? ", " : "", of(i));
  std::printf("]%s\n", end);
}
int main() {
  std::printf("{");
  list("swizzled", 64, [](int i) { return swizzled_piece(i / 8, i % 8); });
  list("query_row", 32, [](int lane) { return query_piece(lane).row; });
  list("query_piece", 32, [](int lane) { return query_piece(lane).piece; });
  list("ref_row", 32, [](int lane) { return ref_piece(lane).row; });
  list("ref_piece", 32, [](int lane) { return ref_piece(lane).piece; });
  list("sum_row", 64, [](int i) { return sum_row(i / 2, i % 2); });
  list("sum_column", 128, [](int i) { return sum_column(i / 4, i / 2 % 2, i % 2); });
  list("mma", 4, [](int i) { return mma_register(i / 2, i % 2); });
  list("start_ones", 64, [](int i) { return int(start_ones(i / 2) >> 16 * (i % 2) & 0xFFFF); });
  list("start_place", 32, [](int lane) { return start_place(lane); });
  list("wgmma", 64, [](int i) { return wgmma_register(i / 2 % 2, i / 4, i % 2); }, "}");
}
"""
LANES = np.arange(32)


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("fragments")
    (folder / "layout.cpp").write_text(PROGRAM)
    built = [compiler, "-std=c++20", f"-I{CSRC}", str(folder / "layout.cpp"), "-o"]
    subprocess.run([*built, str(folder / "layout")], check=True)
    printed = subprocess.run([folder / "layout"], check=True, capture_output=True, text=True).stdout
    return {name: np.array(values) for name, values in json.loads(printed).items()}


def in_shared_memory(rows, layout):
    """[16 rows][16 features] as two of eight pieces of a swizzled row, the others NaN."""
    tile = np.full((16, 8, 8), np.nan)
    for row in range(16):
        for piece in range(2):
            place = layout["swizzled"][row % 8 * 8 + piece]
            tile[row, place] = rows[row, piece * 8 : piece * 8 + 8]
    return tile


def ldmatrix(tile, layout, side):
    """[4 registers][32 lanes][2]: register m of lane l is row l / 4, elements 2 (l mod 4), + 1."""
    rows, pieces = layout[f"{side}_row"], layout[f"{side}_piece"]
    addressed = tile[rows, layout["swizzled"][rows % 8 * 8 + pieces]]
    matrices = addressed.reshape(4, 8, 8)  # lanes 8 m .. 8 m + 7 give the rows of matrix m
    columns = LANES % 4 * 2
    return np.stack([matrices[:, LANES // 4, columns], matrices[:, LANES // 4, columns + 1]], -1)


def mma(a, b):
    """The 16 x 8 sums, from the registers of all lanes: a0..a3 of the left, b0, b1 of the right."""
    left, right = np.full((16, 16), np.nan), np.full((8, 16), np.nan)
    for lane in LANES:
        row, k = lane // 4, lane % 4 * 2
        for register, (down, along) in enumerate(((0, 0), (8, 0), (0, 8), (8, 8))):
            left[row + down, k + along : k + along + 2] = a[register, lane]
        for register, along in enumerate((0, 8)):
            right[row, k + along : k + along + 2] = b[register, lane]
    return left @ right.T


def registers_of(sums):
    """c0, c1 of lane l: row l / 4, columns 2 (l mod 4), + 1; c2, c3: eight rows below."""
    row, column = LANES // 4, LANES % 4 * 2
    places = ((row, column), (row, column + 1), (row + 8, column), (row + 8, column + 1))
    return np.stack([sums[place] for place in places])


def product(layout):
    """16 queries by 16 references as tiles_mma.cuh reads them out, and as they should be."""
    rng = np.random.default_rng(0)
    queries, refs = rng.integers(-9, 10, (2, 16, 16)).astype(float)
    a = ldmatrix(in_shared_memory(queries, layout), layout, "query")
    b = ldmatrix(in_shared_memory(refs, layout), layout, "ref")
    found = np.full((16, 16), np.nan)
    for block in range(2):
        held = registers_of(mma(a, b[2 * block : 2 * block + 2]))
        for lane in LANES:
            for slot in range(2):
                for e in range(2):
                    row = layout["sum_row"][lane * 2 + slot]
                    column = layout["sum_column"][lane * 4 + block * 2 + e]
                    found[row, column] = held[layout["mma"][slot * 2 + e], lane]
    return found, queries @ refs.T


def test_fragments_make_the_product(layout):
    np.testing.assert_array_equal(*product(layout))


@pytest.mark.parametrize("name", ["query", "ref", "sum_row", "sum_column"])
@pytest.mark.parametrize("lanes", [(0, 1), (3, 20), (8, 16)])
def test_two_lanes_exchanged_are_noticed(layout, name, lanes):
    wrong = {key: values.copy() for key, values in layout.items()}
    for key in [key for key in wrong if key.startswith(name)]:
        by_lane = wrong[key].reshape(32, -1)
        by_lane[list(lanes)] = by_lane[list(lanes)[::-1]]
    moved = any((wrong[key] != layout[key]).any() for key in layout)
    same = np.array_equal(*product(wrong))
    assert same != moved


def test_eight_rows_lie_in_all_banks(layout):
    for piece in range(8):
        assert sorted(layout["swizzled"].reshape(8, 8)[:, piece]) == list(range(8))


def test_wgmma_holds_blocks_of_eight_columns(layout):
    """Register i of 64: block i / 4; of its four, two in the upper row and two in the lower."""
    assert sorted(layout["wgmma"]) == list(range(64))
    for register in range(64):
        block, slot, e = register // 4, register // 2 % 2, register % 2
        assert layout["wgmma"][block * 4 + slot * 2 + e] == register


def started(layout):
    """The sums of 16 rows and eight columns that begin with the sum of a column's terms."""
    rng = np.random.default_rng(0)
    terms = np.zeros((8, 8))
    terms[:, :3] = rng.integers(1, 10, (8, 3))
    ones = layout["start_ones"].reshape(32, 2) / 0x3F80
    nothing = np.zeros((32, 2))
    at = layout["start_place"]
    own = np.stack([terms.reshape(-1)[at], terms.reshape(-1)[at + 1]], -1)
    sums = mma(np.stack([ones, ones, nothing, nothing]), np.stack([own, nothing]))
    return sums, np.broadcast_to(terms.sum(1), (16, 8))


def test_sums_begin_with_the_terms_of_their_column(layout):
    np.testing.assert_array_equal(*started(layout))


@pytest.mark.parametrize("name", ["start_ones", "start_place"])
@pytest.mark.parametrize("lanes", [(0, 1), (1, 6), (3, 20)])
def test_two_lanes_exchanged_start_wrongly(layout, name, lanes):
    by_lane = layout[name].reshape(32, -1).copy()
    by_lane[list(lanes)] = by_lane[list(lanes)[::-1]]
    moved = (by_lane.reshape(-1) != layout[name]).any()
    assert np.array_equal(*started({**layout, name: by_lane.reshape(-1)})) != moved
