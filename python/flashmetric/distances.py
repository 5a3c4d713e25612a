# SPDX-License-Identifier: BSD-3-Clause
"""Distances between all pairs of rows; Minkowski and Mahalanobis, for `distance=` anywhere."""

from __future__ import annotations

from torch import Tensor

from . import _autograd, _validate, reference
from ._metrics import Mahalanobis, Minkowski, two_sides
from ._names import Distance, Impl

__all__ = ["Mahalanobis", "Minkowski", "pairwise_distances"]


def pairwise_distances(
    x: Tensor,
    y: Tensor | None = None,
    *,
    distance: Distance = "euclidean",
    normalize: bool = False,
    impl: Impl = "auto",
) -> Tensor:
    """Equals `reference.pairwise_distances(...)` without storing the (M, N, D) differences.

    Smaller is closer, whatever the name:

    ============= ==================================================================
    euclidean     ``|x - y|``, exactly 0 on equal rows
    sqeuclidean   ``|x - y|^2``, in the square of the unit of the rows
    cosine        ``1 - <x, y> / (max(|x|, 1e-12) max(|y|, 1e-12))``, between 0 and 2
    dot           ``-<x, y>``
    manhattan     ``sum |x - y|``
    chebyshev     ``max |x - y|``
    jaccard       ``1 - sum min(x, y) / sum max(x, y)`` of rows that are not negative
    snr           variance of ``x - y`` by that of x, over the features of a row
    ============= ==================================================================

    `Minkowski(p)` and `Mahalanobis(...)` are distances with parameters.

    Args:
        x: (M, D) rows; float16, bfloat16, float32 or float64, of any strides; with jaccard also
            bool or uint8, without gradient.
        y: (N, D) rows of the same dtype and device; without it, those of x.
        distance: one of the names above, a `Minkowski` or `Mahalanobis`, or a function of rows
            (M, D) and (N, D) that returns (M, N) distances; a function runs as plain torch.
        normalize: divide each row by max(norm, 1e-12) first. Cosine does so by itself.
        impl: "fused" (the kernels), "reference" (plain torch), or "auto": the kernels where they
            exist, else plain torch with one warning that says why.

    Returns:
        (M, N) distances; float32 for half precision, else of the dtype of x.

    Raises:
        TypeError: a dtype that is not supported, or not the same on both sides.
        ValueError: a shape or device that does not fit, or an unknown name.
        RuntimeError: impl="fused" where there are no kernels; a second derivative of the kernels.

    Empty input: M = 0 or N = 0 gives an empty matrix; D = 0 gives distances of empty rows.

    Ties: gaps that are equally the largest (chebyshev) share the gradient evenly; where x = y, a
    feature counts half for the minimum and half for the maximum (jaccard).

    Gradient: to x and y, by difference; where a distance is 0, its subgradient 0; a row shorter
    than 1e-12 gets 0 through normalize and cosine, as does snr of a query that is constant. Second
    derivatives: impl="reference".

    Reference: Yuan et al., Signal-to-Noise Ratio: A Robust Distance Metric for Deep Metric
    Learning, arXiv 1904.02616, section 3 (snr).

    Memory: the result, and scratch of O((M + N) D).

    Example:
        >>> import torch
        >>> from flashmetric import pairwise_distances
        >>> x = torch.tensor([[1.0, 1.0], [4.0, 5.0]])
        >>> pairwise_distances(x)
        tensor([[0., 5.],
                [5., 0.]])
        >>> pairwise_distances(x, torch.tensor([[1.0, 0.0]]), distance="dot").flatten().tolist()
        [-1.0, -4.0]
    """
    op = "pairwise_distances"
    _validate.distance(op, distance)
    _validate.flags(op, normalize=normalize)
    x, y, (measure, normalize) = two_sides(op, x, y, distance, normalize)
    if not _validate.use_fused(op, impl, x.device, "pairwise", measure):
        return reference.pairwise_distances(x, y, distance=measure, normalize=normalize)
    return _autograd.pairwise(x, y, measure, normalize)
