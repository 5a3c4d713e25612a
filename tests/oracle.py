# SPDX-License-Identifier: BSD-3-Clause
"""The specification once more, in numpy and without torch or flashmetric: the truth of the tests.

Values and gradients are computed in `real` (numpy.longdouble unless told otherwise: float64 results
need a truth wider than float64). Choices are brute force over float64 keys, whatever `real` is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oracle_distances import key_values, pair_distances, rank_keys

__all__ = ["key_values", "pair_distances", "rank_keys"]
Array = np.ndarray


def same_class(labels: Array, ref_labels: Array) -> Array:
    """(B, R): equal class ids, or, for multi-hot rows, at least one class in common."""
    if labels.ndim == 2:
        return ((labels != 0).astype(np.int64) @ (ref_labels != 0).astype(np.int64).T) > 0
    return labels[:, None] == ref_labels[None, :]


def choose(keys: Array, same: Array, candidates: Array, kept: Array) -> tuple[Array, Array]:
    """Farthest positive, nearest negative per row; -1 = has none, -2 = the row is ignored.

    numpy's argmax and argmin already are the tie rule: the lowest index, and the first NaN.
    """
    chosen = np.full((2, len(keys)), -1, dtype=np.int64)
    for i in range(len(keys)):
        if not kept[i]:
            chosen[:, i] = -2
            continue
        positives = np.flatnonzero(candidates[i] & same[i])
        negatives = np.flatnonzero(candidates[i] & ~same[i])
        if positives.size:
            chosen[0, i] = positives[np.argmax(keys[i, positives])]
        if negatives.size:
            chosen[1, i] = negatives[np.argmin(keys[i, negatives])]
    return chosen[0], chosen[1]


@dataclass
class Rows:
    """One role of the triplets: the set of rows it points into, and where each triplet points."""

    rows: Array  # (n, D)
    index: Array  # (T,) int64; -1 = none, -2 = the anchor is ignored

    def taken(self) -> Array:
        """(T, D): the row of each triplet, zeros where it has none."""
        rows = np.zeros((len(self.index), self.rows.shape[1]), self.rows.dtype)
        rows[self.index >= 0] = self.rows[self.index[self.index >= 0]]
        return rows

    def scattered(self, gradient: Array) -> Array:
        """(n, D): what the triplets send back to the rows they took."""
        grad = np.zeros_like(self.rows)
        np.add.at(grad, self.index[self.index >= 0], gradient[self.index >= 0])
        return grad


@dataclass
class Formula:
    """What turns distances into a number."""

    distance: str = "euclidean"
    normalize: bool = False
    margin: Array | float = 1.0
    soft_margin: bool = False
    swap: bool = False
    weights: Array | None = None
    count_invalid: bool = False
    reduction: str = "mean"


@dataclass
class Outcome:
    loss: Array
    grads: list[Array]  # anchor, positive, negative: one per role, in the shape of its set
    stats: dict[str, Array]


def triplet_outcome(roles: list[Rows], formula: Formula, cotangent: Array) -> Outcome:
    anchor, positive, negative = roles
    real = anchor.rows.dtype.type
    has_p, has_n = positive.index >= 0, negative.index >= 0
    valid = has_p & has_n
    counted = (positive.index != -2) if formula.count_invalid else valid
    a, p, n = (role.taken() for role in roles)
    d_ap, ap_a, ap_p = pair_distances(a, p, formula.distance, formula.normalize)
    d_an, an_a, an_n = pair_distances(a, n, formula.distance, formula.normalize)
    an_p = np.zeros_like(an_n)
    if formula.swap:
        d_pn, pn_p, pn_n = pair_distances(p, n, formula.distance, formula.normalize)
        from_a = np.where(d_an < d_pn, 1, np.where(d_an > d_pn, 0, real(0.5)))[:, None]
        an_a, an_p = from_a * an_a, (1 - from_a) * pn_p
        an_n = from_a * an_n + (1 - from_a) * pn_n
        d_an = np.minimum(d_an, d_pn)
    d_ap = np.where(has_p, d_ap, 0)
    d_an = np.where(has_n, d_an, d_ap)
    violation = d_ap - d_an + np.asarray(formula.margin, dtype=real)
    terms, slopes = value_and_slope(violation, formula.soft_margin)
    weights = np.ones(len(a), real) if formula.weights is None else formula.weights
    loss, factor = _reduce(terms, counted, weights, formula.reduction, np.asarray(cotangent, real))
    slope_ap = np.where(counted & valid, slopes * factor, 0)
    slope_an = np.where(counted & has_n, slopes * factor, 0)
    to_ap, to_an = slope_ap[:, None], -slope_an[:, None]
    pieces = (
        times(to_ap, ap_a) + times(to_an, an_a),
        times(to_ap, ap_p) + times(to_an, an_p),
        times(to_an, an_n),
    )
    grads = [role.scattered(piece) for role, piece in zip(roles, pieces, strict=True)]
    return Outcome(loss, grads, _stats(d_ap, d_an, terms, valid, anchor.rows))


def times(slope: Array, grad: Array) -> Array:
    """The product, 0 where there is no slope, even next to NaN or infinity."""
    return np.where(slope == 0, 0, slope * grad)


def value_and_slope(violation: Array, soft_margin: bool) -> tuple[Array, Array]:
    if soft_margin:
        slope = 1 / (1 + np.exp(-violation))
        return np.maximum(violation, 0) + np.log1p(np.exp(-np.abs(violation))), slope
    # As torch.relu: no slope at exactly 0, and NaN passes.
    return np.maximum(violation, 0), (~(violation <= 0)).astype(violation.dtype)


def _reduce(terms, counted, weights, reduction, cotangent) -> tuple[Array, Array]:
    """The loss, and what multiplies the slope of each term on the way back."""
    weights = np.where(counted, weights, 0)
    if reduction == "none":
        return weights * np.where(counted, terms, 0), weights * cotangent
    # NaN is active: it must show.
    included = counted & ~(terms <= 0) if reduction == "mean_active" else counted
    total = (weights * np.where(counted, terms, 0)).sum()
    if reduction == "sum":
        return total, weights * cotangent
    denominator = (weights * included).sum()
    if denominator == 0:
        return total * 0, weights * 0
    return total / denominator, weights * cotangent / denominator


def _stats(d_ap, d_an, terms, valid, anchor_rows) -> dict[str, Array]:
    count = valid.sum()
    norms = np.sqrt((anchor_rows * anchor_rows).sum(1))
    zero = d_ap.dtype.type(0)

    def over_valid(reduce, values):
        return reduce(values[valid]) if count else zero

    return {
        "valid_anchors": zero + count,
        "active_fraction": over_valid(np.mean, (terms > 0).astype(d_ap.dtype)),
        "mean_d_ap": over_valid(np.mean, d_ap),
        "mean_d_an": over_valid(np.mean, d_an),
        "max_d_ap": over_valid(np.max, d_ap),
        "min_d_an": over_valid(np.min, d_an),
        "mean_norm": norms.mean() if len(norms) else zero,
    }


def pairwise_outcome(x: Array, r: Array, distance: str, normalize: bool, cotangent: Array):
    """(M, N) distances and the gradients of sum(cotangent * distances) on both sides."""
    values = np.zeros((len(x), len(r)), x.dtype)
    grad_x, grad_r = np.zeros_like(x), np.zeros_like(r)
    for i in range(len(x)):
        rows = np.broadcast_to(x[i], r.shape)
        values[i], from_x, from_r = pair_distances(rows, r, distance, normalize)
        grad_x[i] = (cotangent[i][:, None] * from_x).sum(0)
        grad_r += cotangent[i][:, None] * from_r
    return values, grad_x, grad_r
