# SPDX-License-Identifier: BSD-3-Clause
"""Do two ways of computing the loss agree? Asked before anything is timed.

The truth is computed here in float64, row block by row block, without any code of the library.
What a float32 contender may differ by is derived, not chosen:

  - A squared distance out of the expansion |x|^2 + |r|^2 - 2 <x, r> of D features is off by at
    most `bound` = (D + 8) u (|x| + |r|)^2, u = 2^-24 (Higham 2002, section 3.1). A distance d is
    then off by bound / (2 d), and its gradient (x - r) / d by the relative amount
    bound / (2 d^2), plus the rounding of the sum over the terms of a row.
  - Where the best and another candidate are closer than 2 bound, either may be chosen. The loss
    may then move by one more such distance, and the gradients of the rows concerned are left
    out (`rows_checked` says how many remain). The same goes for a hinge that may be open or shut.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flashmetric.cli.bench.problems import MARGIN, Problem

__all__ = ["Agreement", "Truth", "compare", "truth_of"]

UNIT_ROUNDOFF = 2.0**-24
# 256 rows of float64 against 8192 columns are 16 MiB, and the masks as much again.
BLOCK_ROWS = 256


@dataclass(frozen=True)
class Truth:
    """Loss and gradient in float64, and what float32 may make of them."""

    loss: float
    grad: Tensor  # (B, D) float64
    loss_tolerance: float
    row_tolerance: Tensor  # (B,) bound on the norm of the error of a gradient row
    settled: Tensor  # (B,) bool: rows whose gradient depends on no near-tie


@dataclass(frozen=True)
class Agreement:
    """How far a contender was from the truth, as a fraction of what is allowed."""

    loss_error: float
    loss_ratio: float
    grad_ratio: float
    rows_checked: int

    @property
    def holds(self) -> bool:
        return self.loss_ratio <= 1.0 and self.grad_ratio <= 1.0 and self.rows_checked > 0


@dataclass(frozen=True)
class _Side:
    """One of the two distances of every anchor."""

    other: Tensor  # (B,) int64: the row it leads to, 0 where there is none
    exists: Tensor  # (B,) bool


@dataclass(frozen=True)
class _Choice:
    positive: _Side
    negative: _Side
    touched: Tensor  # (B,) bool: rows that an undecided choice concerns
    bound: Tensor  # (B,) error of a squared distance of this anchor
    norm_sum: float  # the largest |x| + |r|


def compare(loss: Tensor, grad: Tensor, truth: Truth) -> Agreement:
    """Measure a contender's loss and gradient against the truth."""
    loss_error = abs(float(loss) - truth.loss)
    row_error = torch.linalg.vector_norm(grad.double() - truth.grad, dim=1)
    # NaN must not slip through a comparison.
    ratios = (row_error / truth.row_tolerance).nan_to_num(nan=math.inf)[truth.settled]
    return Agreement(
        loss_error=loss_error,
        loss_ratio=loss_error / truth.loss_tolerance if loss_error == loss_error else math.inf,
        grad_ratio=float(ratios.max()) if len(ratios) else math.inf,
        rows_checked=len(ratios),
    )


def truth_of(problem: Problem, invalid: str) -> Truth:
    """Loss, gradient and tolerances of a problem; `invalid` is "drop" or "count"."""
    rows = problem.embeddings().double().requires_grad_()
    with torch.no_grad():
        choice = _choose(rows, problem.labels())
    sides = (choice.positive, choice.negative)
    dist_ap, dist_an = (torch.linalg.vector_norm(rows - rows[side.other], dim=1) for side in sides)
    dist_ap = torch.where(choice.positive.exists, dist_ap, 0.0)
    dist_an = torch.where(choice.negative.exists, dist_an, dist_ap)
    counted = choice.positive.exists & choice.negative.exists
    if invalid == "count":
        counted = torch.ones_like(counted)
    weight = counted.double() / counted.sum().clamp(min=1)
    violation = dist_ap - dist_an + MARGIN
    loss = (weight * torch.relu(violation)).sum()
    loss.backward()
    assert rows.grad is not None

    distances = (dist_ap.detach(), dist_an.detach())
    off_ap, off_an = _distance_errors(choice, distances)
    off = off_ap + off_an
    undecided_hinge = counted & (violation.detach().abs() <= off)
    settled = ~(choice.touched | _reached(undecided_hinge, choice))
    rounding = (math.log2(len(weight)) + 8) * UNIT_ROUNDOFF * (float(loss.detach()) + MARGIN)
    return Truth(
        loss=float(loss.detach()),
        grad=rows.grad,
        loss_tolerance=3.0 * float((weight * off).sum()) + rounding,
        row_tolerance=_row_tolerance(choice, distances, weight),
        settled=settled,
    )


