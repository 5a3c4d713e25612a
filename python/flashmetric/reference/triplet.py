# SPDX-License-Identifier: BSD-3-Clause
"""Triplet losses in plain torch: distances of chosen rows, then a hinge, then a reduction."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .distances import Distance
from .evaluation import (
    Metric,
    Pairs,
    Stats,
    active,
    given_rows,
    join,
    per_term,
    reduce,
    relate,
    summary,
    term_weights,
)
from .mining import IGNORED, NONE, Comparison, Rule, Triplets, choose_hard, list_triplets

# Sets of triplets: most have no loss, so the mean is over those that have.
SETS = ("all", "semihard_all", "hard_all", "easy_all")


class Formula(NamedTuple):
    """From distances to the loss."""

    margin: float | Tensor | None  # a number, 0-dim or per anchor; None = 1 for the hinge, else 0
    soft_margin: bool
    weights: Tensor | None  # per anchor
    reduction: str

    @property
    def resolved_margin(self) -> float | Tensor:
        if self.margin is None:
            return 0.0 if self.soft_margin else 1.0
        return self.margin

    def value(self, dist_ap: Tensor, dist_an: Tensor, anchor: Tensor) -> Tensor:
        """(T,) loss of each triplet."""
        margin = per_term(self.resolved_margin, anchor, dist_ap.dtype)
        violation = dist_ap - dist_an + margin
        if self.soft_margin:
            return torch.logaddexp(violation, torch.zeros_like(violation))
        return violation.relu()

    def reduce(self, value: Tensor, anchor: Tensor, size: int, *, sets: bool = False) -> Tensor:
        reduction = "mean_active" if sets and self.reduction == "mean" else self.reduction
        return reduce(value, term_weights(self.weights, anchor, value), reduction, anchor, size)


def triplet_loss(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    margin: float | Tensor | None = None,
    mining: str = "hard",
    distance: Distance = "euclidean",
    normalize: bool = False,
    soft_margin: bool = False,
    fallback: str = "farthest",
    hardness: float | Tensor | None = None,
    mining_margin: float | Tensor | None = None,
    positive_mining: str = "easy",
    negative_mining: str = "semihard",
    n_negatives: int = 1,
    temperature: float = 1.0,
    detach_weights: bool = False,
    generator: torch.Generator | None = None,
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
    """Mined triplets: max(0, d_ap - d_an + margin) or softplus of it, reduced."""
    comparison = Comparison(
        embeddings, labels, ref_embeddings, ref_labels, same_mask, self_index, ignore_label
    )
    options = (fallback, hardness, mining_margin, positive_mining, negative_mining, n_negatives)
    rule = Rule(mining, *options, temperature=temperature, detach_weights=detach_weights)
    formula = Formula(margin, soft_margin, weights, reduction)
    choice = (rule.seeded(generator), distance, normalize)
    loss, stats = mined_loss(comparison, choice, formula, invalid)
    return (loss, stats) if return_stats else loss


def mined_loss(
    comparison: Comparison, choice: tuple[Rule, Distance, bool], formula: Formula, invalid: str
) -> tuple[Tensor, Stats]:
    """`triplet_loss`, its arguments in groups; choice = (rule, distance, normalize)."""
    rule, metric = choice[0], choice[1:]
    if rule.name == "soft":
        return _soft_loss(comparison, rule, metric, formula)
    if rule.mining_margin is None:
        rule = rule._replace(mining_margin=formula.resolved_margin)
    triplets = counted_triplets(comparison, rule, metric, count_invalid=invalid == "count")
    x, refs, anchor = comparison.embeddings, comparison.refs, triplets.anchor
    pairs = [Pairs(x, refs, anchor, other, metric) for other in triplets[1:]]
    value, dist_ap, dist_an = _evaluate(formula, pairs, anchor)
    loss = formula.reduce(value, anchor, len(x), sets=rule.name in SETS)
    return loss, mined_stats(comparison, rule, metric, triplets, (value, dist_ap, dist_an))


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    embeddings: Tensor | None = None,
    ref_embeddings: Tensor | None = None,
    margin: float | Tensor | None = None,
    distance: Distance = "euclidean",
    normalize: bool = False,
    swap: bool = False,
    soft_margin: bool = False,
    weights: Tensor | None = None,
    reduction: str = "mean",
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, Stats]:
    """The same loss of given triplets: rows (T, D) each, or indices (T,) into `embeddings`."""
    metric = (distance, normalize)
    a, p, n = given_rows((anchor, positive, negative), embeddings, ref_embeddings)
    pairs = [join(a, p, metric), join(a, n, metric)]
    if swap:
        pairs.append(join(p, n, metric))
    number = torch.arange(len(anchor), device=anchor.device)
    formula = Formula(margin, soft_margin, weights, reduction)
    value, dist_ap, dist_an = _evaluate(formula, pairs, number)
    loss = formula.reduce(value, number, len(number))
    stats = summary(number, value, dist_ap, dist_an, a[0])
    return (loss, stats) if return_stats else loss


def counted_triplets(
    comparison: Comparison, rule: Rule, metric: Metric, *, count_invalid: bool = False
) -> Triplets:
    """The triplets of a loss. Those that are only counted have NONE for what they lack."""
    if rule.name != "hard" or not count_invalid:
        return list_triplets(comparison, rule, *metric, uncovered=count_invalid)
    positive, negative = choose_hard(comparison, *metric)
    # Without a negative d_an := d_ap: no distance is left in the violation, so none is taken.
    positive = torch.where((negative >= 0) | (positive == IGNORED), positive, NONE)
    anchor = (positive != IGNORED).nonzero().squeeze(1)
    return Triplets(anchor, positive[anchor], negative[anchor])


def mined_stats(
    comparison: Comparison,
    rule: Rule,
    metric: Metric,
    triplets: Triplets,
    terms: tuple[Tensor, Tensor, Tensor],
) -> Stats:
    """Statistics of the triplets that are whole; terms = (value, d_ap, d_an) of all.

    A pair is in many triplets of a set: there the distances are those of each pair once.
    """
    whole = (triplets.positive >= 0) & (triplets.negative >= 0)
    value, dist_ap, dist_an = (each[whole] for each in terms)
    x, refs = comparison.embeddings, comparison.refs
    if rule.name in SETS:
        sides = relate(comparison).of_complete_anchors(len(x)).split()
        dist_ap, dist_an = (Pairs(x, refs, *side, metric).values() for side in sides)
    return summary(triplets.anchor[whole], value, dist_ap, dist_an, x)


def _evaluate(
    formula: Formula, pairs: list[Pairs], anchor: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Value, d_ap and d_an of triplets; pairs: (a, p), (a, n) and, to swap, (p, n).

    A triplet whose loss is 0 has a zero gradient even next to inf or NaN: hence a first look.
    """

    def swapped(dist_ap: Tensor, dist_an: Tensor, *dist_pn: Tensor) -> tuple[Tensor, Tensor]:
        for other in dist_pn:  # torch.minimum splits the gradient of a tie in half
            dist_an = torch.minimum(dist_an, other)
        return dist_ap, dist_an

    fixed = [each.values() for each in pairs]
    live = active(formula.value(*swapped(*fixed), anchor))
    dist_ap, dist_an = swapped(
        *(each.flowing(values, live) for each, values in zip(pairs, fixed, strict=True))
    )
    return formula.value(dist_ap, dist_an, anchor), dist_ap, dist_an


