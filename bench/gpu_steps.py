# SPDX-License-Identifier: BSD-3-Clause
"""What bench/gpu.py times: problems in a dtype on a device, and the steps of the contenders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from flashmetric.cli.bench import contenders
from flashmetric.cli.bench.agreement import compare, truth_of
from flashmetric.cli.bench.contenders import CONTENDERS, Loss
from flashmetric.cli.bench.eager import gram_batch_hard
from flashmetric.cli.bench.measure import Step
from flashmetric.cli.bench.problems import MARGIN, Problem
from flashmetric.functional import triplet_loss

__all__ = [
    "GRAPH",
    "NAMES",
    "OURS",
    "TITLES",
    "UNIT",
    "Case",
    "all_of",
    "check",
    "in_turns",
    "steps_of",
    "why_not",
]

OURS, UNIT, GRAPH = "flashmetric", contenders.UNIT, "/graph"  # a name + GRAPH: replayed
LOSSES: dict[str, Callable[[], Loss]] = {
    OURS: lambda: lambda x, labels: triplet_loss(x, labels, margin=MARGIN, impl="fused"),
    "eager": lambda: lambda x, labels: gram_batch_hard(x, labels, MARGIN),
    "compiled": lambda: _compiled(),
    "pytorch_metric_learning": contenders.pytorch_metric_learning,
    "sentence_transformers": contenders.sentence_transformers,
}
NAMES = (UNIT, "matmul_tf32", "mm_out", *LOSSES)
TITLES = {name: CONTENDERS[name].title for name in NAMES if name in CONTENDERS}
TITLES["matmul_tf32"] = "torch.matmul, TF32"
# They ask the device for sizes while they run, which no graph can record.
NO_GRAPH = ("pytorch_metric_learning", "sentence_transformers")
# A compilation takes seconds: these sizes only, 4 per class.
COMPILED = {128: (4096, 16384), 512: (4096,)}
# Small inputs would stay in the cache of the device: several sets of them take turns.
SETS, SMALL_BATCH = 4, 4096
MATRIX_LIMIT = 2**30  # bytes of a matrix in a graph, which keeps several


@dataclass(frozen=True)
class Case(Problem):
    """A problem in a dtype; `seed` tells sets of inputs apart."""

    dtype: torch.dtype = torch.float32
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{super().name}-{str(self.dtype).removeprefix('torch.')}"

    @property
    def row_bytes(self) -> int:
        return self.batch * self.dim * self.dtype.itemsize

    def embeddings(self) -> Tensor:
        rows = super().embeddings()
        return rows.roll(self.seed, 0).to(self.dtype)

    def sets(self, device: torch.device) -> list[tuple[Tensor, Tensor]]:
        """Inputs that take turns: (embeddings, labels)."""
        cases = [
            replace(self, seed=seed) for seed in range(SETS if self.batch <= SMALL_BATCH else 1)
        ]
        return [(case.embeddings().to(device), case.labels().to(device)) for case in cases]


def why_not(name: str, case: Case, graph: bool) -> str:
    """Why a contender is not timed; empty if it is."""
    matrix = 4 * case.batch**2
    if name == "matmul_tf32" and case.dtype != torch.float32:
        return "float32 only"
    sizes = COMPILED.get(case.dim, (case.batch,)) if case.layout == "k4" else ()
    if name == "compiled" and case.batch not in sizes:
        return "not compiled for this problem"
    if name in CONTENDERS and (missing := CONTENDERS[name].unavailable()):
        return missing
    if graph and name in NO_GRAPH:
        return "reads values on the host"
    if graph and name in ("eager", "compiled") and matrix > MATRIX_LIMIT:
        return "its graph would keep too much memory"
    return ""


def steps_of(name: str, sets: Sequence[tuple[Tensor, Tensor]]) -> list[Step]:
    """One step for each set of inputs."""
    if name not in LOSSES:
        return [_product(name, rows) for rows, _ in sets]
    loss = LOSSES[name]()
    return [_training_step(loss, rows, labels) for rows, labels in sets]


def in_turns(steps: Sequence[Step]) -> Step:
    """One after the other, one for each call."""
    turn = -1

    def step() -> None:
        nonlocal turn
        turn = (turn + 1) % len(steps)
        steps[turn]()

    return step


def all_of(steps: Sequence[Step]) -> Step:
    def step() -> None:
        for each in steps:
            each()

    return step


def check(case: Case, device: torch.device) -> dict[str, Any]:
    """Our loss against a float64 truth of the same rows; in float32, the gradient as well.

    The truth allows what float32 arithmetic may do; a gradient in fewer digits is not judged.
    """
    rows, labels = case.embeddings().to(device).requires_grad_(), case.labels().to(device)
    loss = LOSSES[OURS]()(rows, labels)
    (grad,) = torch.autograd.grad(loss, rows)
    found = compare(loss.detach().cpu(), grad.cpu(), truth_of(case, "drop"))
    holds = found.loss_ratio <= 1 and (case.dtype != torch.float32 or found.holds)
    return {"loss_ratio": found.loss_ratio, "grad_ratio": found.grad_ratio, "holds": holds}


def _product(name: str, rows: Tensor) -> Step:
    if name == "mm_out":
        buffer = torch.empty(len(rows), len(rows), dtype=rows.dtype, device=rows.device)
        return lambda: torch.mm(rows, rows.T, out=buffer)
    if name == UNIT:
        return lambda: torch.matmul(rows, rows.T)

    def step() -> None:
        precision = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        try:
            torch.matmul(rows, rows.T)
        finally:
            torch.set_float32_matmul_precision(precision)

    return step


def _training_step(loss: Loss, rows: Tensor, labels: Tensor) -> Step:
    leaf = rows.detach().requires_grad_()
    return lambda: torch.autograd.grad(loss(leaf, labels), leaf)


def _compiled() -> Loss:
    torch._dynamo.reset()
    compiled = torch.compile(gram_batch_hard, fullgraph=True, dynamic=False)
    return lambda x, labels: compiled(x, labels, MARGIN)