def _choose(rows: Tensor, labels: Tensor) -> _Choice:
    """Farthest positive and nearest negative of each row, and which choices are undecided."""
    batch, dim = rows.shape
    norms = torch.linalg.vector_norm(rows, dim=1)
    bound = (dim + 8) * UNIT_ROUNDOFF * (norms + norms.max()) ** 2
    touched = torch.zeros(batch, dtype=torch.bool)
    found: list[tuple[Tensor, ...]] = []
    for start in range(0, batch, BLOCK_ROWS):
        block = torch.arange(start, min(start + BLOCK_ROWS, batch))
        dist_sq = norms[block, None] ** 2 + norms**2 - 2.0 * (rows[block] @ rows.T)
        different = labels[block, None] != labels
        same = ~different
        same[torch.arange(len(block)), block] = False
        farthest, positive = dist_sq.masked_fill(~same, -torch.inf).max(1)
        nearest, negative = dist_sq.masked_fill(~different, torch.inf).min(1)
        found.append((positive, farthest > -torch.inf, negative, nearest < torch.inf))

        slack = 2.0 * bound[block]
        near_positive = same & (dist_sq >= (farthest - slack)[:, None])
        near_negative = different & (dist_sq <= (nearest + slack)[:, None])
        undecided = (near_positive.sum(1) > 1) | (near_negative.sum(1) > 1)
        touched |= (near_positive | near_negative)[undecided].any(0)
        touched[block] |= undecided
    positive, has_positive, negative, has_negative = map(torch.cat, zip(*found, strict=True))
    return _Choice(
        _Side(positive, has_positive),
        _Side(negative, has_negative),
        touched,
        bound,
        norm_sum=2.0 * float(norms.max()),
    )


def _distance_errors(choice: _Choice, distances: tuple[Tensor, Tensor]) -> list[Tensor]:
    """What the two distances of every anchor may be off by: (B,) each."""
    sides = (choice.positive, choice.negative)
    return [
        torch.where(side.exists, choice.bound / (2.0 * dist), 0.0)
        for side, dist in zip(sides, distances, strict=True)
    ]


def _row_tolerance(
    choice: _Choice,
    distances: tuple[Tensor, Tensor],  # (B,) each: d_ap, d_an
    weight: Tensor,  # (B,)
) -> Tensor:
    """What the norm of a gradient row may be off by: (B,)."""
    anchors = torch.arange(len(weight))
    sides = (choice.positive, choice.negative)
    terms = torch.full_like(weight, 2.0)
    for side in sides:
        terms.index_add_(0, side.other, side.exists.double())
    tolerance = torch.full_like(weight, torch.finfo(torch.float32).tiny)
    errors = _distance_errors(choice, distances)
    for side, dist, error in zip(sides, distances, errors, strict=True):
        for rows in (anchors, side.other):
            rounding = (terms[rows] + 8) * UNIT_ROUNDOFF * choice.norm_sum
            part = weight * (error + rounding) / dist
            tolerance.index_add_(0, rows, torch.where(side.exists, part, 0.0))
    return tolerance


def _reached(anchors: Tensor, choice: _Choice) -> Tensor:
    """Rows that the triplets of these anchors write to: (B,) bool."""
    rows = anchors.clone()
    for side in (choice.positive, choice.negative):
        rows[side.other[anchors & side.exists]] = True
    return rows
