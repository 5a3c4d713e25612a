# SPDX-License-Identifier: BSD-3-Clause
"""The contrastive losses, over all pairs or given ones, and the quadruplet losses once more."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oracle import Array, Outcome, Rows, pair_distances, times, value_and_slope
from oracle_losses import Reduction, Sides, Terms, statistics


@dataclass
class Hinges:
    """What a pair costs: a positive beyond pos_margin, a negative within margin."""

    margin: Array
    pos_margin: Array
    power: int = 2
    half: bool = False

    def value_and_slope(self, d: Array, positive: Array) -> tuple[Array, Array]:
        gap = np.where(positive, d - self.pos_margin, self.margin - d)
        value, step = value_and_slope(gap, False)
        slope = 2 * value if self.power == 2 else step
        scale = d.dtype.type(0.5 if self.half else 1)
        return scale * value**self.power, scale * np.where(positive, 1, -1) * slope


def contrastive_outcome(
    sides: Sides,
    masks: tuple[Array, Array],
    kinds: list[Array],
    hinges: Hinges,
    reduction: Reduction,
) -> Outcome:
    """The sum over `kinds`, masks of pairs (B, R), of the reduction of each; masks[0] says which
    pairs are positive, and either which are counted by the statistics."""
    d = sides.distances()
    value, slope = hinges.value_and_slope(d, masks[0])
    loss, slopes = d.dtype.type(0), np.zeros_like(d)
    for kind in kinds:
        pairs = np.nonzero(kind)
        terms = Terms(value[pairs], reduction.weights[pairs], pairs[0], len(d))
        part, factor = terms.reduced(reduction, terms.counted(reduction.only_active))
        loss, slopes[pairs] = loss + part, slope[pairs] * factor
    active = ~(value <= 0) & np.logical_or.reduce(kinds)
    both = (masks[0].any(1) & masks[1].any(1)).sum()
    numbers = (both, active[masks[0] | masks[1]], d[masks[0]], d[masks[1]])
    return Outcome(loss, sides.gradients(slopes), statistics(*numbers, sides.x))


def given_pairs_outcome(
    roles: list[Rows],
    similar: Array,
    hinges: Hinges,
    metric: tuple[str, bool],
    reduction: Reduction,
) -> Outcome:
    d, from_1, from_2 = pair_distances(roles[0].taken(), roles[1].taken(), *metric)
    value, slope = hinges.value_and_slope(d, similar != 0)
    terms = Terms(value, reduction.weights, np.arange(len(d)), len(d))
    loss, factor = terms.reduced(reduction, terms.counted(reduction.only_active))
    to_pair = (slope * factor)[:, None]
    grads = [
        role.scattered(times(to_pair, grad))
        for role, grad in zip(roles, (from_1, from_2), strict=True)
    ]
    return Outcome(loss, grads, {})


def quadruplet_outcome(
    roles: list[Rows], margins: tuple[Array, Array], metric: tuple[str, bool], reduction: Reduction
) -> Outcome:
    """Anchor, positive, negative1, negative2; an anchor without a positive or a negative1 does not
    count, one without a negative2 has no second term."""
    valid = np.logical_and.reduce([role.index >= 0 for role in roles[:3]])
    a, p, n1, n2 = (role.taken() for role in roles)
    d_ap, *ap = pair_distances(a, p, *metric)
    d_an, *an = pair_distances(a, n1, *metric)
    d_nn, *nn = pair_distances(n1, n2, *metric)
    first, slope_1 = value_and_slope(d_ap - d_an + margins[0], False)
    second, slope_2 = value_and_slope(d_ap - d_nn + margins[1], False)
    has_second = valid & (roles[3].index >= 0)
    value = np.where(valid, first, 0) + np.where(has_second, second, 0)
    terms = Terms(value, np.where(valid, reduction.weights, 0), np.arange(len(a)), len(a))
    loss, factor = terms.reduced(reduction, terms.counted(reduction.only_active))
    to_1 = np.where(valid, slope_1 * factor, 0)[:, None]
    to_2 = np.where(has_second, slope_2 * factor, 0)[:, None]
    pieces = (
        times(to_1 + to_2, ap[0]) - times(to_1, an[0]),
        times(to_1 + to_2, ap[1]),
        -times(to_1, an[1]) - times(to_2, nn[0]),
        -times(to_2, nn[1]),
    )
    grads = [role.scattered(piece) for role, piece in zip(roles, pieces, strict=True)]
    numbers = (valid.sum(), terms.active()[valid], d_ap[valid], d_an[valid])
    return Outcome(loss, grads, statistics(*numbers, roles[0].rows))
