# SPDX-License-Identifier: BSD-3-Clause
"""Batches on which a peer and its module in flashmetric.compat are compared, and how."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from compare import assert_no_worse_than, exact

Loss = Callable[..., Tensor]  # of as many tensors as there are sides

WIDE = (torch.float64,)
NARROW = (torch.float32, torch.float16, torch.bfloat16)

# Losses of sentence-transformers: of a batch, and of given rows of so many sides.
BATCH = (
    "BatchHardTripletLoss",
    "BatchHardSoftMarginTripletLoss",
    "BatchSemiHardTripletLoss",
    "BatchAllTripletLoss",
)
SIDES = {"TripletLoss": 3, "ContrastiveLoss": 2, "OnlineContrastiveLoss": 2}

# Labels of a batch: what a peer has a rule of its own for, and ordinary ones.
LAYOUTS = {
    "two of a class": [0, 0, 1, 1, 2, 2, 3, 3],
    "shuffled": [3, 1, 2, 1, 3, 3, 2, 1, 1, 2, 3],
    "two classes": [0, 1, 1, 0, 0, 1, 0],
    "one alone": [5, 5, 7, 5, 5],
    "one class": [2, 2, 2, 2],
    "one class of two": [2, 2],
    "all distinct": [4, 1, 3, 0, 2],
    "one row": [9],
}


@st.composite
def batches(draw: st.DrawFn, sides: int = 1) -> tuple[list[Tensor], Tensor]:
    """Float64 rows (B, D) of several sides without ties, and labels (B,)."""
    n = draw(st.integers(1, 13))
    labels = draw(st.lists(st.integers(-1, draw(st.integers(0, n))), min_size=n, max_size=n))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    size = (sides, n, draw(st.integers(2, 7)))
    scale = draw(st.sampled_from([0.25, 1.0, 6.0]))
    rows = scale * torch.randn(size, dtype=torch.float64, generator=generator)
    return list(rows), torch.tensor(labels)


def rows_of(labels: Sequence[int], sides: int = 1, dim: int = 5, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (sides, len(labels), dim)
    return list(torch.randn(shape, dtype=torch.float64, generator=generator))


def value_and_gradients(loss: Loss, rows: Sequence[Tensor], **to: Any) -> list[Tensor]:
    """Of rows converted first: .to(**to)."""
    leaves = [side.detach().to(**to).clone().requires_grad_() for side in rows]
    value = loss(*leaves)
    assert value.requires_grad
    generator = torch.Generator().manual_seed(1)
    cotangent = torch.rand(value.shape, dtype=torch.float64, generator=generator) + 0.5
    found = torch.autograd.grad(value, leaves, cotangent.to(value.dtype), allow_unused=True)
    assert all(grad is not None for grad in found)
    return [value.detach(), *found]


def assert_same(ours: Loss, theirs: Loss, rows: Sequence[Tensor]) -> None:
    """In float64: value and gradients to many digits."""
    got, expected = (value_and_gradients(loss, rows) for loss in (ours, theirs))
    torch.testing.assert_close(got[0], expected[0], rtol=1e-9, atol=1e-12)
    for mine, other in zip(got[1:], expected[1:], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-7, atol=1e-9)


def assert_as_precise(
    ours: Loss, theirs: Loss, rows: Sequence[Tensor], dtype: torch.dtype, **compared: Any
) -> None:
    """In that dtype: its dtypes, and no further from the truth than twice as far as the peer is."""
    rows = [side.to(dtype) for side in rows]
    truth = value_and_gradients(theirs, rows, dtype=torch.float64)
    found = (value_and_gradients(loss, rows) for loss in (ours, theirs))
    for mine, other, right in zip(*found, truth, strict=True):
        assert_no_worse_than(mine, baseline=other, truth=exact(right), **compared)


def assert_zero(loss: Loss, rows: Sequence[Tensor]) -> None:
    """Exactly 0, in the graph, with zero gradients."""
    for found in value_and_gradients(loss, rows):
        assert torch.equal(found, torch.zeros_like(found))
