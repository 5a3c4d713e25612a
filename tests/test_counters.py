# SPDX-License-Identifier: BSD-3-Clause
"""`impl="auto"` on the CPU runs the kernels for every row of the table: no silent fallback."""

from __future__ import annotations

import pytest
import torch

from flashmetric import _C
from keys_data import hard_rows
from op_db import FUSED, OP, cases_and_dtypes
from samples import cotangent_for


def _moved(before):
    return {name for name, count in _C.counters().items() if count > before[name]}


@pytest.mark.parametrize(("op", "row", "dtype"), cases_and_dtypes())
def test_auto_runs_fused(op, row, dtype):
    sample = op.sample(row, dtype)
    before = _C.counters()
    op.run(sample, "auto")
    assert set(op.kernels.forward) <= _moved(before)


def test_the_default_is_auto():
    for op in FUSED:
        sample = op.sample(op.rows[0], torch.float32)
        before = _C.counters()
        op.function(**sample.arguments())
        assert set(op.kernels.forward) <= _moved(before)


@pytest.mark.parametrize(("op", "row", "dtype"), cases_and_dtypes(differentiable=True))
def test_the_backward_runs_fused(op, row, dtype):
    """Scalar losses have their gradient from the forward; the others come back for it."""
    sample = op.sample(row, dtype).requiring_grad()
    value = op.run(sample, "auto")
    before = _C.counters()
    value.backward(cotangent_for(value))
    if row.get("reduction") == "none" or not op.kernels.at_once:
        assert set(op.kernels.backward) <= _moved(before)
    else:
        assert not _moved(before)


def test_the_reference_runs_no_kernel():
    for op in OP.values():
        sample = op.sample(op.rows[0], torch.float32)
        before = _C.counters()
        op.run(sample, "reference")
        assert not _moved(before)


@pytest.mark.parametrize(
    ("kind", "paths"),
    [
        ("random", set()),
        ("tight_classes", {"rescored"}),
        ("all_equal", {"rescored", "fallback_rows"}),
        ("with_nan", {"brute_rows"}),
    ],
)
def test_every_way_to_a_choice_is_taken(kind, paths):
    """Ranked by tiles; near-ties rescored by their keys, or ranked again; rows without order by
    brute force. That all of them give the exact choice is tested in test_choices.py."""
    rows, labels = hard_rows(kind, 205, 19, 23, torch.float32)
    before = _C.counters()
    OP["mine_triplets"].function(rows, labels)
    moved = _moved(before) - {"mine", "candidates"}
    assert paths <= moved
    assert paths or not moved


def test_reset_sets_every_counter_to_zero():
    OP["mine_triplets"].function(torch.eye(4), torch.tensor([0, 0, 1, 1]))
    assert _C.counters()["mine"] > 0
    _C.reset_counters()
    assert set(_C.counters().values()) == {0}
