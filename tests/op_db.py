# SPDX-License-Identifier: BSD-3-Clause
"""THE TABLE. Generic tests run over OPS: a new op or option is a row here, not a new test.

A row names options; `Op.sample` makes seeded inputs of it for a dtype, `Op.truth` says in numpy
what must come out (oracle.py). Rows cover every pair of option values (covering.py). Error inputs,
with their exact messages, are in op_errors.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from covering import covering_rows
from flashmetric import functional
from samples import (
    Row,
    Sample,
    pairwise_sample,
    row_name,
    triplet_loss_sample,
    triplet_margin_sample,
)
from truths import Truth, mined_truth, pairwise_truth, triplet_loss_truth, triplet_margin_truth

DISTANCES = ("euclidean", "sqeuclidean", "cosine", "dot")
REDUCTIONS = ("mean", "mean_active", "sum", "none")
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
LABEL_KINDS = (
    "int64",
    "int32",
    "uint8",
    "bool",
    "float32",
    "float64",
    "multi_hot",
    "mask",
)

Grid = dict[str, tuple[Any, ...]]  # option -> the values it takes in the rows

_PAIR_OPTIONS: Grid = {"distance": DISTANCES, "normalize": (False, True)}
_LOSS_OPTIONS: Grid = {
    "reduction": REDUCTIONS,
    "soft_margin": (False, True),
    "margin": ("default", "number", "zero_dim", "per_anchor"),
    "weights": ("none", "positive", "some_zero"),
}
_RELATION: Grid = {
    "labels": LABEL_KINDS,
    "refs": ("none", "given", "self"),
    "ignore": (False, True),
}
_SHAPES: Grid = {"shape": ("33x7", "97x24", "26x130")}

# ignore_label names a class, which multi-hot rows and masks do not have; of two classes it leaves
# one, where every result is zero (test_degenerate.py has that case).
_NO_IGNORE = {
    frozenset((("labels", kind), ("ignore", True))) for kind in ("multi_hot", "mask", "bool")
}


@dataclass(frozen=True)
class Op:
    """A public function, its inputs and its truth."""

    name: str
    function: Callable[..., Any]
    rows: list[Row]
    sample: Callable[[Row, torch.dtype], Sample]
    truth: Callable[..., Truth]
    counters: tuple[str, ...]  # of _C.counters(): those a forward must move
    dispatched: tuple[str, ...]  # torch.ops.flashmetric.*: what forward and backward reach
    dtypes: tuple[torch.dtype, ...] = DTYPES
    differentiable: bool = True

    def run(self, sample: Sample, impl: str = "fused", **options: Any) -> Any:
        return self.function(**sample.tensors, **{**sample.options, **options}, impl=impl)


OPS = [
    Op(
        name="triplet_loss",
        function=functional.triplet_loss,
        rows=covering_rows(
            _PAIR_OPTIONS | _LOSS_OPTIONS | _RELATION | {"invalid": ("drop", "count")} | _SHAPES,
            _NO_IGNORE,
        ),
        sample=triplet_loss_sample,
        truth=triplet_loss_truth,
        counters=("mine", "triplet"),
        dispatched=("mined_triplet", "triplet"),
    ),
    Op(
        name="triplet_margin_loss",
        function=functional.triplet_margin_loss,
        rows=covering_rows(
            {"form": ("rows", "index", "index_refs"), "swap": (False, True)}
            | _PAIR_OPTIONS
            | _LOSS_OPTIONS
            | _SHAPES
        ),
        sample=triplet_margin_sample,
        truth=triplet_margin_truth,
        counters=("triplet",),
        dispatched=("triplet",),
    ),
    Op(
        name="pairwise_distances",
        function=functional.pairwise_distances,
        rows=covering_rows(_PAIR_OPTIONS | {"y": (False, True)} | _SHAPES),
        sample=pairwise_sample,
        truth=pairwise_truth,
        counters=("pairwise",),
        dispatched=("pairwise", "pairwise_backward"),
    ),
    Op(
        name="mine_triplets",
        function=functional.mine_triplets,
        rows=covering_rows(_PAIR_OPTIONS | _RELATION | _SHAPES, _NO_IGNORE),
        sample=triplet_loss_sample,
        truth=mined_truth,
        counters=("mine",),
        dispatched=("mine",),
        differentiable=False,
    ),
]
OP = {op.name: op for op in OPS}


def cases(*, differentiable: bool | None = None) -> list[Any]:
    """Every (op, row), as pytest parameters."""
    return [
        pytest.param(op, row, id=f"{op.name}-{row_name(row)}")
        for op in OPS
        if differentiable in (None, op.differentiable)
        for row in op.rows
    ]


def cases_and_dtypes(*, differentiable: bool | None = None) -> list[Any]:
    """Every (op, row, dtype). Float32 and float64 see every row, the half dtypes take turns."""
    parameters = []
    for op in OPS:
        halves = [dtype for dtype in op.dtypes if dtype.itemsize == 2]
        for number, row in enumerate(op.rows):
            if differentiable in (None, op.differentiable):
                for dtype in (torch.float32, torch.float64, halves[number % len(halves)]):
                    name = str(dtype).removeprefix("torch.")
                    parameters.append(
                        pytest.param(op, row, dtype, id=f"{op.name}-{name}-{row_name(row)}")
                    )
    return parameters
