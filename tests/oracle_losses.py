# SPDX-License-Identifier: BSD-3-Clause
"""The losses over lists of triplets once more: all distances, the terms of the listed triplets, and
the slope of the loss by every distance, which `Sides.gradients` takes back to the rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oracle import Array, Outcome, pair_distances, times, value_and_slope

ROW_STATS = ("valid_anchors", "active_fraction", "mean_d_ap", "mean_d_an", "max_d_ap", "min_d_an")


@dataclass
class Sides:
    """Queries and references, and the distance of any two."""

    x: Array  # (B, D)
    r: Array  # (R, D)
    distance: str
    normalize: bool

    def distances(self) -> Array:
        values = np.zeros((len(self.x), len(self.r)), self.x.dtype)
        for i in range(len(self.x)):
            values[i] = self._from(i, np.arange(len(self.r)))[0]
        return values

    def gradients(self, slopes: Array) -> list[Array]:
        """By x and by r, given that by each distance. A slope of 0 gives 0, next to NaN too."""
        grad_x, grad_r = np.zeros_like(self.x), np.zeros_like(self.r)
        for i in range(len(self.x)):
            live = np.flatnonzero(slopes[i] != 0)
            _, from_x, from_r = self._from(i, live)
            grad_x[i] = (slopes[i, live, None] * from_x).sum(0)
            grad_r[live] += slopes[i, live, None] * from_r
        return [grad_x, grad_r]

    def _from(self, i: int, columns: Array) -> tuple[Array, ...]:
        refs = self.r[columns]
        row = np.broadcast_to(self.x[i], refs.shape)
        return pair_distances(row, refs, self.distance, self.normalize)


@dataclass
class Reduction:
    name: str
    weights: Array  # (B,), or (B, R) for pairs
    cotangent: Array

    @property
    def only_active(self) -> bool:
        return self.name == "mean_active"


@dataclass
class TripletLoss:
    """From distances to the loss."""

    margin: Array  # (B,)
    soft_margin: bool
    reduction: Reduction

    def value_and_slope(self, beyond: Array, anchors: Array) -> tuple[Array, Array]:
        """Of d_ap - d_an, for each triplet of these anchors."""
        return value_and_slope(beyond + self.margin[anchors], self.soft_margin)


@dataclass
class Terms:
    """What is added up: the value of each term, its weight, and the anchor it belongs to."""

    value: Array  # (T,)
    weight: Array  # (T,)
    anchor: Array  # (T,) int64
    n_anchors: int

    def active(self) -> Array:
        return ~(self.value <= 0)  # NaN is active: it must show

    def counted(self, only_active: bool) -> Array:
        return self.active() if only_active else np.ones(len(self.value), bool)

    def reduced(self, reduction: Reduction, counted: Array) -> tuple[Array, Array]:
        """The loss, and what multiplies the slope of each term on the way back. A mean divides by
        the weights, each as often as `counted` (T,) says."""
        weighted, cotangent = self.weight * self.value, reduction.cotangent
        if reduction.name == "none":
            sums = np.zeros(self.n_anchors, self.value.dtype)
            np.add.at(sums, self.anchor, weighted)
            return sums, self.weight * np.broadcast_to(cotangent, self.n_anchors)[self.anchor]
        if reduction.name == "sum":
            return weighted.sum(), self.weight * cotangent
        denominator = (self.weight * counted).sum()
        if denominator == 0:
            return weighted.sum() * 0, self.weight * 0
        return weighted.sum() / denominator, self.weight * cotangent / denominator


def list_outcome(
    sides: Sides,
    triplets: Array,
    uncovered: Array,
    loss_of: TripletLoss,
    masks: tuple[Array, Array] | None,
) -> Outcome:
    """Triplets (T, 3), and pairs (P, 2) that count without a negative, its distance taken as 0.

    `masks`: for "all" and the sets, the positive and the negative pairs (B, R); their mean is over
    active triplets and their statistics over pairs.
    """
    d = sides.distances()
    a, p, n = triplets.T
    d_ap, d_an = d[a, p], d[a, n]
    anchors = np.concatenate([a, uncovered[:, 0]])
    beyond = np.concatenate([d_ap - d_an, d[uncovered[:, 0], uncovered[:, 1]]])
    value, slope = loss_of.value_and_slope(beyond, anchors)
    reduction = loss_of.reduction
    terms = Terms(value, reduction.weights[anchors], anchors, len(d))
    only_active = masks is not None or reduction.only_active
    loss, factor = terms.reduced(reduction, terms.counted(only_active))
    slopes = np.zeros_like(d)
    np.add.at(slopes, (anchors, np.concatenate([p, uncovered[:, 1]])), slope * factor)
    np.add.at(slopes, (a, n), -(slope * factor)[: len(a)])
    if masks is not None:
        d_ap, d_an = d[masks[0]], d[masks[1]]
    numbers = (len(np.unique(a)), terms.active()[: len(a)], d_ap, d_an)
    return Outcome(loss, sides.gradients(slopes), statistics(*numbers, sides.x))


def soft_outcome(
    sides: Sides,
    masks: tuple[Array, Array],
    loss_of: TripletLoss,
    temperature: float,
    detach_weights: bool,
) -> Outcome:
    """Per anchor the mean distance of its positives and of its negatives under softmax weights."""
    d = sides.distances()
    valid = np.flatnonzero(masks[0].any(1) & masks[1].any(1))
    means, slopes = np.zeros((2, len(valid)), d.dtype), np.zeros((2, *d.shape), d.dtype)
    for side, sign in enumerate((1, -1)):
        for t, i in enumerate(valid):
            row = d[i, masks[side][i]]
            weight = np.exp(sign * row / temperature - (sign * row / temperature).max())
            weight /= weight.sum()
            means[side, t] = (weight * row).sum()
            through = 0 if detach_weights else sign * (row - means[side, t]) / temperature
            slopes[side, i, masks[side][i]] = weight * (1 + through)
    value, slope = loss_of.value_and_slope(means[0] - means[1], valid)
    reduction = loss_of.reduction
    terms = Terms(value, reduction.weights[valid], valid, len(d))
    loss, factor = terms.reduced(reduction, terms.counted(reduction.only_active))
    by_anchor = np.zeros((len(d), 1), d.dtype)
    by_anchor[valid, 0] = slope * factor
    grads = sides.gradients(times(by_anchor, slopes[0]) - times(by_anchor, slopes[1]))
    numbers = (len(valid), terms.active(), means[0], means[1])
    return Outcome(loss, grads, statistics(*numbers, sides.x))


def margin_outcome(
    sides: Sides,
    triplets: Array,
    beta: Array,
    margin: Array,
    reduction: Reduction,
    masks: tuple[Array, Array] | None,
) -> Outcome:
    """relu(d_ap - beta + margin) + relu(beta - d_an + margin); the last gradient is that of beta.

    "mean" is over triplets, "mean_active" over active terms, of which a triplet has two. `masks` as
    in list_outcome, for the statistics.
    """
    d = sides.distances()
    a, p, n = triplets.T
    first, slope_ap = value_and_slope(d[a, p] - beta[a] + margin, False)
    second, slope_an = value_and_slope(beta[a] - d[a, n] + margin, False)
    terms = Terms(first + second, reduction.weights[a], a, len(d))
    count = np.ones(len(a), d.dtype)
    if reduction.only_active:
        count = (~(first <= 0)).astype(d.dtype) + ~(second <= 0)
    loss, factor = terms.reduced(reduction, count)
    slopes, to_beta = np.zeros_like(d), np.zeros_like(beta)
    np.add.at(slopes, (a, p), slope_ap * factor)
    np.add.at(slopes, (a, n), -slope_an * factor)
    np.add.at(to_beta, a, (slope_an - slope_ap) * factor)
    d_ap, d_an = (d[a, p], d[a, n]) if masks is None else (d[masks[0]], d[masks[1]])
    numbers = (len(np.unique(a)), terms.active(), d_ap, d_an)
    return Outcome(loss, [*sides.gradients(slopes), to_beta], statistics(*numbers, sides.x))


def statistics(
    valid_anchors: int, active: Array, d_ap: Array, d_an: Array, anchor_rows: Array
) -> dict[str, Array]:
    norms = np.sqrt((anchor_rows * anchor_rows).sum(1))
    zero = anchor_rows.dtype.type(0)

    def of(reduce, values: Array) -> Array:
        return zero + reduce(values) if len(values) else zero

    numbers = (
        *(zero + valid_anchors, of(np.mean, active.astype(zero.dtype))),
        *(of(np.mean, d_ap), of(np.mean, d_an), of(np.max, d_ap), of(np.min, d_an)),
        of(np.mean, norms),
    )
    return dict(zip((*ROW_STATS, "mean_norm"), numbers, strict=True))
