# SPDX-License-Identifier: BSD-3-Clause
"""The specification once more, in numpy and without torch or flashmetric: the truth of the tests.

Values and gradients are computed in `real` (numpy.longdouble unless told otherwise: float64 results
need a truth wider than float64). Choices are brute force over float64 keys, whatever `real` is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

EPS = 1e-12  # the floor of a norm, in normalize and in cosine
Array = np.ndarray


def eight_sums(terms: list[Array]) -> Array:
    """Feature k is added to sum k mod 8; then ((0+4)+(2+6))+((1+5)+(3+7)). numpy never fuses."""
    sums = [np.zeros_like(terms[0], dtype=np.float64) if terms else np.float64(0.0)] * 8
    for k, term in enumerate(terms):
        sums[k % 8] = sums[k % 8] + term
    s = sums
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))


def row_norms(rows: Array) -> Array:
    columns = [rows[:, k] * rows[:, k] for k in range(rows.shape[1])]
    return np.sqrt(eight_sums(columns)) if columns else np.zeros(len(rows))


def rank_keys(x: Array, r: Array, distance: str, normalize: bool) -> Array:
    """Float64 keys of every pair, (M, N): what decides a choice."""
    x, r = x.astype(np.float64), r.astype(np.float64)
    with np.errstate(all="ignore"):
        norm_x, norm_r = np.maximum(row_norms(x), EPS), np.maximum(row_norms(r), EPS)
        if normalize and distance != "cosine":
            x, r = x * (1.0 / norm_x)[:, None], r * (1.0 / norm_r)[:, None]
        pairs = [(x[:, k, None], r[None, :, k]) for k in range(x.shape[1])]
        zero = np.zeros((len(x), len(r)))
        if distance in ("euclidean", "sqeuclidean"):
            return zero + eight_sums([(a - b) * (a - b) for a, b in pairs])
        dots = zero + eight_sums([a * b for a, b in pairs])
        return -dots / (norm_x[:, None] * norm_r[None, :]) if distance == "cosine" else -dots


def key_values(keys: Array, distance: str) -> Array:
    """The float64 distances that keys stand for."""
    if distance == "euclidean":
        with np.errstate(invalid="ignore"):
            return np.sqrt(keys)
    return 1 + keys if distance == "cosine" else keys


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


def _unit_rows(rows: Array) -> tuple[Array, Array]:
    """Rows over max(norm, EPS), and their norms."""
    norms = np.sqrt((rows * rows).sum(1))
    return rows / np.maximum(norms, EPS)[:, None], norms


def _through_unit(grad: Array, unit: Array, norms: Array) -> Array:
    """Gradient with respect to the rows, given that with respect to the unit rows; 0 below EPS."""
    tangent = grad - unit * (unit * grad).sum(1, keepdims=True)
    return np.where(norms[:, None] < EPS, 0, tangent / np.maximum(norms, EPS)[:, None])


def pair_distances(x: Array, r: Array, distance: str, normalize: bool) -> tuple[Array, ...]:
    """Distance of row t of x and row t of r, and its gradients: (T,), (T, D), (T, D)."""
    unit = normalize or distance == "cosine"
    a, norm_a = _unit_rows(x) if unit else (x, None)
    b, norm_b = _unit_rows(r) if unit else (r, None)
    if distance in ("cosine", "dot"):
        value = (1 if distance == "cosine" else 0) - (a * b).sum(1)
        grad_a, grad_b = -b, -a
    else:
        difference = a - b
        value = (difference * difference).sum(1)
        grad_a = 2 * difference
        if distance == "euclidean":
            value = np.sqrt(value)
            divisor = np.where(value == 0, 1, value)[:, None]
            grad_a = difference / divisor  # 0 at 0
        grad_b = -grad_a
    if unit:
        grad_a, grad_b = _through_unit(grad_a, a, norm_a), _through_unit(grad_b, b, norm_b)
    return value, grad_a, grad_b


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
