# SPDX-License-Identifier: BSD-3-Clause
"""What the losses share: distances of chosen pairs, reductions and statistics."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .distances import Distance, block_rows, comparable, distance_of, root
from .mining import Comparison

Metric = tuple[Distance, bool]  # distance, normalize


class Stats(NamedTuple):
    """What a loss saw: 0-dim tensors of the loss dtype, on its device, without gradient.

    Without weights, and 0 where there is nothing to take a mean of. Distances are in the unit of
    `distance`. Which pairs d_ap and d_an run over depends on the loss: those of the mined triplets,
    or all positive and all negative pairs.
    """

    valid_anchors: Tensor  # a count: anchors that have a triplet
    active_fraction: Tensor  # of the triplets (or pairs), those whose loss is above 0
    mean_d_ap: Tensor
    mean_d_an: Tensor
    max_d_ap: Tensor
    min_d_an: Tensor
    mean_norm: Tensor  # of all rows on the anchor side, as given (before `normalize`)


class Pairs(NamedTuple):
    """Pairs of rows: x[first] with y[second]. A negative `second` is no row: its distance is 0."""

    x: Tensor
    y: Tensor
    first: Tensor  # (T,) int64
    second: Tensor  # (T,) int64
    metric: Metric

    @torch.no_grad()
    def values(self) -> Tensor:
        """(T,) distances, as constants."""
        known = (self.second >= 0).nonzero().squeeze(1)
        found = self._distances(known)
        return found.new_zeros(len(self.second)).index_copy(0, known, found)

    def flowing(self, values: Tensor, live: Tensor) -> Tensor:
        """`values()` with the gradient of the pairs that are live, (T,) bool.

        The others stay constants: next to inf or NaN autograd would say 0 * inf = NaN.
        """
        known = (live & (self.second >= 0)).nonzero().squeeze(1)
        return values.index_copy(0, known, self._distances(known))

    def _distances(self, known: Tensor) -> Tensor:
        """Distances of some of the pairs; equal pairs share one evaluation."""
        base = max(1, len(self.y))
        code, which = (self.first[known] * base + self.second[known]).unique(return_inverse=True)
        parts = code.split(block_rows(self.x.shape[1]))
        return torch.cat([self._distance(part // base, part % base) for part in parts])[which]

    def _distance(self, first: Tensor, second: Tensor) -> Tensor:
        x, y = (comparable(rows, *self.metric) for rows in (self.x[first], self.y[second]))
        distance = self.metric[0]
        if isinstance(distance, str):
            return distance_of(x, y, distance)
        # Pairs of one row of x follow each other: those that it is asked for and no others.
        each = first.unique_consecutive(return_counts=True)[1].tolist()
        runs = zip(x.split(each), y.split(each), strict=True) if each else ()
        found = [distance(x[:0], y[:0]).flatten(), *(distance(a[:1], b)[0] for a, b in runs)]
        return torch.cat(found)


Rows = tuple[Tensor, Tensor]  # a matrix, and (T,) int64 which of its rows


def given_rows(
    sides: tuple[Tensor, ...], embeddings: Tensor | None, ref_embeddings: Tensor | None
) -> list[Rows]:
    """The sides of given triplets or pairs: matrices (T, D), or indices (T,) into `embeddings`;
    all but the first into `ref_embeddings`, if given."""
    if embeddings is None:
        number = torch.arange(len(sides[0]), device=sides[0].device)
        return [(rows, number) for rows in sides]
    refs = embeddings if ref_embeddings is None else ref_embeddings
    return [(refs if n else embeddings, index) for n, index in enumerate(sides)]


def join(first: Rows, second: Rows, metric: Metric) -> Pairs:
    return Pairs(first[0], second[0], first[1], second[1], metric)


def active(value: Tensor) -> Tensor:
    """Which terms are above 0. A NaN is: it must show."""
    return ~(value <= 0)


def per_term(value: float | Tensor, anchor: Tensor, dtype: torch.dtype) -> float | Tensor:
    """A number or 0-dim tensor as it is; one of (B,) at the anchor of each term."""
    if not isinstance(value, Tensor):
        return value
    value = value.to(dtype)
    return value[anchor] if value.ndim else value


def term_weights(weights: Tensor | None, anchor: Tensor, like: Tensor) -> Tensor:
    return torch.ones_like(like) if weights is None else weights.to(like.dtype)[anchor]


def reduce(
    value: Tensor,
    weights: Tensor,
    reduction: str,
    anchor: Tensor,
    size: int,
    active_terms: Tensor | None = None,
) -> Tensor:
    """The loss of terms (T,) with their weights and anchors; size anchors for "none".

    active_terms (T,): how many a term counts for in "mean_active", if more than one.
    """
    terms = weights * value
    if reduction == "none":
        return terms.new_zeros(size).index_add(0, anchor, terms)
    if reduction == "sum":
        return terms.sum()
    if reduction == "mean_active":
        count = active(value) if active_terms is None else active_terms
        weights = torch.where(count > 0, weights * count, 0)
    return quotient(terms, weights)


def quotient(terms: Tensor, weights: Tensor) -> Tensor:
    """Sum of the terms by the sum of the weights; without weight 0, connected to the graph."""
    total = weights.sum()
    return terms[:0].sum() if total == 0 else terms.sum() / total


def summary(anchor: Tensor, value: Tensor, dist_ap: Tensor, dist_an: Tensor, rows: Tensor) -> Stats:
    """Statistics of terms (T,) with their anchors, and of distances; rows: the anchor side."""
    value, dist_ap, dist_an = (each.detach() for each in (value, dist_ap, dist_an))
    zero = value.new_zeros(())

    def mean(numbers: Tensor) -> Tensor:
        return numbers.mean() if len(numbers) else zero

    return Stats(
        valid_anchors=zero + len(anchor.unique()),
        active_fraction=mean(active(value).to(value.dtype)),
        mean_d_ap=mean(dist_ap),
        mean_d_an=mean(dist_an),
        max_d_ap=dist_ap.amax() if len(dist_ap) else zero,
        min_d_an=dist_an.amin() if len(dist_an) else zero,
        mean_norm=mean(root(rows.detach().to(value.dtype).square().sum(1))),
    )


class Related(NamedTuple):
    """Every pair of an anchor and a candidate, in order: anchor, other (T,), and are they same?"""

    anchor: Tensor
    other: Tensor
    same: Tensor

    def of_complete_anchors(self, size: int) -> Related:
        """The pairs of those of `size` anchors that have both a positive and a negative."""
        complete = torch.ones(size, dtype=torch.bool, device=self.same.device)
        for side in (self.same, ~self.same):
            has = torch.zeros_like(complete)
            has[self.anchor[side]] = True
            complete = complete & has
        kept = complete[self.anchor]
        return Related(self.anchor[kept], self.other[kept], self.same[kept])

    def split(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Positive pairs and negative pairs, (anchor, other) each."""
        same = self.same
        return (self.anchor[same], self.other[same]), (self.anchor[~same], self.other[~same])


@torch.no_grad()
def relate(comparison: Comparison) -> Related:
    rows = torch.arange(len(comparison.embeddings), device=comparison.embeddings.device)
    candidates = comparison.candidates(rows) & comparison.kept()[0][:, None]
    anchor, other = candidates.nonzero(as_tuple=True)
    return Related(anchor, other, comparison.same(rows)[anchor, other])
