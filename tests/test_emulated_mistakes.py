# SPDX-License-Identifier: BSD-3-Clause
"""The emulation of capability 9.0 is a real check: mistakes made in its main loop are noticed.

The header is compiled with all of them; the environment says which one is made.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

import emulation
from samples import class_batch
from test_emulated_gpu import module  # noqa: F401  a fixture
from test_emulated_tiles import assert_same_choices

HEADER = "tiles_wgmma.cuh"


class Mistake(NamedTuple):
    right: str  # an expression of the header
    wrong: str
    noticed: str
    place: str | None = None  # where else the expression is right


MISALIGNED, NOT_THERE = "not aligned to 1", "reads what no copy has brought"
OVERWRITTEN, HANGS = "overwrites a tile whose products", "wait for what does not come"
UNFINISHED, OTHER_CHOICES = "ends before its products", "bits differ"
MISTAKES = {
    "a_barrier_between_words": Mistake("8 * at", "12 * at", "not a multiple of 8"),
    "barriers_that_copies_do_not_see": Mistake("publish_barriers()", "void()", "not made visible"),
    "an_arrival_that_is_not_counted": Mistake(
        "init_barrier(empty(stage), kConsumerWarps)",
        "init_barrier(empty(stage), kConsumerWarps - 1)",
        OVERWRITTEN,
    ),
    "an_arrival_that_never_comes": Mistake(
        "init_barrier(columns_empty(slot), kConsumerWarps)",
        "init_barrier(columns_empty(slot), kConsumerWarps + 1)",
        HANGS,
    ),
    "bytes_that_never_come": Mistake(
        "expect_bytes(full(stage), static_cast<uint32_t>(plan.stage_bytes))",
        "expect_bytes(full(stage), static_cast<uint32_t>(plan.stage_bytes) + 16)",
        HANGS,
    ),
    "the_phase_before": Mistake(
        "wait(empty(stage), (round - 1) & 1)", "wait(empty(stage), round & 1)", "more arrive"
    ),
    "a_stage_nobody_waits_for": Mistake("wait(full(stage), round & 1)", "void()", NOT_THERE),
    "columns_nobody_waits_for": Mistake(
        "wait(columns_full(turn % kColumnSlots), (turn / kColumnSlots) & 1)", "void()", NOT_THERE
    ),
    "queries_nobody_waits_for": Mistake("wait(query_full(), 0)", "void()", NOT_THERE),
    "threads_that_never_come": Mistake(
        "kConsumers * kWarpgroup",
        "(kConsumers + 1) * kWarpgroup",
        HANGS,
        "sync_some(kConsumerBarrier, kConsumers * kWarpgroup)",
    ),
    "a_copy_between_pieces": Mistake(
        "stage_ref(stage)", "stage_ref(stage) + 8", MISALIGNED, "copy_bytes(stage_ref(stage), "
    ),
    "more_stages_than_memory": Mistake(
        "stage * plan.stage_bytes", "(stage + 8) * plan.stage_bytes", "outside of the shared memory"
    ),
    "a_stage_released_early": Mistake(
        "wait_for_products<1>()", "wait_for_products<2>()", OVERWRITTEN
    ),
    "products_nobody_waits_for": Mistake("wait_for_products<0>()", "void()", UNFINISHED),
    "products_of_no_group": Mistake("commit_products()", "void()", UNFINISHED),
    "products_without_a_fence": Mistake(
        "begin_products()", "void()", "before a fence", "begin_products();\n      multiply("
    ),
    "sums_written_early": Mistake(
        "before = stage", "(sums.sum[5] = 0, before = stage)", "a register of sums was written"
    ),
    "warps_apart": Mistake(
        "__shfl_sync(kAllLanes, thread / kWarpgroup, 0)",
        "__shfl_sync(kAllLanes, thread / kWarp % 4, 0)",
        "does not agree",
    ),
    "a_tile_beside_its_place": Mistake(
        "tile_place(stage_ref(0))", "tile_place(stage_ref(0) + 128)", MISALIGNED
    ),
    "no_swizzle": Mistake(
        "tile_descriptor(refs + 2 * step)",
        "tile_descriptor(refs + 2 * step) ^ uint64_t{1} << 62",
        OTHER_CHOICES,
    ),
    "rows_apart": Mistake(
        "tile_descriptor(queries + 2 * step)",
        "tile_descriptor(queries + 2 * step) ^ uint64_t{1} << 32",
        OTHER_CHOICES,
    ),
    "rows_exchanged": Mistake("sum_row(lane, s)", "sum_row(lane ^ 4, s)", OTHER_CHOICES),
}


def _with_mistakes(text: str) -> str:
    for number, (right, wrong, _, place) in enumerate(MISTAKES.values(), 1):
        around = place or right
        assert text.count(around) == 1, f"{HEADER} has not once: {around}"
        made = f'emulated_number("EMULATED_MISTAKE", 0) == {number}'
        either = around.replace(right, f"({made} ? {wrong} : {right})", 1)
        text = text.replace(around, either)
    return text


@pytest.fixture(scope="session")
def mistaken(module, tmp_path_factory):  # noqa: F811
    built = Path(module.__file__).parent
    text = _with_mistakes((built / HEADER).read_text())

    def build(folder):
        return emulation.rebuilt(folder, built, "tiles_sm90", HEADER, text)

    return emulation.built_once(tmp_path_factory, "emulated_mistakes", build)


@pytest.fixture(autouse=True)
def forced(mistaken, monkeypatch):
    for name, value in emulation.GPUS["wgmma"].items():
        monkeypatch.setenv(name, value)
    yield from emulation.in_place_of_the_cpu(mistaken, monkeypatch)


def _assert_rings_of_tiles(gpu):
    """Queries that stay in shared memory, of two splits that meet; and some that come with each
    stage, beside more tiles than the ring of columns has slots."""
    rows, labels = class_batch(700, 64, 150, seed=1)
    assert_same_choices(gpu, rows[:200], labels[:200], rows, labels)
    rows, labels = class_batch(530, 512, 150, seed=2)
    assert_same_choices(gpu, rows, labels)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_noticed(mistaken, name, monkeypatch):
    monkeypatch.setenv("EMULATED_MISTAKE", str(list(MISTAKES).index(name) + 1))
    with pytest.raises((RuntimeError, AssertionError), match=MISTAKES[name].noticed):
        _assert_rings_of_tiles(mistaken)


def test_a_launch_after_mistakes_is_right(mistaken, monkeypatch):
    _assert_rings_of_tiles(mistaken)
    monkeypatch.setenv("EMULATED_MISTAKE", "1")
    with pytest.raises(RuntimeError):
        _assert_rings_of_tiles(mistaken)
    monkeypatch.delenv("EMULATED_MISTAKE")
    _assert_rings_of_tiles(mistaken)
