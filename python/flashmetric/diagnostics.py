# SPDX-License-Identifier: BSD-3-Clause
"""What the statistics of a loss say about a training run, in words."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._validate import data as check
from .reference import Stats

__all__ = ["diagnose"]

# Rows so near each other, of the length of rows at right angles: bfloat16 rounds at 0.4 % (2^-8),
# so they differ by a rounding or two. Of the margin: the loss is within 1 % of it.
COLLAPSED = 0.01
# Of the anchors, so few that a batch of 128 learns from six.
FEW = 0.05
# All but one of a hundred: what a few mislabelled rows leave.
ALL = 0.99
# The nearest negative twice as far as the farthest positive: a nearest neighbour is of the right
# class, even from the far side of its own.
SEPARATED = 2.0
# And 5 % farther than it: as good as not separated.
TOUCHING = 1.05
# Unit rows at right angles. More classes than features cannot all be farther apart than that: the
# corners of a regular simplex, sqrt(2 C / (C - 1)) apart, are the best there is.
APART = {"euclidean": math.sqrt(2.0), "sqeuclidean": 2.0, "cosine": 1.0, "dot": 1.0}


class _Seen(NamedTuple):
    """Numbers on the host."""

    stats: Stats
    margin: float | None
    distance: str
    unit: bool  # are rows compared at length 1?
    soft_margin: bool

    @property
    def power(self) -> int:
        """Of the length of a difference, in the distance."""
        return 2 if self.distance in ("sqeuclidean", "cosine", "dot") else 1

    @property
    def scale(self) -> float | None:
        """The distance of rows at right angles, where it is known."""
        apart = APART.get(self.distance)
        if apart is None or self.unit:
            return apart
        return apart * float(self.stats.mean_norm) ** self.power

    @property
    def spread(self) -> float:
        """The larger mean distance; of dot, which is not 0 at equal rows, counted from there."""
        zero = 0.0
        if self.distance == "dot":
            zero = -1.0 if self.unit else -(float(self.stats.mean_norm) ** 2)
        return float(max(self.stats.mean_d_ap, self.stats.mean_d_an)) - zero

    def farther(self, factor: float) -> bool:
        """Are negatives `factor` times as far as positives, or more?"""
        stats = self.stats
        return bool(stats.mean_d_an >= factor**self.power * stats.mean_d_ap)


def diagnose(
    stats: Stats,
    *,
    margin: float | Tensor | Callable[[], float | Tensor] | None = None,
    distance: Any = "euclidean",
    normalize: bool = False,
    soft_margin: bool = False,
) -> str:
    """What the statistics of one batch say, and what to do about it, in plain sentences.

    Recognised, in this order: numbers that are not finite; no valid anchor; collapse, where all
    rows are nearly equal and the loss stands still at the margin; rows of two classes that are
    equal; a margin that cannot be met, or that is met by hardly any anchor although the classes are
    apart; no active anchor, or few, with a margin that is too small or a task that is solved; and
    negatives nearer than positives. One batch is noise: look at several.

    Args:
        stats: what a loss returns with return_stats=True.
        margin: that of the loss: a number, a tensor (of which the mean counts), or a callable.
            None = not told, whatever the loss takes by default.
        distance: that of the loss. Sentences that need to know how large distances can be are
            left out where it is none of "euclidean", "sqeuclidean", "cosine" and "dot".
        normalize: that of the loss.
        soft_margin: that of the loss; all its anchors are active.

    Returns:
        One or more lines; a healthy batch has one, which starts with "Nothing unusual".

    Raises:
        TypeError: stats that are not `Stats`, a margin that is not a number.

    Synchronises with the device once, here, and never in training: call it every few hundred steps.

    Example:
        >>> import torch
        >>> from flashmetric import diagnose, triplet_loss
        >>> loss, stats = triplet_loss(torch.randn(6, 4), torch.arange(6), return_stats=True)
        >>> print(diagnose(stats).split(":")[0])
        No valid anchor
    """
    if not isinstance(stats, Stats):
        text = f"stats must be the Stats of a loss; got {type(stats).__name__}."
        raise check.error(TypeError, "diagnose", text)
    numbers = torch.stack([number.detach().double() for number in stats]).tolist()
    unit = normalize or distance == "cosine"
    word = distance if isinstance(distance, str) else type(distance).__name__
    seen = _Seen(Stats(*numbers), _mean_of(margin), word, unit, soft_margin)
    for stop in (_not_finite, _no_anchor, _collapse):
        if found := stop(seen):
            return found
    sentences = (rule(seen) for rule in (_equal_rows, _margin, _activity, _order))
    return "\n".join(filter(None, sentences)) or _healthy(seen)


def _mean_of(margin: Any) -> float | None:
    if callable(margin):
        margin = margin()
    if isinstance(margin, Tensor):
        margin = float(margin.detach().double().mean())
    return None if margin is None else check.number("diagnose", "margin", margin)


def _not_finite(seen: _Seen) -> str | None:
    wrong = [name for name, number in seen.stats._asdict().items() if not math.isfinite(number)]
    if not wrong:
        return None
    return (
        f"Not finite: {', '.join(wrong)}. Some embedding is NaN or infinite; "
        "embeddings.isfinite().all(1) finds its rows. Lower the learning rate, clip gradients, "
        "check the inputs, and in half precision look for overflow in the network."
    )


def _no_anchor(seen: _Seen) -> str | None:
    if seen.stats.valid_anchors > 0:
        return None
    return (
        "No valid anchor: no row of the batch has both another row of its class and one of another "
        "class, so the loss is 0 and nothing is learned. Draw the batches with PKSampler "
        "(classes_per_batch at least 2, samples_per_class at least 2), and check that labels are "
        "class numbers, not indices, and that ignore_label does not leave everything out."
    )


def _collapse(seen: _Seen) -> str | None:
    if seen.distance == "dot" and not seen.unit:  # near rows are not near 0, nor anywhere else
        return None
    stats, spread, margin = seen.stats, seen.spread, seen.margin
    # Rows that are not of length 1 may be far from 0, all of them, and still far enough apart.
    enough = margin is not None and not seen.unit and spread > margin
    near = seen.scale is not None and spread <= COLLAPSED**seen.power * seen.scale
    if (not near or enough) and (margin is None or spread > COLLAPSED * margin):
        return None
    right = "" if seen.scale is None else f", where rows at right angles are {seen.scale:.3g} apart"
    still = "" if margin is None or seen.soft_margin else "; the loss stands still at the margin"
    unit = "" if seen.unit else " normalize=True keeps rows from shrinking to 0."
    return (
        f"Collapse: all rows are nearly equal (d_ap {stats.mean_d_ap:.3g}, d_an "
        f"{stats.mean_d_an:.3g}{right}){still}. Lower the learning rate, begin with "
        'mining="semihard" or soft_margin=True, or let the margin grow (LinearSchedule).' + unit
    )


def _equal_rows(seen: _Seen) -> str | None:
    if seen.stats.min_d_an > 0 or seen.distance in ("dot", "snr"):
        return None
    return (
        "Two rows of different classes are equal (min_d_an is 0): one sample under two labels, or "
        "a network that ignores part of its input. Look for duplicates in the data."
    )


def _margin(seen: _Seen) -> str | None:
    stats, margin = seen.stats, seen.margin
    if seen.soft_margin or stats.active_fraction < ALL:
        return None
    if margin is not None and seen.unit and margin > APART.get(seen.distance, math.inf):
        return (
            f"The margin is too large: {margin:.3g} cannot be met by all classes, since many rows "
            f"of length 1 are at most {APART[seen.distance]:.3g} apart. Every anchor stays active. "
            "Choose well below that."
        )
    if seen.distance != "dot" and seen.farther(SEPARATED):
        gap = stats.mean_d_an - stats.mean_d_ap
        return (
            "The margin is too large: all anchors are active although negatives are "
            f"{stats.mean_d_an:.3g} away and positives {stats.mean_d_ap:.3g}. The loss goes on "
            f"pushing classes apart that are apart. Choose a margin below {gap:.3g}."
        )
    return None


def _activity(seen: _Seen) -> str | None:
    stats = seen.stats
    if seen.soft_margin or stats.active_fraction >= FEW:
        return None
    start = f"Few anchors are active ({stats.active_fraction:.1%}): the mean is one of zeros."
    if stats.active_fraction == 0:
        start = "No anchor is active: the loss is 0, and so is its gradient."
    if seen.distance != "dot" and not seen.farther(TOUCHING):
        return (
            f"{start} The margin is too small: negatives are {stats.mean_d_an:.3g} away, hardly "
            f"farther than positives, {stats.mean_d_ap:.3g}. Raise it, to a tenth of d_an or more."
        )
    return (
        f"{start} Either the task is solved, which validation on other identities tells, or the "
        'batches are too easy: mine harder (mining="hard"), draw more classes per batch, raise '
        'the margin, or divide by the active ones (reduction="mean_active").'
    )


def _order(seen: _Seen) -> str | None:
    stats = seen.stats
    if stats.mean_d_ap <= stats.mean_d_an:
        return None
    return (
        f"Negatives are nearer than positives (d_an {stats.mean_d_an:.3g}, d_ap "
        f"{stats.mean_d_ap:.3g}). With hard mining this is how training begins. If it stays: lower "
        'the learning rate, mine more gently (mining="semihard"), and look for wrong labels.'
    )


def _healthy(seen: _Seen) -> str:
    stats = seen.stats
    return (
        f"Nothing unusual: {stats.valid_anchors:.0f} valid anchors, {stats.active_fraction:.0%} "
        f"active, positives at {stats.mean_d_ap:.3g}, negatives at {stats.mean_d_an:.3g}."
    )
