# SPDX-License-Identifier: BSD-3-Clause
"""THE TABLE. Generic tests run over OPS: a new op or option is a row here, not a new test.

A row (op_db_rows.py) names options; `Op.sample` makes seeded inputs of it for a dtype, `Op.truth`
says in numpy what must come out (oracle.py). Error inputs, with their exact messages, are in
op_errors.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
import torch

import op_db_rows as rows
from flashmetric import functional
from op_db_rows import DISTANCES, NO_DOT, REDUCTIONS, SUMMED
from samples import (
    Row,
    Sample,
    pairwise_sample,
    row_name,
    triplet_loss_sample,
    triplet_margin_sample,
)
from samples_rules import (
    contrastive_pairs_sample,
    contrastive_sample,
    fixed_options,
    margin_loss_sample,
    quadruplet_margin_sample,
    quadruplet_sample,
    rule_sample,
)
from truths import Truth, mined_truth, pairwise_truth, triplet_loss_truth, triplet_margin_truth
from truths_pairs import (
    contrastive_pairs_truth,
    contrastive_truth,
    online_contrastive_truth,
    quadruplet_margin_truth,
    quadruplet_truth,
)
from truths_rules import margin_loss_truth, mined_by_rule_truth, rule_truth

__all__ = ["DISTANCES", "DTYPES", "FUSED", "NO_DOT", "OP", "OPS", "REDUCTIONS", "SUMMED", "Op"]
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class Kernels(NamedTuple):
    """What shows that kernels ran: counters of _C.counters() and ops torch.ops.flashmetric.*."""

    forward: tuple[str, ...]  # counters that a forward must move
    backward: tuple[str, ...]  # those that a backward must move
    dispatched: tuple[str, ...]  # what forward and backward reach
    at_once: bool = True  # a scalar loss has its gradient from the forward: its backward moves none
    static: bool = True  # no size depends on values: meta tensors say enough


_PAIRED = ("paired", "paired_backward")
_LISTED = Kernels(("list_triplets", "triplet"), ("list_triplets", "triplet"), ("listed_triplet",))
_DENSE = Kernels(("dense",), ("dense",), ("dense",))
_MINED = Kernels(("list_triplets",), (), ("list_triplets",))
_DENSE_RULES = ("all", "semihard_all", "hard_all", "easy_all", "soft")
# An op without a line here has no kernels yet: tests run it with impl="reference".
KERNELS = {
    "triplet_loss": Kernels(("mine", "triplet"), ("triplet",), ("mined_triplet", "triplet")),
    "triplet_margin_loss": Kernels(("triplet",), ("triplet",), ("triplet",)),
    "pairwise_distances": Kernels(
        ("pairwise",), ("pairwise_backward",), ("pairwise", "pairwise_backward"), at_once=False
    ),
    "mine_triplets": Kernels(("mine",), (), ("mine",)),
    **{f"triplet_loss[{rule}]": _DENSE for rule in _DENSE_RULES},
    **{
        f"triplet_loss[{rule}]": _LISTED
        for rule in ("semihard", "easy_hard", "distance_weighted", "random")
    },
    **{
        f"mine_triplets[{rule}]": _MINED
        for rule in (*_DENSE_RULES, "semihard", "easy_hard", "distance_weighted", "random")
    },
    "contrastive_loss": _DENSE,
    "online_contrastive_loss": Kernels(("mine", "dense"), ("dense",), ("bounds", "dense")),
    "contrastive_pairs_loss": Kernels(("paired",), ("paired",), _PAIRED, at_once=False),
    "quadruplet_loss": Kernels(
        ("mine", "paired"), ("paired",), ("apart", "mine", *_PAIRED), at_once=False
    ),
    "quadruplet_margin_loss": Kernels(("paired",), ("paired",), _PAIRED, at_once=False),
    **{
        f"margin_loss[{rule}]": Kernels(
            (mining, "paired"), ("paired",), (mining, *stats, *_PAIRED), at_once=False, static=False
        )
        for rule, mining, *stats in (
            ("distance_weighted", "list_triplets"),
            ("semihard", "list_triplets"),
            ("all", "list_triplets", "dense"),
            ("hard", "mine"),
        )
    },
}


@dataclass(frozen=True)
class Op:
    """A public function, its inputs and its truth."""

    name: str  # of the function, and in brackets the rule that all rows have
    function: Callable[..., Any]
    rows: list[Row]
    sample: Callable[[Row, torch.dtype], Sample]
    truth: Callable[..., Truth]
    roles: tuple[str, ...] = ()  # the arguments that may be rows or indices of rows
    options: dict[str, Any] = field(default_factory=dict)  # what every call is made with
    distances: tuple[str, ...] = DISTANCES
    stats: bool = False
    dtypes: tuple[torch.dtype, ...] = DTYPES
    differentiable: bool = True

    @property
    def kernels(self) -> Kernels | None:
        return KERNELS.get(self.name)

    @property
    def row_of_every_call(self) -> Row:
        """A row whose backward runs kernels, whatever the forward has done."""
        return next((row for row in self.rows if row.get("reduction") == "none"), self.rows[0])

    @property
    def impls(self) -> tuple[str, ...]:
        return ("fused", "reference") if self.kernels else ("reference",)

    def run(self, sample: Sample, impl: str = "fused", **options: Any) -> Any:
        return self.function(**sample.arguments(**options), impl=impl)


_TRIPLET = ("anchor", "positive", "negative")
OPS = [
    Op(
        name="triplet_loss",
        function=functional.triplet_loss,
        rows=rows.TRIPLET_LOSS,
        sample=triplet_loss_sample,
        truth=triplet_loss_truth,
        stats=True,
    ),
    Op(
        name="triplet_margin_loss",
        function=functional.triplet_margin_loss,
        rows=rows.TRIPLET_MARGIN_LOSS,
        sample=triplet_margin_sample,
        truth=triplet_margin_truth,
        roles=_TRIPLET,
        stats=True,
    ),
    Op(
        name="pairwise_distances",
        function=functional.pairwise_distances,
        rows=rows.PAIRWISE_DISTANCES,
        sample=pairwise_sample,
        truth=pairwise_truth,
    ),
    Op(
        name="mine_triplets",
        function=functional.mine_triplets,
        rows=rows.MINE_TRIPLETS,
        sample=triplet_loss_sample,
        truth=mined_truth,
        differentiable=False,
    ),
    *(
        Op(
            name=f"triplet_loss[{mining}]",
            function=functional.triplet_loss,
            rows=rule_rows,
            sample=rule_sample,
            truth=rule_truth,
            options=fixed_options(mining),
            stats=True,
        )
        for mining, rule_rows in rows.RULE_LOSS.items()
    ),
    *(
        Op(
            name=f"mine_triplets[{mining}]",
            function=functional.mine_triplets,
            rows=rule_rows,
            sample=rule_sample,
            truth=mined_by_rule_truth,
            options=fixed_options(mining),
            differentiable=False,
        )
        for mining, rule_rows in rows.RULE_TRIPLETS.items()
    ),
    Op(
        name="contrastive_loss",
        function=functional.contrastive_loss,
        rows=rows.CONTRASTIVE_LOSS,
        sample=contrastive_sample,
        truth=contrastive_truth,
        distances=NO_DOT,
        stats=True,
    ),
    Op(
        name="contrastive_pairs_loss",
        function=functional.contrastive_pairs_loss,
        rows=rows.CONTRASTIVE_PAIRS_LOSS,
        sample=contrastive_pairs_sample,
        truth=contrastive_pairs_truth,
        roles=("x1", "x2"),
        options={"similar": torch.arange(5000) % 3 == 0},
        distances=NO_DOT,
    ),
    Op(
        name="online_contrastive_loss",
        function=functional.online_contrastive_loss,
        rows=rows.ONLINE_CONTRASTIVE_LOSS,
        sample=contrastive_sample,
        truth=online_contrastive_truth,
        distances=NO_DOT,
        stats=True,
    ),
    Op(
        name="quadruplet_loss",
        function=functional.quadruplet_loss,
        rows=rows.QUADRUPLET_LOSS,
        sample=quadruplet_sample,
        truth=quadruplet_truth,
        distances=NO_DOT,
        stats=True,
    ),
    Op(
        name="quadruplet_margin_loss",
        function=functional.quadruplet_margin_loss,
        rows=rows.QUADRUPLET_MARGIN_LOSS,
        sample=quadruplet_margin_sample,
        truth=quadruplet_margin_truth,
        roles=("anchor", "positive", "negative1", "negative2"),
        distances=NO_DOT,
    ),
    *(
        Op(
            name=f"margin_loss[{mining}]",
            function=functional.margin_loss,
            rows=rule_rows,
            sample=margin_loss_sample,
            truth=margin_loss_truth,
            options=fixed_options(mining),
            stats=True,
        )
        for mining, rule_rows in rows.MARGIN_LOSS.items()
    ),
]
OP = {op.name: op for op in OPS}
FUSED = [op for op in OPS if op.kernels]


def cases(*, differentiable: bool | None = None, ops: list[Op] | None = None) -> list[Any]:
    """Every (op, row), as pytest parameters; of the ops that have kernels unless told otherwise."""
    return [
        pytest.param(op, row, id=f"{op.name}-{row_name(row)}")
        for op in (FUSED if ops is None else ops)
        if differentiable in (None, op.differentiable)
        for row in op.rows
    ]


def cases_and_dtypes(
    *, differentiable: bool | None = None, ops: list[Op] | None = None
) -> list[Any]:
    """Every (op, row, dtype). Float32 and float64 see every row, the half dtypes take turns."""
    parameters = []
    for op in FUSED if ops is None else ops:
        halves = [dtype for dtype in op.dtypes if dtype.itemsize == 2]
        for number, row in enumerate(op.rows):
            if differentiable in (None, op.differentiable):
                for dtype in (torch.float32, torch.float64, halves[number % len(halves)]):
                    name = str(dtype).removeprefix("torch.")
                    parameters.append(
                        pytest.param(op, row, dtype, id=f"{op.name}-{name}-{row_name(row)}")
                    )
    return parameters
