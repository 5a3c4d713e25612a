# SPDX-License-Identifier: BSD-3-Clause
"""The distances of the specification once more, in numpy: their keys, values and gradients."""

from __future__ import annotations

import numpy as np

EPS = 1e-12  # the floor of a norm, in normalize, in cosine and in snr
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
        if distance not in ("cosine", "dot"):
            return zero + _feature_keys(pairs, distance)
        dots = zero + eight_sums([a * b for a, b in pairs])
        return -dots / (norm_x[:, None] * norm_r[None, :]) if distance == "cosine" else -dots


def key_values(keys: Array, distance: str) -> Array:
    """The float64 distances that keys stand for."""
    if distance == "euclidean":
        with np.errstate(invalid="ignore"):
            return np.sqrt(keys)
    if distance.startswith("minkowski"):
        return keys ** (1 / exponent(distance))
    return 1 + keys if distance in ("cosine", "jaccard") else keys


def exponent(distance: str) -> float:
    return 1.0 if distance == "manhattan" else float(distance[len("minkowski(") : -1])


def _feature_keys(pairs: list[tuple[Array, Array]], distance: str) -> Array:
    """Keys of sums over features, given the two sides of each feature."""
    if distance == "chebyshev":
        gaps = [np.abs(a - b) for a, b in pairs]
        return np.maximum.reduce(gaps) if gaps else np.float64(0.0)
    if distance == "jaccard":
        shared = eight_sums([np.minimum(a, b) for a, b in pairs])
        together = eight_sums([np.maximum(a, b) for a, b in pairs])
        return -np.where(together == 0, 1, shared / np.where(together == 0, 1, together))
    if distance == "snr":
        mean_x, mean_r = (eight_sums([pair[side] for pair in pairs]) for side in (0, 1))
        n = max(1, len(pairs))
        gaps = [((a - mean_x / n), (b - mean_r / n)) for a, b in pairs]
        signal = eight_sums([a * a for a, _ in gaps])
        return eight_sums([(a - b) * (a - b) for a, b in gaps]) / np.maximum(signal, EPS**2)
    return eight_sums([_power(np.abs(a - b), exponent(distance)) for a, b in pairs])


def _power(base: Array, p: float) -> Array:
    """Whole powers from squares, lowest bit of p first."""
    if p != int(p) or p > 64:
        return base**p
    bits, result = int(p), None
    for bit in range(bits.bit_length()):
        if bits >> bit & 1:
            result = base if result is None else result * base
        base = base * base
    return result


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
    elif distance not in ("euclidean", "sqeuclidean"):
        value, grad_a, grad_b = _feature_distances(a, b, distance)
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


def _feature_distances(a: Array, b: Array, distance: str) -> tuple[Array, ...]:
    """Distances that are sums over features, with both gradients."""
    if distance == "jaccard":
        shared, together = np.minimum(a, b).sum(1), np.maximum(a, b).sum(1)
        total = np.where(together == 0, 1, together)
        share = np.where(together == 0, 1, shared / total)
        sign, some = np.sign(a - b), (together != 0) / total
        grads = [((share - 1)[:, None] + s * (share + 1)[:, None]) / 2 for s in (sign, -sign)]
        return 1 - share, *(grad * some[:, None] for grad in grads)
    if distance == "snr":
        a, b = (rows - rows.mean(1, keepdims=True) for rows in (a, b))
        square, signal = ((a - b) ** 2).sum(1), (a * a).sum(1)
        floored = np.maximum(signal, EPS**2)
        value = square / floored
        slope = np.where(signal < EPS**2, 0, 2 / floored)[:, None]
        return value, slope * ((1 - value)[:, None] * a - b), slope * (b - a)
    gaps, signs = np.abs(a - b), np.nan_to_num(np.sign(a - b), nan=0.0)
    if distance == "chebyshev":
        value = gaps.max(1, initial=0)
        largest = gaps == value[:, None]
        grad = signs * largest / largest.sum(1, keepdims=True)
    else:
        p = exponent(distance)
        value = (gaps**p).sum(1) ** (1 / a.dtype.type(p))
        grad = signs * (gaps / np.where(value == 0, 1, value)[:, None]) ** (p - 1)
    return value, grad, -grad
