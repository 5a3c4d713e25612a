# SPDX-License-Identifier: BSD-3-Clause
"""What bench/gpu.py times: the steps of the contenders, and which of them are left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from flashmetric.cli.bench import contenders
from flashmetric.cli.bench.contenders import CONTENDERS, Loss
from flashmetric.cli.bench.measure import Step
from flashmetric.cli.table import format_bytes
from gpu_losses import CONTRASTIVE, HARD, LOSSES, SEMIHARD, Case

__all__ = [
    "GRAPH",
    "NAMES",
    "TITLES",
    "UNIT",
    "all_of",
    "in_turns",
    "names_of",
    "steps_of",
    "why_not",
]

UNIT, GRAPH = contenders.UNIT, "/graph"  # a name + GRAPH: replayed
_PRODUCTS = (UNIT, "matmul_tf32", "mm_out")
NAMES = (*_PRODUCTS, *LOSSES[HARD])
TITLES = {name: CONTENDERS[name].title for name in NAMES if name in CONTENDERS}
TITLES["matmul_tf32"] = "torch.matmul, TF32"
# They ask the device for sizes while they run, which no graph can record.
NO_GRAPH = ("pytorch_metric_learning", "sentence_transformers")
# A compilation takes seconds: these sizes only, 4 per class.
COMPILED = {128: (4096, 16384), 512: (4096,)}
MATRIX_LIMIT = 2**30  # bytes of a matrix in a graph, which keeps several
# What peers keep at least: three floats for each triplet of rows; forty bytes for each pair.
PEER_BYTES: dict[str, Callable[[int], int]] = {
    SEMIHARD: lambda batch: 12 * batch**3,
    CONTRASTIVE: lambda batch: 40 * batch**2,
}
PEER_LIMIT = 2**34


def names_of(loss: str, names: Sequence[str]) -> list[str]:
    """Those of the contenders that the loss has."""
    return [name for name in names if name in _PRODUCTS or name in LOSSES[loss]]


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
    if name in NO_GRAPH and case.loss in PEER_BYTES:
        needed = PEER_BYTES[case.loss](case.batch)
        return f"would take {format_bytes(needed)} or more" if needed > PEER_LIMIT else ""
    return ""


def steps_of(name: str, case: Case, sets: Sequence[tuple[Tensor, Tensor]]) -> list[Step]:
    """One step for each set of inputs."""
    if name in _PRODUCTS:
        return [_product(name, rows) for rows, _ in sets]
    loss = LOSSES[case.loss][name](case)
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
