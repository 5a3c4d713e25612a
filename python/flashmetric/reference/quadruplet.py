# SPDX-License-Identifier: BSD-3-Clause
"""The quadruplet loss in plain torch: a triplet, and a second negative far from the first."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .distances import Distance, block_rows, rank_key
from .evaluation import (
    Metric,
    Pairs,
    Stats,
    active,
    given_rows,
    join,
    per_term,
    reduce,
    summary,
    term_weights,
)
from .mining import Comparison, Rule, list_triplets
from .rules import first_smallest


class Hinges(NamedTuple):
    """relu(d_ap - d_an1 + margin1) + relu(d_ap - d_n1n2 + margin2) of quadruplets."""

    margin1: float | Tensor  # a number, 0-dim or per anchor
    margin2: float | Tensor
    anchor: Tensor  # (T,)
    has_second: Tensor  # (T,) bool: the second term is absent where it is not

    def value(self, pairs: list[Pairs]) -> tuple[Tensor, list[Tensor]]:
        """(T,) loss, and d_ap, d_an1 and d_n1n2; pairs are those of the three distances."""
        fixed = [each.values() for each in pairs]
        first, second = (active(term) for term in self._terms(*fixed))
        live = (first | second, first, second)
        flowing = [
            each.flowing(values, on) for each, values, on in zip(pairs, fixed, live, strict=True)
        ]
        first, second = self._terms(*flowing)
        return first + second, fixed

    def _terms(self, dist_ap: Tensor, dist_an1: Tensor, dist_nn: Tensor) -> tuple[Tensor, Tensor]:
        margin1 = per_term(self.margin1, self.anchor, dist_ap.dtype)
        margin2 = per_term(self.margin2, self.anchor, dist_ap.dtype)
        second = (dist_ap - dist_nn + margin2).relu()
        return (dist_ap - dist_an1 + margin1).relu(), torch.where(self.has_second, second, 0)


def quadruplet_loss(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    margin1: float | Tensor = 1.0,
    margin2: float | Tensor = 0.5,
    distance: Distance = "sqeuclidean",
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
    """One quadruplet per anchor: the farthest positive, n1 = the nearest negative, and n2 = the
    reference nearest to n1 that is of another class than both."""
    comparison = Comparison(
        embeddings, labels, ref_embeddings, ref_labels, same_mask, self_index, ignore_label
    )
    metric = (distance, normalize)
    anchor, positive, first = list_triplets(comparison, Rule("hard"), *metric)
    second = second_negatives(comparison, anchor, first, metric)
    x, refs = comparison.embeddings, comparison.refs
    pairs = [
        Pairs(x, refs, anchor, positive, metric),
        Pairs(x, refs, anchor, first, metric),
        Pairs(refs, refs, first, second, metric),
    ]
    hinges = Hinges(margin1, margin2, anchor, second >= 0)
    value, (dist_ap, dist_an, _) = hinges.value(pairs)
    loss = reduce(value, term_weights(weights, anchor, value), reduction, anchor, len(x))
    stats = summary(anchor, value, dist_ap, dist_an, x)
    return (loss, stats) if return_stats else loss


def quadruplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative1: Tensor,
    negative2: Tensor,
    *,
    embeddings: Tensor | None = None,
    ref_embeddings: Tensor | None = None,
    margin1: float | Tensor = 1.0,
    margin2: float | Tensor = 0.5,
    distance: Distance = "sqeuclidean",
    normalize: bool = False,
    weights: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The same of given quadruplets: rows (T, D) each, or indices (T,) into `embeddings`."""
    metric = (distance, normalize)
    sides = (anchor, positive, negative1, negative2)
    a, p, n1, n2 = given_rows(sides, embeddings, ref_embeddings)
    number = torch.arange(len(anchor), device=anchor.device)
    hinges = Hinges(margin1, margin2, number, torch.ones_like(number, dtype=torch.bool))
    value, _ = hinges.value([join(a, p, metric), join(a, n1, metric), join(n1, n2, metric)])
    return reduce(value, term_weights(weights, number, value), reduction, number, len(number))


@torch.no_grad()
def second_negatives(
    comparison: Comparison, anchor: Tensor, first: Tensor, metric: Metric
) -> Tensor:
    """(T,) the reference nearest to reference `first` that is neither's class, or NONE.

    Never `first` itself, nor the anchor's own row. The first of equals; NaN beats numbers.
    """
    refs, labels = comparison.refs.detach(), comparison.ref_labels
    among_refs = comparison
    if comparison.ref_embeddings is not None:
        among_refs = Comparison(refs, labels, ignore_label=comparison.ignore_label)
    chosen = [first[:0]]
    size = block_rows(8 * len(refs))
    for a, n1 in zip(anchor.split(size), first.split(size), strict=True) if len(refs) else ():
        key = rank_key(refs[n1], refs, distance=metric[0], normalize=metric[1])
        allowed = comparison.candidates(a) & ~comparison.same(a)
        allowed &= among_refs.candidates(n1) & ~among_refs.same(n1)
        chosen.append(first_smallest(key, allowed))
    return torch.cat(chosen)
