# SPDX-License-Identifier: BSD-3-Clause
"""Distances in plain torch: the keys that decide, and the values that are returned."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

EPS = 1e-12  # the floor of a norm, in normalize and in cosine
_BLOCK = 2**22  # elements of one temporary: 32 MiB of float64


@torch.no_grad()
def rank_key(
    x: Tensor, y: Tensor | None = None, *, distance: str = "euclidean", normalize: bool = False
) -> Tensor:
    """Float64 keys (M, N) of rows x (M, D) and y (N, D): they decide which row is chosen.

    Smaller is closer: sum (x-y)^2 for euclidean and sqeuclidean, -<x,y> for dot,
    -<x,y> / (max(|x|,EPS) max(|y|,EPS)) for cosine. The order of the additions is part of the
    definition (see `_eight_sum`), so that every machine returns the same bits.
    """
    y = x if y is None else y
    metric = (distance, normalize)
    parts = x.split(block_rows(8 * len(y)))
    return torch.cat([_key(part[:, None], y[None], *metric) for part in parts])


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
        return _eight_sum(x, y, lambda a, b: (a - b) * (a - b))
    dot = _eight_sum(x, y, torch.mul)
    return -dot / (norm_x * norm_y) if distance == "cosine" else -dot


def pairwise_distances(
    x: Tensor, y: Tensor | None = None, *, distance: str = "euclidean", normalize: bool = False
) -> Tensor:
    """(M, N) distances of the rows of x (M, D) to those of y (N, D), or of x, twice differentiable.

    Without gradients one block of differences exists at a time; with them autograd keeps all.
    """
    x = comparable(x, distance, normalize)
    y = x if y is None else comparable(y, distance, normalize)
    parts = x.split(block_rows(y.numel()))
    return torch.cat([distance_of(part[:, None], y[None], distance) for part in parts])


def block_rows(elements_per_row: int) -> int:
    return max(1, _BLOCK // max(1, elements_per_row))


def comparable(rows: Tensor, distance: str, normalize: bool) -> Tensor:
    """The rows that are compared: float32 at least, of length 1 if asked.

    A row shorter than EPS is divided by EPS and gets no gradient, not one 1e12 times too big.
    """
    if rows.dtype in (torch.float16, torch.bfloat16):
        rows = rows.float()
    if not normalize and distance != "cosine":
        return rows
    norm = root((rows * rows).sum(-1, keepdim=True))
    short = norm < EPS
    return torch.where(short, rows.detach() / EPS, rows / torch.where(short, 1, norm))


def distance_of(x: Tensor, y: Tensor, distance: str) -> Tensor:
    """Distance of comparable rows, over the last dimension."""
    if distance == "cosine":
        return 1 - (x * y).sum(-1)
    if distance == "dot":
        return -(x * y).sum(-1)
    difference = x - y
    square = (difference * difference).sum(-1)
    return root(square) if distance == "euclidean" else square


def root(square: Tensor) -> Tensor:
    """The square root, its value and gradient 0 at 0: no epsilon, no NaN."""
    zero = square == 0
    return torch.where(zero, 0, torch.where(zero, 1, square).sqrt())


def _floored_norm(rows: Tensor) -> Tensor:
    square = _eight_sum(rows, rows, torch.mul)
    # The real square root of torch may be that of MKL, whose last bit is not always right.
    return torch.complex(square, torch.zeros_like(square)).sqrt().real.clamp(min=EPS)


def _eight_sum(x: Tensor, y: Tensor, term: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Sum of term(x, y) over the last dimension: feature k goes to sum k mod 8, and these add up as
    ((0+4)+(2+6))+((1+5)+(3+7)). Products are rounded before they are added: nothing is fused."""
    shape = torch.broadcast_shapes(x.shape[:-1], y.shape[:-1])
    sums = x.new_zeros(*shape, 8)
    for a, b in zip(x.split(8, -1), y.split(8, -1), strict=True):
        sums[..., : a.shape[-1]] += term(a, b)
    s = sums.unbind(-1)
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