def _soft_loss(
    comparison: Comparison, rule: Rule, metric: Metric, formula: Formula
) -> tuple[Tensor, Stats]:
    """One triplet per valid anchor: of the means of d_ap and of d_an by softmax weights."""
    x, refs = comparison.embeddings, comparison.refs
    sides = relate(comparison).of_complete_anchors(len(x)).split()
    anchor = sides[0][0].unique()
    pairs = [Pairs(x, refs, *side, metric) for side in sides]
    row = [torch.searchsorted(anchor, each.first) for each in pairs]

    def means(dist_ap: Tensor, dist_an: Tensor) -> tuple[Tensor, Tensor]:
        mean = partial(_softmax_mean, size=len(anchor), detached=rule.detach_weights)
        far, near = dist_ap / rule.temperature, -dist_an / rule.temperature
        return mean(dist_ap, far, row[0]), mean(dist_an, near, row[1])

    fixed = [each.values() for each in pairs]
    live = active(formula.value(*means(*fixed), anchor))
    flowing = [
        each.flowing(values, live[at]) for each, values, at in zip(pairs, fixed, row, strict=True)
    ]
    dist_ap, dist_an = means(*flowing)
    value = formula.value(dist_ap, dist_an, anchor)
    stats = summary(anchor, value, dist_ap, dist_an, x)
    return formula.reduce(value, anchor, len(x)), stats


def _softmax_mean(
    distance: Tensor, logit: Tensor, row: Tensor, *, size: int, detached: bool
) -> Tensor:
    """(size,) mean of the distances of each row, weighted by the softmax of its logits."""
    logit = logit.detach() if detached else logit
    lowest = logit.detach().new_full((size,), -torch.inf)
    top = lowest.scatter_reduce(0, row, logit.detach(), "amax")
    weight = (logit - top[row]).exp()
    total = weight.new_zeros(size).index_add(0, row, weight)
    return distance.new_zeros(size).index_add(0, row, weight / total[row] * distance)
