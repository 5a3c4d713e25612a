# SPDX-License-Identifier: BSD-3-Clause
"""Contrastive losses in plain torch: a positive pair is pulled, a negative pair pushed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .distances import Distance, rank_key
from .evaluation import (
    Metric,
    Pairs,
    Related,
    Stats,
    active,
    given_rows,
    join,
    reduce,
    relate,
    summary,
    term_weights,
)
from .mining import Comparison


class Hinges(NamedTuple):
    """From the distance of a pair to its loss."""

    margin: float | Tensor  # a number or 0-dim, as pos_margin
    pos_margin: float | Tensor = 0.0
    power: int = 2
    half: bool = False

    def value(self, pairs: Pairs, same: Tensor) -> tuple[Tensor, Tensor]:
        """(T,) loss, and the distances as constants. Where the loss is 0 so is the gradient."""
        fixed = pairs.values()
        distance = pairs.flowing(fixed, active(self._gap(fixed, same)))
        value = self._gap(distance, same) ** self.power
        return (0.5 * value if self.half else value), fixed

    def _gap(self, distance: Tensor, same: Tensor) -> Tensor:
        margin, pos_margin = (
            each.to(distance.dtype) if isinstance(each, Tensor) else each
            for each in (self.margin, self.pos_margin)
        )
        return torch.where(same, distance - pos_margin, margin - distance).relu()


def contrastive_loss(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    margin: float | Tensor = 1.0,
    pos_margin: float | Tensor = 0.0,
    power: int = 2,
    half: bool = False,
    distance: Distance = "euclidean",
    normalize: bool = False,
    ref_embeddings: Tensor | None = None,
    ref_labels: Tensor | None = None,
    same_mask: Tensor | None = None,
    self_index: Tensor | None = None,
    ignore_label: float | None = None,
    weights: Tensor | None = None,
    reduction: str = "mean",
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, Stats]:
    """All pairs: relu(d - pos_margin)^power of the positive, relu(margin - d)^power of the others.

    Each anchor meets each candidate: without references every pair counts from both its ends.
    """
    comparison = Comparison(
        embeddings, labels, ref_embeddings, ref_labels, same_mask, self_index, ignore_label
    )
    related = relate(comparison)
    pairs = _pairs_of(comparison, related, (distance, normalize))
    value, fixed = Hinges(margin, pos_margin, power, half).value(pairs, related.same)
    weight = _pair_weights(comparison, related, weights, value)
    loss = _reduce_kinds(value, weight, related, reduction, len(embeddings))
    stats = _stats(comparison, related, value, fixed)
    return (loss, stats) if return_stats else loss


def contrastive_pairs_loss(
    x1: Tensor,
    x2: Tensor,
    similar: Tensor,
    *,
    embeddings: Tensor | None = None,
    ref_embeddings: Tensor | None = None,
    margin: float | Tensor = 1.0,
    pos_margin: float | Tensor = 0.0,
    power: int = 2,
    half: bool = False,
    distance: Distance = "euclidean",
    normalize: bool = False,
    weights: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The same of given pairs: rows (T, D) each, or indices (T,) into `embeddings`."""
    first, second = given_rows((x1, x2), embeddings, ref_embeddings)
    pairs = join(first, second, (distance, normalize))
    value, _ = Hinges(margin, pos_margin, power, half).value(pairs, similar != 0)
    number = torch.arange(len(value), device=value.device)
    return reduce(value, term_weights(weights, number, value), reduction, number, len(value))


def online_contrastive_loss(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    margin: float | Tensor = 1.0,
    distance: Distance = "euclidean",
    normalize: bool = False,
    ref_embeddings: Tensor | None = None,
    ref_labels: Tensor | None = None,
    same_mask: Tensor | None = None,
    self_index: Tensor | None = None,
    ignore_label: float | None = None,
    weights: Tensor | None = None,
    reduction: str = "sum",
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, Stats]:
    """Hard pairs of the batch: positives farther than the nearest negative pair, negatives nearer
    than the farthest positive pair; d^2 of the first, relu(margin - d)^2 of the second."""
    comparison = Comparison(
        embeddings, labels, ref_embeddings, ref_labels, same_mask, self_index, ignore_label
    )
    related = relate(comparison)
    hard = _hard_pairs(comparison, related, distance, normalize)
    chosen = Related(*(each[hard] for each in related))
    pairs = _pairs_of(comparison, chosen, (distance, normalize))
    found, _ = Hinges(margin).value(pairs, chosen.same)
    weight = _pair_weights(comparison, chosen, weights, found)
    loss = reduce(found, weight, reduction, chosen.anchor, len(embeddings))
    fixed = _pairs_of(comparison, related, (distance, normalize)).values()
    value = torch.zeros_like(fixed).masked_scatter(hard, found.detach())
    stats = _stats(comparison, related, value, fixed)
    return (loss, stats) if return_stats else loss


@torch.no_grad()
def _hard_pairs(
    comparison: Comparison, related: Related, distance: Distance, normalize: bool
) -> Tensor:
    """(T,) bool. A NaN bound takes every pair, and a NaN key is always taken: it must show."""
    same = related.same
    if not same.any() or same.all():
        return torch.zeros_like(same)
    keys = rank_key(
        comparison.embeddings.detach(),
        comparison.refs.detach(),
        distance=distance,
        normalize=normalize,
    )
    key = keys[related.anchor, related.other]
    nearest_negative, farthest_positive = key[~same].amin(), key[same].amax()
    return torch.where(same, ~(key <= nearest_negative), ~(key >= farthest_positive))


def _pairs_of(comparison: Comparison, related: Related, metric: Metric) -> Pairs:
    rows = (comparison.embeddings, comparison.refs)
    return Pairs(*rows, related.anchor, related.other, metric)


def _pair_weights(
    comparison: Comparison, related: Related, weights: Tensor | None, like: Tensor
) -> Tensor:
    """w_i w_j; references have no weights."""
    weight = term_weights(weights, related.anchor, like)
    if comparison.ref_embeddings is not None:
        return weight
    return weight * term_weights(weights, related.other, like)


def _reduce_kinds(
    value: Tensor, weights: Tensor, related: Related, reduction: str, size: int
) -> Tensor:
    """The mean of the positive pairs plus that of the negative pairs, or one for all pairs."""
    if reduction == "mean_pairs":
        reduction = "mean"
    elif reduction in ("mean", "mean_active"):
        kinds = (related.same, ~related.same)
        each = [
            reduce(value[kind], weights[kind], reduction, related.anchor[kind], size)
            for kind in kinds
        ]
        return each[0] + each[1]
    return reduce(value, weights, reduction, related.anchor, size)


def _stats(comparison: Comparison, related: Related, value: Tensor, distance: Tensor) -> Stats:
    x = comparison.embeddings
    complete = related.of_complete_anchors(len(x)).anchor
    return summary(complete, value, distance[related.same], distance[~related.same], x)
