# SPDX-License-Identifier: BSD-3-Clause
"""The margin loss in plain torch: a boundary that positives stay within and negatives beyond."""

from __future__ import annotations

import torch
from torch import Tensor

from .distances import Distance
from .evaluation import Pairs, Stats, active, per_term, reduce, term_weights
from .mining import Comparison, Rule, list_triplets
from .triplet import mined_stats


def margin_loss(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    beta: float | Tensor = 1.2,
    margin: float | Tensor = 0.2,
    mining: str = "distance_weighted",
    distance: Distance = "euclidean",
    normalize: bool = True,
    fallback: str = "farthest",
    hardness: float | Tensor | None = None,
    mining_margin: float | Tensor | None = None,
    positive_mining: str = "easy",
    negative_mining: str = "semihard",
    n_negatives: int = 1,
    generator: torch.Generator | None = None,
    ref_embeddings: Tensor | None = None,
    ref_labels: Tensor | None = None,
    same_mask: Tensor | None = None,
    self_index: Tensor | None = None,
    ignore_label: float | None = None,
    weights: Tensor | None = None,
    reduction: str = "mean",
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, Stats]:
    """relu(d_ap - beta + margin) + relu(beta - d_an + margin) of mined triplets.

    beta: a number, 0-dim or (B,), with gradient if it requires it.
    """
    comparison = Comparison(
        embeddings, labels, ref_embeddings, ref_labels, same_mask, self_index, ignore_label
    )
    mining_margin = margin if mining_margin is None else mining_margin
    options = (fallback, hardness, mining_margin, positive_mining, negative_mining, n_negatives)
    rule = Rule(mining, *options).seeded(generator)
    loss, stats = boundary_loss(
        comparison, (rule, distance, normalize), (beta, margin), (weights, reduction)
    )
    return (loss, stats) if return_stats else loss


def boundary_loss(
    comparison: Comparison,
    choice: tuple[Rule, Distance, bool],
    boundary: tuple[float | Tensor, float | Tensor],
    reduced: tuple[Tensor | None, str],
) -> tuple[Tensor, Stats]:
    """`margin_loss`, its arguments in groups: choice = (rule, distance, normalize), boundary =
    (beta, margin), reduced = (weights, reduction)."""
    rule, metric = choice[0], choice[1:]
    triplets = list_triplets(comparison, rule, *metric)
    x, refs, anchor = comparison.embeddings, comparison.refs, triplets.anchor
    pairs = [Pairs(x, refs, anchor, other, metric) for other in triplets[1:]]

    def hinges(dist_ap: Tensor, dist_an: Tensor) -> tuple[Tensor, Tensor]:
        beta, margin = (per_term(each, anchor, dist_ap.dtype) for each in boundary)
        return (dist_ap - beta + margin).relu(), (beta - dist_an + margin).relu()

    fixed = [each.values() for each in pairs]
    live = [active(term) for term in hinges(*fixed)]
    pulled, pushed = hinges(
        *(each.flowing(values, on) for each, values, on in zip(pairs, fixed, live, strict=True))
    )
    value = pulled + pushed
    weight = term_weights(reduced[0], anchor, value)
    count = (live[0].int() + live[1].int()).to(value.dtype)
    loss = reduce(value, weight, reduced[1], anchor, len(x), count)
    return loss, mined_stats(comparison, rule, metric, triplets, (value, fixed[0], fixed[1]))
