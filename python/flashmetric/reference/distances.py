# SPDX-License-Identifier: BSD-3-Clause
"""Distances in plain torch: the keys that decide, and the values that are returned.

A distance is a name, "minkowski(p)" among them, or a callable: rows (M, D) and (N, D) to (M, N).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

Distance: TypeAlias = str | Callable[[Tensor, Tensor], Tensor]

EPS = 1e-12  # the floor of a norm, in normalize, in cosine and in snr
_BLOCK = 2**22  # elements of one temporary: 32 MiB of float64
_MULTIPLIED = 64  # whole exponents up to this one are products, which round alike everywhere


@torch.no_grad()
def rank_key(
    x: Tensor, y: Tensor | None = None, *, distance: Distance = "euclidean", normalize: bool = False
) -> Tensor:
    """Float64 keys (M, N) of rows x (M, D) and y (N, D): they decide which row is chosen.

    Smaller is closer: sum (x-y)^2 for euclidean and sqeuclidean, -<x,y> for dot,
    -<x,y> / (max(|x|,EPS) max(|y|,EPS)) for cosine, sum |x-y|^p for manhattan and minkowski(p),
    max |x-y| for chebyshev, -(sum min / sum max) for jaccard, and for snr, with z = x - mean x,
    sum (z_x-z_y)^2 / max(sum z_x^2, EPS^2). The order of the additions is part of the definition
    (see `_eight_sum`), so that every machine returns the same bits; except where a power with a
    fraction in its exponent rounds otherwise. The key of a callable is its value.
    """
    y = x if y is None else y
    parts = x.split(block_rows(8 * len(y)))
    if not isinstance(distance, str):
        y = comparable(y, distance, normalize)
        keys = [distance(comparable(part, distance, normalize), y).double() for part in parts]
        return torch.cat(keys)
    return torch.cat([_key(part[:, None], y[None], distance, normalize) for part in parts])


@torch.no_grad()
def paired_key(
    x: Tensor, y: Tensor, *, distance: str = "euclidean", normalize: bool = False
) -> Tensor:
    """(T,) keys of row t of x with row t of y."""
    return _key(x, y, distance, normalize)


def _key(x: Tensor, y: Tensor, distance: str, normalize: bool) -> Tensor:
    x, y = x.double(), y.double()
    norm_x, norm_y = _floored_norm(x), _floored_norm(y)
    if normalize and distance != "cosine":
        x, y = x * (1 / norm_x)[..., None], y * (1 / norm_y)[..., None]
    if distance in ("euclidean", "sqeuclidean"):
        return _eight_sum(x, y, _squared_gap)
    if distance in ("cosine", "dot"):
        dot = _eight_sum(x, y, torch.mul)
        return -dot / (norm_x * norm_y) if distance == "cosine" else -dot
    if distance == "jaccard":
        return -_overlap(_eight_sum(x, y, torch.minimum), _eight_sum(x, y, torch.maximum))
    if distance == "chebyshev":
        return _largest((x - y).abs())
    if distance == "snr":
        x, y = (rows - _key_mean(rows)[..., None] for rows in (x, y))
        return _eight_sum(x, y, _squared_gap) / _eight_sum(x, x, torch.mul).clamp(min=EPS**2)
    p = exponent(distance)
    return _eight_sum(x, y, lambda a, b: _power((a - b).abs(), p))


def pairwise_distances(
    x: Tensor, y: Tensor | None = None, *, distance: Distance = "euclidean", normalize: bool = False
) -> Tensor:
    """(M, N) distances of the rows of x (M, D) to those of y (N, D), or of x, twice differentiable.

    Without gradients one block of differences exists at a time; with them autograd keeps all.
    """
    x = comparable(x, distance, normalize)
    y = x if y is None else comparable(y, distance, normalize)
    parts = x.split(block_rows(y.numel()))
    if not isinstance(distance, str):
        return torch.cat([distance(part, y) for part in parts])
    return torch.cat([distance_of(part[:, None], y[None], distance) for part in parts])


def block_rows(elements_per_row: int) -> int:
    return max(1, _BLOCK // max(1, elements_per_row))


def comparable(rows: Tensor, distance: Distance, normalize: bool) -> Tensor:
    """The rows that are compared: float32 at least, of length 1 if asked, of mean 0 for snr.

    A row shorter than EPS is divided by EPS and gets no gradient, not one 1e12 times too big.
    """
    if rows.dtype in (torch.float16, torch.bfloat16):
        rows = rows.float()
    if normalize or distance == "cosine":
        norm = root((rows * rows).sum(-1, keepdim=True))
        short = norm < EPS
        rows = torch.where(short, rows.detach() / EPS, rows / torch.where(short, 1, norm))
    if distance == "snr" and rows.shape[-1]:
        rows = rows - rows.mean(-1, keepdim=True)
    return rows


def distance_of(x: Tensor, y: Tensor, distance: str) -> Tensor:
    """Distance of comparable rows, over the last dimension."""
    if distance == "cosine":
        return 1 - (x * y).sum(-1)
    if distance == "dot":
        return -(x * y).sum(-1)
    if distance == "jaccard":
        return 1 - _overlap(torch.minimum(x, y).sum(-1), torch.maximum(x, y).sum(-1))
    if distance == "chebyshev":
        return _largest((x - y).abs())
    if distance in ("euclidean", "sqeuclidean", "snr"):
        square = _squared_gap(x, y).sum(-1)
        if distance == "snr":
            return _over_variance(square, (x * x).sum(-1))
        return root(square) if distance == "euclidean" else square
    equal = (x == y).all(-1)  # the norm of 0 has no second derivative
    gap = torch.where(equal[..., None], 1, x - y)
    return torch.where(equal, 0, torch.linalg.vector_norm(gap, ord=exponent(distance), dim=-1))


def exponent(distance: str) -> float:
    """p of "manhattan" or "minkowski(p)"."""
    return 1.0 if distance == "manhattan" else float(distance.partition("(")[2].rstrip(")"))


def root(square: Tensor) -> Tensor:
    """The square root, its value and gradient 0 at 0: no epsilon, no NaN."""
    zero = square == 0
    return torch.where(zero, 0, torch.where(zero, 1, square).sqrt())


def key_value(key: Tensor, distance: Distance) -> Tensor:
    """The float64 distance of a float64 key."""
    if not isinstance(distance, str) or distance in ("sqeuclidean", "dot", "chebyshev", "snr"):
        return key
    if distance in ("cosine", "jaccard"):
        return 1 + key
    if distance == "euclidean":
        # The real square root of torch may be that of MKL, whose last bit is not always right.
        return torch.complex(key, torch.zeros_like(key)).sqrt().real
    return key if distance == "manhattan" else key ** (1 / exponent(distance))


def _squared_gap(x: Tensor, y: Tensor) -> Tensor:
    return (x - y) * (x - y)


def _power(base: Tensor, p: float) -> Tensor:
    """base^p. A whole p multiplies the squares of squares that p in binary asks for, from below."""
    whole = int(p)
    if p != whole or p > _MULTIPLIED:
        return base**p
    result = base if whole % 2 else None
    while whole := whole // 2:
        base = base * base
        if whole % 2:
            result = base if result is None else result * base
    assert result is not None
    return result


def _largest(gaps: Tensor) -> Tensor:
    """The maximum over the last dimension; 0 of none. Equal ones share the gradient."""
    return gaps.amax(-1) if gaps.shape[-1] else gaps.sum(-1)


def _overlap(shared: Tensor, together: Tensor) -> Tensor:
    """The quotient; 1 of two rows of zeros."""
    zero = together == 0
    return torch.where(zero, 1, shared / torch.where(zero, 1, together))


def _over_variance(square: Tensor, variance: Tensor) -> Tensor:
    """The quotient; without gradient where the query is constant, up to rounding."""
    constant = variance < EPS**2
    flat = square.detach() / EPS**2
    return torch.where(constant, flat, square / torch.where(constant, 1, variance))


def _floored_norm(rows: Tensor) -> Tensor:
    square = _eight_sum(rows, rows, torch.mul)
    # The real square root of torch may be that of MKL, whose last bit is not always right.
    return torch.complex(square, torch.zeros_like(square)).sqrt().real.clamp(min=EPS)


def _key_mean(rows: Tensor) -> Tensor:
    return _eight_sum(rows, rows, lambda a, _: a) / max(1, rows.shape[-1])


def _eight_sum(x: Tensor, y: Tensor, term: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Sum of term(x, y) over the last dimension: feature k goes to sum k mod 8, and these add up as
    ((0+4)+(2+6))+((1+5)+(3+7)). Products are rounded before they are added: nothing is fused."""
    shape = torch.broadcast_shapes(x.shape[:-1], y.shape[:-1])
    sums = x.new_zeros(*shape, 8)
    for a, b in zip(x.split(8, -1), y.split(8, -1), strict=True):
        sums[..., : a.shape[-1]] += term(a, b)
    s = sums.unbind(-1)
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
