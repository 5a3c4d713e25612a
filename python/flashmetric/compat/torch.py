# SPDX-License-Identifier: BSD-3-Clause
"""Losses of torch.nn by our kernels: ``from flashmetric.compat.torch import TripletMarginLoss``.

Each class extends that of torch.nn and has its constructor. Rows are (N, D), (D,) or (*, D), and
broadcast. What has no kernel (p below 1, a distance function of your own, rows of several dtypes)
runs the code of torch and says so once.

Differences, all of them where torch has an artefact of its epsilon or of its implementation:

- An empty batch has the mean 0 with zero gradients; in torch NaN.
- A hinge at exactly 0 has slope 0; in torch 1.
- eps is added to the rows of one side, in their dtype, or in float32 if that is half precision. In
  float32 it is rounded as those rows are: rows that agree to 1e-6 of their size have a distance
  right to that size times 1e-7, and a gradient whose direction, in torch that of eps, means
  nothing.
- Cosines divide by norms of at least 1e-12; torch adds 1e-12 to squared norms. They differ by less
  than 1e-6 for norms above 1e-3, and a row of zeros has gradient 0; in torch it is of size 1e6.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from flashmetric._names import Reduction
from flashmetric.distances import Minkowski
from flashmetric.losses import contrastive_pairs_loss, triplet_margin_loss

from ._peer import like, not_fused
from ._rows import distances, shapes_of, shifted, why_not

__all__ = [
    "CosineEmbeddingLoss",
    "PairwiseDistance",
    "TripletMarginLoss",
    "TripletMarginWithDistanceLoss",
]

_ROLES = ("anchor", "positive", "negative")
_DEFAULT_EPS = 1e-6  # of torch.pairwise_distance


class PairwiseDistance(nn.PairwiseDistance):
    """`torch.nn.PairwiseDistance`: ``|x1 - x2 + eps|_p`` of every two rows.

    Args:
        p: the norm: of kernels a number of at least 1, or inf; any other runs in torch.
        eps: added to each difference.
        keepdim: keep the last dimension, of size 1.

    Call: (x1, x2), each (N, D), (D,) or (*, D), of float16, bfloat16, float32 or float64.

    Returns:
        (N,), () or (*), in the dtype of the rows; under autocast float32 at least.

    Raises:
        ValueError: shapes that do not broadcast.

    Empty input: no rows, no distances. Gradient: to both; where a distance is 0, its subgradient 0.

    Memory: the result, and with eps a copy of x1.

    Example:
        >>> import torch
        >>> from flashmetric.compat.torch import PairwiseDistance
        >>> PairwiseDistance(eps=0.0)(torch.tensor([3.0, 4.0]), torch.zeros(2))
        tensor(5.)
    """

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """(*) distances of rows (*, D)."""
        reason = _why_not("paired", self.norm, x1, x2)
        if reason:
            not_fused("PairwiseDistance", reason)
            return super().forward(x1, x2)
        shape, (x, y) = _flat("PairwiseDistance", x1=x1, x2=x2)
        found = distances(x, y, Minkowski(self.norm), self.eps)
        shape = (*shape, 1) if self.keepdim else shape
        return like(found.reshape(shape), x1)


class TripletMarginLoss(nn.TripletMarginLoss):
    """`torch.nn.TripletMarginLoss`: ``max(0, margin + d_ap - d_an)`` of given triplets.

    d(x, y) = ``|x - y + eps|_p``; with ``swap`` d_an is min(d_an, d_pn).

    Args:
        margin: a number above 0.
        p: the norm: of kernels a number of at least 1, or inf; any other runs in torch.
        eps: added to each difference.
        swap: compare the positive with the negative too; with an eps, in three passes.
        size_average, reduce: of old; see `torch.nn.TripletMarginLoss`.
        reduction: "mean", "sum" or "none".

    Call: (anchor, positive, negative), each (N, D), (D,) or (*, D), of float16, bfloat16, float32
    or float64.

    Returns:
        0-dim loss, or (N,), () or (*) with reduction="none", in the dtype of the rows; under
        autocast float32 at least.

    Raises:
        ValueError: shapes that do not broadcast, or of several numbers of dimensions.

    Empty input: exactly 0, connected to the graph, with zero gradients; in torch the mean is NaN.

    Gradient: to all three; where a distance is 0, its subgradient 0; half each where d_an = d_pn.

    Memory: O(N), and with eps a copy of the anchors; swap with eps, also one of the positives.

    Example:
        >>> import torch
        >>> from flashmetric.compat.torch import TripletMarginLoss
        >>> rows = torch.tensor([[0.0], [2.0], [2.5]])
        >>> TripletMarginLoss(margin=1.0, eps=0.0)(*rows).item()  # max(0, 1 + 2 - 2.5)
        0.5
    """

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """The loss of triplets of rows (*, D)."""
        reason = _why_not(_kernel(self.swap, self.eps), self.p, anchor, positive, negative)
        if reason:
            not_fused("TripletMarginLoss", reason)
            return super().forward(anchor, positive, negative)
        return _triplets(self, (self.p, self.eps), anchor, positive, negative)


class TripletMarginWithDistanceLoss(nn.TripletMarginWithDistanceLoss):
    """`torch.nn.TripletMarginWithDistanceLoss`: the same with a distance function.

    Args:
        distance_function: None, `torch.nn.functional.pairwise_distance` or a `PairwiseDistance`
            without keepdim, which kernels know; any other function runs in torch. For a cosine
            or another distance use `flashmetric.TripletMarginLoss(distance="cosine")`.
        margin: a number above 0.
        swap: compare the positive with the negative too.
        reduction: "mean", "sum" or "none".

    Call, Returns, Raises, Empty input, Gradient, Memory: as of `TripletMarginLoss`.

    Example:
        >>> import torch
        >>> from flashmetric.compat.torch import PairwiseDistance, TripletMarginWithDistanceLoss
        >>> manhattan = PairwiseDistance(p=1, eps=0.0)
        >>> criterion = TripletMarginWithDistanceLoss(distance_function=manhattan)
        >>> criterion(*torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 0.5]])).item()  # 1 + 2 - 2.5
        0.5
    """

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """The loss of triplets of rows (*, D)."""
        norm = _norm_of(self.distance_function)
        reason = "distance_function is not one that kernels know"
        if norm is not None:
            reason = _why_not(_kernel(self.swap, norm[1]), norm[0], anchor, positive, negative)
        if norm is None or reason:
            not_fused("TripletMarginWithDistanceLoss", reason)
            return super().forward(anchor, positive, negative)
        return _triplets(self, norm, anchor, positive, negative)


class CosineEmbeddingLoss(nn.CosineEmbeddingLoss):
    """`torch.nn.CosineEmbeddingLoss` of given pairs, where cos is the cosine of the two rows::

        value = 1 - cos                target 1
                max(0, cos - margin)   target -1
                0                      any other target, which counts in the mean

    Args:
        margin: a number, best between -1 and 1.
        size_average, reduce: of old; see `torch.nn.CosineEmbeddingLoss`.
        reduction: "mean", "sum" or "none".

    Call: (input1, input2, target): rows (N, D) and targets (N,), or (D,) and (), of float16,
    bfloat16, float32 or float64.

    Returns:
        0-dim loss, or (N,) or () with reduction="none", in the dtype of the rows; under autocast
        float32 at least.

    Raises:
        ValueError: shapes that do not broadcast, or a target that does not fit the rows.

    Empty input: exactly 0, connected to the graph, with zero gradients; in torch the mean is NaN.

    Gradient: to both inputs; a row shorter than 1e-12 gets 0.

    Memory: O(N).

    Example:
        >>> import torch
        >>> from flashmetric.compat.torch import CosineEmbeddingLoss
        >>> rows = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
        >>> CosineEmbeddingLoss()(rows, rows.flip(1), torch.tensor([1, -1])).item()  # (1 + 0) / 2
        0.5
    """

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        """The loss of pairs of rows and their targets, 1 or -1."""
        name = "CosineEmbeddingLoss"
        reason = why_not("paired", input1, input2)
        if reason:
            not_fused(name, reason)
            return super().forward(input1, input2, target)
        if {input1.ndim, input2.ndim} != {target.ndim + 1} or target.ndim > 1:
            rule = "input1, input2 and target must be (N, D), (N, D), (N,) or (D,), (D,), ()"
            text = f"[{name}] {rule}; got {shapes_of(input1, input2, target)}."
            raise ValueError(text)
        shape, (x, y, sign) = _flat(name, input1=input1, input2=input2, target=target[..., None])
        sign = sign[:, 0]
        terms = contrastive_pairs_loss(
            *(x, y, sign == 1),
            margin=1 - self.margin,
            power=1,
            distance="cosine",
            weights=(sign.abs() == 1).to(torch.float32),
            reduction="none" if self.reduction == "none" else "sum",
        )
        if self.reduction == "mean":
            terms = terms / max(1, x.shape[0])
        return like(terms.reshape(shape) if self.reduction == "none" else terms, input1)


def _norm_of(function: object) -> tuple[float, float] | None:
    """(p, eps) of a distance function that is a norm of the difference."""
    if function is None or function is nn.functional.pairwise_distance:
        return 2.0, _DEFAULT_EPS
    if type(function) in (nn.PairwiseDistance, PairwiseDistance) and not function.keepdim:  # type: ignore[attr-defined]
        return function.norm, function.eps  # type: ignore[attr-defined]
    return None


def _kernel(swap: bool, eps: float) -> str:
    """The op of a triplet loss: no shift of three rows adds eps to all three differences."""
    return "paired" if swap and eps else "triplet"


def _why_not(kernel: str, p: float, *rows: Tensor) -> str:
    return why_not(kernel, *rows) if p >= 1 else f"p is {p}, below 1"


def _flat(name: str, **rows: Tensor) -> tuple[tuple[int, ...], list[Tensor]]:
    """(*), and as (T, D) the rows (*, D) that broadcast to it."""
    try:
        same = torch.broadcast_tensors(*rows.values())
    except RuntimeError:
        same = ()
    if not same or not same[0].ndim:
        rule = f"{', '.join(rows)} must be rows (*, D) of shapes that broadcast"
        text = f"[{name}] {rule}; got {shapes_of(*rows.values())}."
        raise ValueError(text)
    *shape, dim = same[0].shape
    return tuple(shape), [each.reshape(math.prod(shape), dim) for each in same]


def _triplets(
    loss: nn.TripletMarginLoss | nn.TripletMarginWithDistanceLoss,
    norm: tuple[float, float],
    *rows: Tensor,
) -> Tensor:
    """The loss of either class; norm: p and eps."""
    name, metric, eps = type(loss).__name__, Minkowski(norm[0]), norm[1]
    if len({each.ndim for each in rows}) > 1:
        rule = "anchor, positive and negative must have one number of dimensions"
        text = f"[{name}] {rule}; got {shapes_of(*rows)}."
        raise ValueError(text)
    shape, (a, p, n) = _flat(name, **dict(zip(_ROLES, rows, strict=True)))
    each = loss.reduction == "none"
    if _kernel(loss.swap, eps) == "paired":
        pairs = (a, p), (a, n), (p, n)
        dist_ap, dist_an, dist_pn = (distances(*pair, metric, eps) for pair in pairs)
        value = (loss.margin + dist_ap - torch.minimum(dist_an, dist_pn)).relu()
        if not each:
            value = value.sum() / (max(1, a.shape[0]) if loss.reduction == "mean" else 1)
    else:
        a, p, n = shifted(eps, a, p, n)
        reduction = cast("Reduction", loss.reduction)
        value = triplet_margin_loss(
            a, p, n, margin=loss.margin, distance=metric, swap=loss.swap, reduction=reduction
        )
    return like(value.reshape(shape) if each else value, rows[0])
