# SPDX-License-Identifier: BSD-3-Clause
"""The losses that bench/gpu.py times, each by us and by its contenders, and whether ours agree.

Contenders of a loss compute the same value, but for anchors without a positive or a negative.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import families
from flashmetric.cli.bench import contenders
from flashmetric.cli.bench.agreement import compare, truth_of
from flashmetric.cli.bench.contenders import Loss
from flashmetric.cli.bench.eager import gram_batch_hard
from flashmetric.cli.bench.problems import MARGIN, Problem
from flashmetric.functional import contrastive_loss, triplet_loss

__all__ = ["CONTRASTIVE", "HARD", "LOSSES", "OURS", "SEMIHARD", "Case", "check"]

HARD, SEMIHARD, CONTRASTIVE = "hard", "semihard", "contrastive"
OURS = "flashmetric"
# Small inputs would stay in the cache of the device: several sets of them take turns.
SETS, SMALL_BATCH = 4, 4096
NEAR = 0.02  # of the pairs: those that the margin of the contrastive loss reaches


@dataclass(frozen=True)
class Case(Problem):
    """A problem in a dtype, and the loss of it; `seed` tells sets of inputs apart."""

    dtype: torch.dtype = torch.float32
    loss: str = HARD
    seed: int = 0

    @property
    def name(self) -> str:
        name = f"{super().name}-{str(self.dtype).removeprefix('torch.')}"
        return name if self.loss == HARD else f"{name}-{self.loss}"

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


def _ours(case: Case, impl: Any = "fused") -> Loss:
    if case.loss != CONTRASTIVE:
        mining: Any = case.loss
        return lambda x, labels: triplet_loss(x, labels, mining=mining, margin=MARGIN, impl=impl)
    margin = _margin(case)
    return lambda x, labels: contrastive_loss(
        x, labels, margin=margin, power=1, normalize=True, reduction="mean_active", impl=impl
    )


def _margin(case: Case) -> float:
    return families.quantile_margin(case.embeddings().float(), NEAR)


def _compiled(_: Case) -> Loss:
    torch._dynamo.reset()
    compiled = torch.compile(gram_batch_hard, fullgraph=True, dynamic=False)
    return lambda x, labels: compiled(x, labels, MARGIN)


def _contrastive_of_pml(case: Case) -> Loss:
    """All pairs: it is given no miner."""
    losses: Any = importlib.import_module("pytorch_metric_learning.losses")
    loss: Loss = losses.ContrastiveLoss(pos_margin=0, neg_margin=_margin(case))
    return loss


# By the name of a loss and of a contender.
LOSSES: dict[str, dict[str, Callable[[Case], Loss]]] = {
    HARD: {
        OURS: _ours,
        "eager": lambda _: lambda x, labels: gram_batch_hard(x, labels, MARGIN),
        "compiled": _compiled,
        "pytorch_metric_learning": lambda _: contenders.pytorch_metric_learning(),
        "sentence_transformers": lambda _: contenders.sentence_transformers(),
    },
    SEMIHARD: {
        OURS: _ours,
        "sentence_transformers": lambda _: families.peer_of(
            "BatchSemiHardTripletLoss", margin=MARGIN
        ),
    },
    CONTRASTIVE: {OURS: _ours, "pytorch_metric_learning": _contrastive_of_pml},
}


def check(case: Case, device: torch.device) -> dict[str, Any]:
    """Our loss against a float64 truth of the same rows; in float32, the gradient as well.

    The truth allows what float32 arithmetic may do; a gradient in fewer digits is not judged.
    """
    loss, grad = _value_and_gradient(LOSSES[case.loss][OURS](case), case.embeddings(), case, device)
    if case.loss == HARD:
        found = compare(loss, grad, truth_of(case, "drop"))
        loss_ratio, grad_ratio = found.loss_ratio, found.grad_ratio
        right = found.loss_ratio <= 1 and (found.holds or case.dtype != torch.float32)
    else:
        loss_ratio, grad_ratio = _beside_plain_torch(loss, grad, case, device)
        right = loss_ratio <= 1 and (grad_ratio <= 1 or case.dtype != torch.float32)
    return {"loss_ratio": loss_ratio, "grad_ratio": grad_ratio, "holds": right}


def _beside_plain_torch(
    loss: Tensor, grad: Tensor, case: Case, device: torch.device
) -> tuple[float, float]:
    """Errors against plain torch in float64: as parts of twice those of plain torch in float32 and
    two of its last digits."""
    plain, rows = _ours(case, "reference"), case.embeddings()
    truth = _value_and_gradient(plain, rows.double(), case, device)
    narrow = _value_and_gradient(plain, rows.float(), case, device)
    ratios = []
    for ours, base, exact in zip((loss, grad), narrow, truth, strict=True):
        error, of_torch = (float((each.double() - exact).abs().max()) for each in (ours, base))
        last = torch.finfo(torch.float32).eps * float(exact.abs().max())
        ratios.append(error / (2 * of_torch + 2 * last))
    return ratios[0], ratios[1]


def _value_and_gradient(
    loss: Loss, rows: Tensor, case: Case, device: torch.device
) -> tuple[Tensor, Tensor]:
    leaf = rows.to(device).requires_grad_()
    value = loss(leaf, case.labels().to(device))
    (grad,) = torch.autograd.grad(value, leaf)
    return value.detach().cpu(), grad.cpu()
