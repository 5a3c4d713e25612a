# SPDX-License-Identifier: BSD-3-Clause
"""The mining rules once more: for each anchor, a loop over its positives and negatives.

What is compared are float64 keys, and float64 distances where a rule speaks of distances. Of equal
values numpy's argmin and argmax take the first, and the first NaN before every number, as asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from oracle import Array, key_values, rank_keys

Picks = list[tuple[int, int]]  # (positive, negative) of one anchor, in listing order

CLOSEST, CUTOFF = 0.5, 1.4  # of Wu et al.: distances on the sphere count as at least, and below
_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15


@dataclass
class Batch:
    """Who may be compared with whom, and what decides."""

    rows: Array  # (B, D) float64
    refs: Array  # (R, D) float64
    distance: str
    normalize: bool
    same: Array  # (B, R) bool
    candidates: Array  # (B, R) bool
    kept: Array  # (B,) bool: anchors that are not ignored

    @cached_property
    def keys(self) -> Array:
        return rank_keys(self.rows, self.refs, self.distance, self.normalize)

    @cached_property
    def distances(self) -> Array:
        return key_values(self.keys, self.distance)

    @cached_property
    def sphere(self) -> Array:
        """Euclidean distances of the normalised rows."""
        return key_values(rank_keys(self.rows, self.refs, "euclidean", True), "euclidean")

    def masks(self) -> tuple[Array, Array]:
        """The positive and the negative pairs, (B, R) each."""
        allowed = self.candidates & self.kept[:, None]
        return allowed & self.same, allowed & ~self.same

    @cached_property
    def positives(self) -> list[Array]:
        """Of each anchor, ascending."""
        return [np.flatnonzero(row) for row in self.masks()[0]]

    @cached_property
    def negatives(self) -> list[Array]:
        return [np.flatnonzero(row) for row in self.masks()[1]]


@dataclass
class Rule:
    """mining= and its keywords."""

    mining: str
    mining_margin: Array  # (B,) float64
    fallback: str = "farthest"
    hardness: float | None = None
    positive_mining: str = "easy"
    negative_mining: str = "semihard"
    n_negatives: int = 1
    seed: int = 0


def triplets_of(batch: Batch, rule: Rule) -> Array:
    """(T, 3) int64: the triplets of a rule, by anchor, then positive, then negative."""
    parts = [np.zeros((0, 3), np.int64)]
    with np.errstate(all="ignore"):
        for i in range(len(batch.keys)):
            if batch.positives[i].size and batch.negatives[i].size:
                picks = np.array(RULES[rule.mining](batch, rule, i), np.int64).reshape(-1, 2)
                parts.append(np.insert(picks, 0, i, axis=1))
    return np.concatenate(parts)


def pairs_without_negatives(batch: Batch) -> Array:
    """(P, 2) int64: what invalid="count" adds to semihard."""
    rows = [i for i in range(len(batch.keys)) if not batch.negatives[i].size]
    pairs = [(i, positive) for i in rows for positive in batch.positives[i]]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def nearest(keys: Array, rows: Array) -> int:
    return int(rows[np.argmin(keys[rows])])


def farthest(keys: Array, rows: Array) -> int:
    return int(rows[np.argmax(keys[rows])])


def _hard(batch: Batch, _rule: Rule, i: int) -> Picks:
    keys = batch.keys[i]
    return [(farthest(keys, batch.positives[i]), nearest(keys, batch.negatives[i]))]


def _semihard(batch: Batch, rule: Rule, i: int) -> Picks:
    keys, negatives = batch.keys[i], batch.negatives[i]
    picks = []
    for positive in batch.positives[i]:
        beyond = negatives[_beyond(batch, rule, i, positive)]
        if beyond.size:
            picks.append((positive, nearest(keys, beyond)))
        elif rule.fallback == "farthest":
            picks.append((positive, farthest(keys, negatives)))
    return picks


def _beyond(batch: Batch, rule: Rule, i: int, positive: int) -> Array:
    """Which of the negatives are far enough. A NaN always is: it must win."""
    negatives, h = batch.negatives[i], rule.hardness
    if h is None or h == 0.5:
        keys = batch.keys[i]
        return (keys[negatives] > keys[positive]) | np.isnan(keys[negatives])
    d_ap, d_an = batch.distances[i, positive], batch.distances[i, negatives]
    if h < 0.5:
        threshold = d_ap + (1 - 2 * h) * np.maximum(0, d_an.max() - d_ap)
        return (d_an > threshold) | np.isnan(d_an)
    threshold = d_ap - (2 * h - 1) * np.maximum(0, d_ap - d_an.min())
    return (d_an >= threshold) | np.isnan(d_an)


def _in_set(batch: Batch, rule: Rule, i: int) -> Picks:
    """All triplets, or those of one kind; each condition is negated so that NaN is in every set."""
    positives, negatives, margin = batch.positives[i], batch.negatives[i], rule.mining_margin[i]
    beyond = batch.distances[i, negatives] - batch.distances[i, positives, None]
    member = {
        "all": np.ones_like(beyond, bool),
        "semihard_all": ~(beyond <= 0) & ~(beyond > margin),
        "hard_all": ~(beyond > 0),
        "easy_all": ~(beyond <= margin),
    }
    which, where = np.nonzero(member[rule.mining])
    return list(zip(positives[which], negatives[where], strict=True))


def _easy_hard(batch: Batch, rule: Rule, i: int) -> Picks:
    keys, positives, negatives = batch.keys[i], batch.positives[i], batch.negatives[i]
    if rule.positive_mining == "semihard":
        negative = _extreme(rule.negative_mining, keys, negatives, hard=nearest, easy=farthest)[0]
        keys_ap = keys[positives]
        positives = positives[(keys_ap < keys[negative]) | np.isnan(keys_ap)]
        return [(farthest(keys, positives), negative)] if positives.size else []
    chosen = _extreme(rule.positive_mining, keys, positives, hard=farthest, easy=nearest)
    if rule.negative_mining == "semihard":
        keys_an = keys[negatives]
        negatives = negatives[(keys_an > keys[chosen[0]]) | np.isnan(keys_an)]
        return [(chosen[0], nearest(keys, negatives))] if negatives.size else []
    others = _extreme(rule.negative_mining, keys, negatives, hard=nearest, easy=farthest)
    return list(product(chosen, others))


def _extreme(strategy: str, keys: Array, rows: Array, *, hard: Callable, easy: Callable) -> list:
    if strategy == "all":
        return list(rows)
    return [(hard if strategy == "hard" else easy)(keys, rows)]


def _distance_weighted(batch: Batch, rule: Rule, i: int) -> Picks:
    negatives = batch.negatives[i]
    negatives = negatives[batch.sphere[i, negatives] < CUTOFF]
    if not negatives.size:
        return []
    d, n = np.maximum(batch.sphere[i, negatives], CLOSEST), batch.rows.shape[1]
    inverse = -((n - 2) * np.log(d) + (n - 3) / 2 * np.log(1 - d * d / 4))
    running = np.cumsum(np.exp(inverse - inverse.max()))  # one by one, unlike numpy's sum
    return [
        (positive, negatives[np.argmax(running > uniform(rule.seed, i, positive, 0) * running[-1])])
        for positive in batch.positives[i]
    ]


def _random(batch: Batch, rule: Rule, i: int) -> Picks:
    negatives = batch.negatives[i]
    return [
        (positive, negatives[int(uniform(rule.seed, i, positive, draw) * len(negatives))])
        for positive in batch.positives[i]
        for draw in range(rule.n_negatives)
    ]


RULES: dict[str, Callable[[Batch, Rule, int], Picks]] = {
    "hard": _hard,
    "semihard": _semihard,
    **dict.fromkeys(("all", "semihard_all", "hard_all", "easy_all"), _in_set),
    "easy_hard": _easy_hard,
    "distance_weighted": _distance_weighted,
    "random": _random,
}


def uniform(seed: int, anchor: int, positive: int, draw: int) -> float:
    """In [0, 1): splitmix64 over the three numbers, in Python's own integers."""
    state = seed & _MASK
    for value in (anchor, positive, draw):
        state = _mix((state + _GOLDEN * (int(value) + 1)) & _MASK)
    return (state >> 11) * 2.0**-53


def _mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)
