# SPDX-License-Identifier: BSD-3-Clause
"""The quadruplet loss of given quadruplets."""

from __future__ import annotations

import torch
from torch import Tensor

from flashmetric import _validate, reference
from flashmetric._metrics import Given, given_rows
from flashmetric._mining import Schedulable, current
from flashmetric._names import Distance, Impl, Reduction

from ._module import LossModule
from ._pairs import Terms, active, distances, given_sides, quadruplet_value

__all__ = ["QuadrupletMarginLoss", "quadruplet_margin_loss"]


def quadruplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative1: Tensor,
    negative2: Tensor,
    *,
    embeddings: Tensor | None = None,
    ref_embeddings: Tensor | None = None,
    margin1: Schedulable = 1.0,
    margin2: Schedulable = 0.5,
    distance: Distance = "sqeuclidean",
    normalize: bool = False,
    weights: Tensor | None = None,
    reduction: Reduction = "mean",
    impl: Impl = "auto",
) -> Tensor:
    """Equals `reference.quadruplet_margin_loss(...)` without storing the differences of the rows.

    Quadruplet t has the distances d_ap, d_an1 (anchor to each) and d_n1n2 (of the negatives)::

        value_t = max(0, d_ap - d_an1 + margin1) + max(0, d_ap - d_n1n2 + margin2)
        term_t  = weights_t * value_t

    Args:
        anchor: (T, D) rows; or, with embeddings, (T,) int64 rows of embeddings.
        positive: (T, D) rows; or (T,) int64 rows of ref_embeddings if given, else of embeddings.
        negative1: likewise, of another class than the anchor.
        negative2: likewise, of another class than both.
        embeddings: (B, D) rows that the indices point into. A row may occur in many quadruplets.
        ref_embeddings: (R, D) rows that all but anchor point into.
        margin1: in the unit of the distance: a finite number, a 0-dim tensor, (T,) one per
            quadruplet, or a callable that gives one of these on every call.
        margin2: likewise.
        distance: "sqeuclidean", "euclidean" or "cosine"; see `pairwise_distances`. Not "dot".
        normalize: divide each row by max(norm, 1e-12) first, with gradient.
        weights: (T,) factors of the terms.
        reduction: "mean" = sum of terms / sum of weights; "mean_active" divides by the weights of
            the quadruplets whose value is above 0; "sum"; "none" = the terms.
        impl: "auto", "fused" or "reference"; see `pairwise_distances`.

    Rows are float16, bfloat16, float32 or float64, of any strides.

    Returns:
        0-dim loss, or (T,) with reduction="none"; float32 for half precision, else of the dtype of
        the rows.

    Raises:
        TypeError: a dtype that is not supported, or not the same for all rows.
        ValueError: a shape, device or name that does not fit; an index out of range (checked on the
            CPU; elsewhere it gives NaN); a margin or weights that require grad.
        RuntimeError: impl="fused" where there are no kernels; a second derivative of the kernels;
            torch.vmap.

    Ties: none; nothing is chosen. The hinges have value and slope 0 at 0.

    Empty input: T = 0, or no weight, gives exactly 0, connected to the graph, with zero gradients.

    Gradient: to every set of rows, in its dtype; where a euclidean distance is 0, its subgradient
    0; a row shorter than 1e-12 gets 0 through normalize and cosine. Second derivatives:
    impl="reference".

    Memory: O(T + (B + R) D). Inputs are used as given under autocast.

    Reference: Chen et al., Beyond Triplet Loss: A Deep Quadruplet Network for Person
    Re-Identification, arXiv 1704.01719, section 3.2.

    Example:
        >>> import torch
        >>> from flashmetric import quadruplet_margin_loss
        >>> rows = torch.tensor([[0.0], [2.0], [2.0], [3.0]])
        >>> quadruplet_margin_loss(*rows.split(1)).item()  # (4 - 4 + 1) + (4 - 1 + 0.5)
        4.5
        >>> index = torch.arange(4).split(1)
        >>> quadruplet_margin_loss(*index, embeddings=rows, distance="euclidean").item()
        2.5
    """
    op = "quadruplet_margin_loss"
    _validate.names(op, reduction=reduction)
    _validate.distance(op, distance)
    _validate.not_dot(op, distance)
    _validate.flags(op, normalize=normalize)
    roles = {"anchor": anchor, "positive": positive, "negative1": negative1, "negative2": negative2}
    given: Given = (roles, embeddings, ref_embeddings)
    given, (measure, normalize) = given_rows(op, given, distance, normalize)
    sides, (_, embeddings, ref_embeddings) = tuple(given[0].values()), given
    anchor = sides[0]
    rows, n = anchor if embeddings is None else embeddings, anchor.shape[0]
    margin1, margin2 = current(margin1), current(margin2)
    _validate.number(op, "margin1", margin1, rows, n)
    _validate.number(op, "margin2", margin2, rows, n)
    _validate.weights(op, weights, n, rows)
    if not _validate.use_fused(op, impl, rows.device, "paired", measure):
        return reference.quadruplet_margin_loss(
            *sides,
            embeddings=embeddings,
            ref_embeddings=ref_embeddings,
            margin1=margin1,
            margin2=margin2,
            distance=measure,
            normalize=normalize,
            weights=weights,
            reduction=reduction,
        )
    a, p, n1, n2 = given_sides(sides, embeddings, ref_embeddings)
    pairs, metric = ((a, p), (a, n1), (n1, n2)), (measure, normalize)
    dist_ap, dist_an, dist_nn = (distances(op, *pair, metric) for pair in pairs)
    value = quadruplet_value((dist_ap, dist_an, dist_nn), (margin1, margin2))
    every = torch.ones_like(value, dtype=torch.bool)
    return Terms(value, every, active(value), n).reduce(weights, reduction)


class QuadrupletMarginLoss(LossModule):
    """`quadruplet_margin_loss` with remembered options; its docstring says what they mean.

    Stateless: no parameters, nothing in the state_dict. Margin tensors move with the module.

    Example:
        >>> import torch
        >>> from flashmetric import QuadrupletMarginLoss
        >>> criterion = QuadrupletMarginLoss(margin2=0.25, reduction="sum")
        >>> criterion
        QuadrupletMarginLoss(margin2=0.25, reduction='sum')
        >>> criterion(*torch.ones(4, 2, 3)).item()  # all rows equal: twice 1 + 0.25
        2.5
    """

    def __init__(
        self,
        margin1: Schedulable = 1.0,
        margin2: Schedulable = 0.5,
        *,
        distance: Distance = "sqeuclidean",
        normalize: bool = False,
        reduction: Reduction = "mean",
        impl: Impl = "auto",
    ) -> None:
        name = type(self).__name__
        _validate.names(name, reduction=reduction, impl=impl)
        _validate.distance(name, distance)
        _validate.not_dot(name, distance)
        super().__init__(
            margin1=margin1,
            margin2=margin2,
            distance=distance,
            normalize=normalize,
            reduction=reduction,
            impl=impl,
        )

    def forward(
        self,
        anchor: Tensor,
        positive: Tensor,
        negative1: Tensor,
        negative2: Tensor,
        *,
        embeddings: Tensor | None = None,
        ref_embeddings: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Tensor:
        """`quadruplet_margin_loss` of these quadruplets: rows, or indices into `embeddings`."""
        return quadruplet_margin_loss(
            anchor,
            positive,
            negative1,
            negative2,
            embeddings=embeddings,
            ref_embeddings=ref_embeddings,
            weights=weights,
            **self.options(),
        )
