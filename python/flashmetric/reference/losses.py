# SPDX-License-Identifier: BSD-3-Clause
"""Triplet losses in plain torch: distances of chosen rows, then a hinge, then a reduction."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .distances import comparable, distance_of, root
from .mining import IGNORED, NONE, Comparison, choose

Metric = tuple[str, bool]  # distance, normalize


class Stats(NamedTuple):
    """What a triplet loss saw: 0-dim tensors of the loss dtype, on its device, without gradient.

    Means and extremes run over the valid anchors (those with a positive and a negative), without
    weights, and are 0 when there is none. Distances are in the unit of `distance`.
    """

    valid_anchors: Tensor  # a count
    active_fraction: Tensor  # of the valid anchors, those whose loss is above 0
    mean_d_ap: Tensor
    mean_d_an: Tensor
    max_d_ap: Tensor
    min_d_an: Tensor
    mean_norm: Tensor  # of all rows on the anchor side, as given (before `normalize`)


class Formula(NamedTuple):
    """From distances to the loss."""

    margin: float | Tensor | None  # a number, 0-dim or (T,); None = 1 for the hinge, 0 for softplus
    soft_margin: bool
    weights: Tensor | None  # (T,)
    reduction: str

    def value(self, dist_ap: Tensor, dist_an: Tensor) -> Tensor:
        """(T,) loss of each triplet."""
        margin = self.margin
        if margin is None:
            margin = 0.0 if self.soft_margin else 1.0
        elif isinstance(margin, Tensor):
            margin = margin.to(dist_ap.dtype)
        violation = dist_ap - dist_an + margin
        if self.soft_margin:
            return torch.logaddexp(violation, torch.zeros_like(violation))
        return violation.relu()

    def reduce(self, value: Tensor, counted: Tensor) -> Tensor:
        weights = torch.ones_like(value) if self.weights is None else self.weights.to(value.dtype)
        if self.reduction == "none":
            return torch.where(counted, weights * value, 0)
        weights, value = weights[counted], value[counted]
        terms = weights * value
        if self.reduction == "sum":
            return terms.sum()
        if self.reduction == "mean_active":
            weights = weights[~(value <= 0)]  # a NaN counts: it must show
        total = weights.sum()
        return terms[:0].sum() if total == 0 else terms.sum() / total


def triplet_loss(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    margin: float | Tensor | None = None,
    mining: str = "hard",
    distance: str = "euclidean",
    normalize: bool = False,
    soft_margin: bool = False,
    ref_embeddings: Tensor | None = None,
    ref_labels: Tensor | None = None,
    same_mask: Tensor | None = None,
    self_index: Tensor | None = None,
    ignore_label: float | None = None,
    weights: Tensor | None = None,
    invalid: str = "drop",
    reduction: str = "mean",
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, Stats]:
    """One mined triplet per anchor: max(0, d_ap - d_an + margin) or softplus of it, reduced."""
    comparison = Comparison(
        embeddings, labels, ref_embeddings, ref_labels, same_mask, self_index, ignore_label
    )
    formula = Formula(margin, soft_margin, weights, reduction)
    loss, stats = mined_loss(comparison, (mining, distance, normalize), formula, invalid)
    return (loss, stats) if return_stats else loss


def mined_loss(
    comparison: Comparison, choice: tuple[str, str, bool], formula: Formula, invalid: str
) -> tuple[Tensor, Stats]:
    """`triplet_loss`, its arguments in groups; choice = (mining, distance, normalize)."""
    positive, negative = choose(comparison, *choice)
    valid = (positive >= 0) & (negative >= 0)
    counted = positive != IGNORED if invalid == "count" else valid
    # Without a negative d_an := d_ap: no distance is left in the violation, so none is taken.
    positive = torch.where(negative >= 0, positive, NONE)
    x, refs = comparison.embeddings, comparison.refs

    def distances(live: Tensor) -> tuple[Tensor, Tensor]:
        dist_ap = _chosen_distance(x, refs, positive, live, choice[1:])
        return dist_ap, _chosen_distance(x, refs, negative, live, choice[1:])

    return _evaluate(formula, distances, x, valid, counted)


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    embeddings: Tensor | None = None,
    ref_embeddings: Tensor | None = None,
    margin: float | Tensor | None = None,
    distance: str = "euclidean",
    normalize: bool = False,
    swap: bool = False,
    soft_margin: bool = False,
    weights: Tensor | None = None,
    reduction: str = "mean",
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, Stats]:
    """The same loss of given triplets: rows (T, D) each, or indices (T,) into `embeddings`."""
    anchor_rows = anchor if embeddings is None else embeddings
    if embeddings is not None:
        refs = embeddings if ref_embeddings is None else ref_embeddings
        anchor, positive, negative = embeddings[anchor], refs[positive], refs[negative]
    metric = (distance, normalize)

    def distances(live: Tensor) -> tuple[Tensor, Tensor]:
        dist_ap = _live_distance(anchor, positive, live, metric)
        dist_an = _live_distance(anchor, negative, live, metric)
        if swap:  # torch.minimum splits the gradient of a tie in half
            dist_an = torch.minimum(dist_an, _live_distance(positive, negative, live, metric))
        return dist_ap, dist_an

    every = torch.ones(len(anchor), dtype=torch.bool, device=anchor.device)
    formula = Formula(margin, soft_margin, weights, reduction)
    loss, stats = _evaluate(formula, distances, anchor_rows, every, every)
    return (loss, stats) if return_stats else loss


def _evaluate(
    formula: Formula,
    distances: Callable[[Tensor], tuple[Tensor, Tensor]],
    anchor_rows: Tensor,
    valid: Tensor,
    counted: Tensor,
) -> tuple[Tensor, Stats]:
    """The loss and its statistics. `distances(live)` is (d_ap, d_an), with gradient where live.

    A triplet that is not counted, or whose loss is 0, has a zero gradient even next to inf or NaN,
    where plain autograd says 0 * inf = NaN: hence a first look without gradient.
    """
    with torch.no_grad():
        live = counted & ~(formula.value(*distances(counted)) <= 0)  # NaN is live: it must show
    dist_ap, dist_an = distances(live)
    value = formula.value(dist_ap, dist_an)
    loss = formula.reduce(value, counted)
    norm = root(anchor_rows.detach().to(value.dtype).square().sum(1))
    value, dist_ap, dist_an = (each.detach()[valid] for each in (value, dist_ap, dist_an))
    return loss, _stats(value, dist_ap, dist_an, norm)


def _stats(value: Tensor, dist_ap: Tensor, dist_an: Tensor, norm: Tensor) -> Stats:
    zero = norm.new_zeros(())
    count = zero + len(value)
    mean_norm = norm.mean() if len(norm) else zero
    if not len(value):
        return Stats(count, zero, zero, zero, zero, zero, mean_norm)
    active = (~(value <= 0)).to(value.dtype)
    mean_active, mean_ap, mean_an = (each.mean() for each in (active, dist_ap, dist_an))
    return Stats(count, mean_active, mean_ap, mean_an, dist_ap.amax(), dist_an.amin(), mean_norm)


def _live_distance(x: Tensor, y: Tensor, live: Tensor, metric: Metric) -> Tensor:
    """Distance of row t to row t; no gradient passes where live[t] is false."""
    rows = (torch.where(live[:, None], side, side.detach()) for side in (x, y))
    x, y = (comparable(side, *metric) for side in rows)
    return distance_of(x, y, metric[0])


def _chosen_distance(
    x: Tensor, refs: Tensor, chosen: Tensor, live: Tensor, metric: Metric
) -> Tensor:
    """(B,) distance of row i of x to refs[chosen[i]]; a constant 0 where nothing is chosen."""
    rows = (chosen >= 0).nonzero().squeeze(1)
    found = _live_distance(x[rows], refs[chosen[rows]], live[rows], metric)
    return found.new_zeros(len(x)).index_copy(0, rows, found)
