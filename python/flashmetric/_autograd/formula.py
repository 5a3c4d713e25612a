# SPDX-License-Identifier: BSD-3-Clause
"""From chosen rows to the loss: the options of a loss, resolved."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Formula", "PairFormula", "margin_of"]


class Formula(NamedTuple):
    """From chosen rows to the loss."""

    margin: float | Tensor | None  # a number, 0-dim or (T,); None = 1 for the hinge, 0 for softplus
    weights: Tensor | None  # (T,)
    distance: str
    normalize: bool
    soft_margin: bool
    swap: bool
    count_invalid: bool
    reduction: str
    with_stats: bool


class PairFormula(NamedTuple):
    """From pairs of rows to the contrastive loss."""

    margin: float | Tensor  # a number or 0-dim: negatives nearer than it count
    pos_margin: float | Tensor  # likewise: positives farther than it count
    power: int  # 1 or 2, of the excess
    half: bool  # halves every value
    weights: Tensor | None  # (B,)
    distance: str
    normalize: bool
    reduction: str
    with_stats: bool


def margin_of(margin: float | Tensor | None, default: float) -> tuple[float, Tensor | None]:
    """A number, or in its place a tensor."""
    if isinstance(margin, Tensor):
        return 0.0, margin
    return (default if margin is None else float(margin)), None
