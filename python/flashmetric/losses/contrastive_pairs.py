# SPDX-License-Identifier: BSD-3-Clause
"""The contrastive loss of given pairs."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from flashmetric import _validate, reference
from flashmetric._metrics import Given, given_rows
from flashmetric._mining import Schedulable, current
from flashmetric._names import Distance, Impl, Reduction

from ._module import LossModule
from ._pairs import Terms, active, at_anchors, distances, given_sides

__all__ = ["ContrastivePairsLoss", "contrastive_pairs_loss"]


def contrastive_pairs_loss(
    x1: Tensor,
    x2: Tensor,
    similar: Tensor,
    *,
    embeddings: Tensor | None = None,
    ref_embeddings: Tensor | None = None,
    margin: Schedulable = 1.0,
    pos_margin: Schedulable = 0.0,
    power: Literal[1, 2] = 2,
    half: bool = False,
    distance: Distance = "euclidean",
    normalize: bool = False,
    weights: Tensor | None = None,
    reduction: Reduction = "mean",
    impl: Impl = "auto",
) -> Tensor:
    """Equals `reference.contrastive_pairs_loss(...)` without storing the differences of the rows.

    Pair t has the distance d::

        value_t = max(0, d - pos_margin)^power   where similar_t is 1
        value_t = max(0, margin - d)^power       where it is 0
        term_t  = weights_t * value_t

    Args:
        x1: (T, D) rows; or, with embeddings, (T,) int64 rows of embeddings.
        x2: (T, D) rows; or (T,) int64 rows of ref_embeddings if given, else of embeddings.
        similar: (T,) of 1 (pull together) and 0 (push apart), of any bool, integer or float dtype.
        embeddings: (B, D) rows that the indices point into. A row may occur in many pairs.
        ref_embeddings: (R, D) rows that x2 points into.
        margin: how far dissimilar rows are pushed, in the unit of the distance: a finite number, a
            0-dim tensor, or a callable that gives one of these on every call.
        pos_margin: how near similar rows are pulled; likewise.
        power: 1 or 2, of the named distance: with "sqeuclidean" 2 is its square.
        half: halve every value.
        distance: a name, an object or a function; see `pairwise_distances`. Not "dot", which has no
            0 to measure margins from.
        normalize: divide each row by max(norm, 1e-12) first, with gradient.
        weights: (T,) factors of the terms.
        reduction: "mean" = sum of terms / sum of weights, over all pairs; "mean_active" divides by
            the weights of the pairs whose value is above 0; "sum"; "none" = the terms.
        impl: "auto", "fused" or "reference"; see `pairwise_distances`.

    Rows are float16, bfloat16, float32 or float64, of any strides.

    Returns:
        0-dim loss, or (T,) with reduction="none"; float32 for half precision, else of the dtype of
        the rows.

    Raises:
        TypeError: a dtype that is not supported, or not the same for all rows.
        ValueError: a shape, device or name that does not fit; an index out of range or a similar
            that is neither 0 nor 1 (checked on the CPU; elsewhere a wrong index gives NaN, and
            what is not 0 is 1); a margin or weights that require grad.
        RuntimeError: impl="fused" where there are no kernels; a second derivative of the kernels;
            torch.vmap.

    Ties: none; nothing is chosen. The hinges have value and slope 0 at 0.

    Empty input: T = 0, or no weight, gives exactly 0, connected to the graph, with zero gradients.

    Gradient: to every set of rows, in its dtype; where a euclidean distance is 0, its subgradient
    0; a row shorter than 1e-12 gets 0 through normalize and cosine. Second derivatives:
    impl="reference".

    Memory: O(T + (B + R) D). Inputs are used as given under autocast.

    Reference: Hadsell, Chopra, LeCun, Dimensionality Reduction by Learning an Invariant Mapping,
    CVPR 2006, section 2.1 (with half=True).

    Example:
        >>> import torch
        >>> from flashmetric import contrastive_pairs_loss
        >>> rows = torch.tensor([[0.0], [2.0], [2.5]])
        >>> similar = torch.tensor([1, 0])
        >>> contrastive_pairs_loss(rows[:2], rows[1:], similar).item()  # (2^2 + (1 - 0.5)^2) / 2
        2.125
        >>> index = torch.tensor([0, 1]), torch.tensor([1, 2])
        >>> contrastive_pairs_loss(*index, similar, embeddings=rows, reduction="none").tolist()
        [4.0, 0.25]
    """
    op = "contrastive_pairs_loss"
    _validate.names(op, reduction=reduction)
    _validate.distance(op, distance)
    _validate.not_dot(op, distance)
    _validate.power(op, power)
    _validate.flags(op, half=half, normalize=normalize)
    sides: Given = ({"x1": x1, "x2": x2}, embeddings, ref_embeddings)
    sides, (measure, normalize) = given_rows(op, sides, distance, normalize)
    (x1, x2), (_, embeddings, ref_embeddings) = sides[0].values(), sides
    rows = x1 if embeddings is None else embeddings
    _validate.similar(op, similar, x1.shape[0], rows)
    margin, pos_margin = current(margin), current(pos_margin)
    _validate.number(op, "margin", margin, rows)
    _validate.number(op, "pos_margin", pos_margin, rows)
    _validate.weights(op, weights, x1.shape[0], rows)
    if not _validate.use_fused(op, impl, rows.device, "paired", measure):
        return reference.contrastive_pairs_loss(
            *(x1, x2, similar),
            embeddings=embeddings,
            ref_embeddings=ref_embeddings,
            margin=margin,
            pos_margin=pos_margin,
            power=power,
            half=half,
            distance=measure,
            normalize=normalize,
            weights=weights,
            reduction=reduction,
        )
    first, second = given_sides((x1, x2), embeddings, ref_embeddings)
    found = distances(op, first, second, (measure, normalize))
    near, far = (at_anchors(each, None, found.dtype) for each in (pos_margin, margin))
    excess = torch.where(similar != 0, found - near, far - found).relu()
    value = excess if power == 1 else excess * excess
    value = 0.5 * value if half else value
    every = torch.ones_like(value, dtype=torch.bool)
    return Terms(value, every, active(value), value.shape[0]).reduce(weights, reduction)


class ContrastivePairsLoss(LossModule):
    """`contrastive_pairs_loss` with remembered options; its docstring says what they mean.

    Stateless: no parameters, nothing in the state_dict. Margin tensors move with the module. The
    option half is the attribute ``half_``, next to the method ``half()`` of modules.

    Example:
        >>> import torch
        >>> from flashmetric import ContrastivePairsLoss
        >>> criterion = ContrastivePairsLoss(margin=0.5, distance="cosine")
        >>> criterion
        ContrastivePairsLoss(margin=0.5, distance='cosine')
        >>> criterion(*torch.eye(4).split(2), torch.tensor([1, 0])).item()  # cosine distances 1
        0.5
    """

    def __init__(
        self,
        margin: Schedulable = 1.0,
        pos_margin: Schedulable = 0.0,
        *,
        power: Literal[1, 2] = 2,
        half: bool = False,
        distance: Distance = "euclidean",
        normalize: bool = False,
        reduction: Reduction = "mean",
        impl: Impl = "auto",
    ) -> None:
        name = type(self).__name__
        _validate.names(name, reduction=reduction, impl=impl)
        _validate.distance(name, distance)
        _validate.not_dot(name, distance)
        _validate.power(name, power)
        super().__init__(
            margin=margin,
            pos_margin=pos_margin,
            power=power,
            half=half,
            distance=distance,
            normalize=normalize,
            reduction=reduction,
            impl=impl,
        )

    def forward(
        self,
        x1: Tensor,
        x2: Tensor,
        similar: Tensor,
        *,
        embeddings: Tensor | None = None,
        ref_embeddings: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Tensor:
        """`contrastive_pairs_loss` of these pairs: rows, or indices into `embeddings`."""
        return contrastive_pairs_loss(
            x1,
            x2,
            similar,
            embeddings=embeddings,
            ref_embeddings=ref_embeddings,
            weights=weights,
            **self.options(),
        )
