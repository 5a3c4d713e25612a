# SPDX-License-Identifier: BSD-3-Clause
"""The triplet loss of given triplets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict, overload

from torch import Tensor

from flashmetric import _autograd, _validate, reference
from flashmetric._metrics import Given, given_rows
from flashmetric._mining import Schedulable, current
from flashmetric._names import Distance, Impl, Reduction
from flashmetric.reference import Stats

from ._module import LossModule

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["TripletMarginLoss", "triplet_margin_loss"]


class _Options(TypedDict, total=False):
    """The keywords of triplet_margin_loss that do not decide what it returns."""

    embeddings: Tensor | None
    ref_embeddings: Tensor | None
    margin: Schedulable | None
    distance: Distance
    normalize: bool
    swap: bool
    soft_margin: bool
    weights: Tensor | None
    reduction: Reduction
    impl: Impl


@overload
def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    return_stats: Literal[False] = False,
    **options: Unpack[_Options],
) -> Tensor: ...
@overload
def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    return_stats: Literal[True],
    **options: Unpack[_Options],
) -> tuple[Tensor, Stats]: ...
@overload
def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    return_stats: bool,
    **options: Unpack[_Options],
) -> Tensor | tuple[Tensor, Stats]: ...


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    embeddings: Tensor | None = None,
    ref_embeddings: Tensor | None = None,
    margin: Schedulable | None = None,
    distance: Distance = "euclidean",
    normalize: bool = False,
    swap: bool = False,
    soft_margin: bool = False,
    weights: Tensor | None = None,
    reduction: Reduction = "mean",
    return_stats: bool = False,
    impl: Impl = "auto",
) -> Tensor | tuple[Tensor, Stats]:
    """Equals `reference.triplet_margin_loss(...)` without storing the differences of the rows.

    Triplet t has the distances d_ap (anchor to positive) and d_an (anchor to negative)::

        violation_t = d_ap - d_an + margin
        value_t     = max(0, violation_t), or log(1 + exp(violation_t)) with soft_margin
        term_t      = weights_t * value_t

    With ``swap`` d_an is min(d_an, d_pn): the negative may be nearer to the positive.

    Args:
        anchor: (T, D) rows; or, with embeddings, (T,) int64 rows of embeddings.
        positive: (T, D) rows; or (T,) int64 rows of ref_embeddings if given, else of embeddings.
        negative: likewise.
        embeddings: (B, D) rows that the indices point into. A row may occur in many triplets.
        ref_embeddings: (R, D) rows that positive and negative point into.
        margin: in the unit of the distance: a finite number, a 0-dim tensor, (T,) one per triplet,
            or a callable that gives one of these on every call. None = 1 for the hinge, 0 for
            softplus.
        distance: a name, an object or a function; see `pairwise_distances`.
        normalize: divide each row by max(norm, 1e-12) first, with gradient.
        swap: compare the positive with the negative too (Balntas et al. 2016).
        soft_margin: softplus instead of the hinge.
        weights: (T,) factors of the terms.
        reduction: "mean" = sum of terms / sum of weights; "mean_active" divides by the weights of
            the triplets whose value is above 0; "sum"; "none" = the terms.
        return_stats: return (loss, Stats) instead of the loss; d_an is then the one after swap.
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

    Ties: where d_an = d_pn, each carries half of the gradient, as in torch.minimum. The hinge has
    value and slope 0 at 0.

    Empty input: T = 0, or no weight, gives exactly 0, connected to the graph, with zero gradients.

    Gradient: to every set of rows, in its dtype; where a euclidean distance is 0, its subgradient
    0; a row shorter than 1e-12 gets 0 through normalize and cosine. Second derivatives:
    impl="reference".

    Memory: O(T + (B + R) D). Inputs are used as given under autocast.

    References: Schroff, Kalenichenko, Philbin, FaceNet, arXiv 1503.03832, section 3.1; Balntas et
    al., Learning local feature descriptors with triplets and shallow convolutional neural networks,
    BMVC 2016 (swap).

    Example:
        >>> import torch
        >>> from flashmetric import triplet_margin_loss
        >>> rows = torch.tensor([[0.0], [3.0], [5.0]])
        >>> triplet_margin_loss(rows[:1], rows[1:2], rows[2:]).item()  # max(0, 3 - 5 + 1)
        0.0
        >>> index = torch.tensor([0]), torch.tensor([1]), torch.tensor([2])
        >>> triplet_margin_loss(*index, embeddings=rows, swap=True).item()  # max(0, 3 - 2 + 1)
        2.0
    """
    op = "triplet_margin_loss"
    _validate.names(op, reduction=reduction)
    _validate.distance(op, distance)
    _validate.flags(op, normalize=normalize, swap=swap, soft_margin=soft_margin)
    _validate.flags(op, return_stats=return_stats)
    roles = {"anchor": anchor, "positive": positive, "negative": negative}
    sides: Given = (roles, embeddings, ref_embeddings)
    sides, (measure, normalize) = given_rows(op, sides, distance, normalize)
    triplets, (_, embeddings, ref_embeddings) = tuple(sides[0].values()), sides
    anchor = triplets[0]
    rows = anchor if embeddings is None else embeddings
    margin = current(margin)
    _validate.number(op, "margin", margin, rows, anchor.shape[0], optional=True)
    _validate.weights(op, weights, anchor.shape[0], rows)
    if _validate.use_fused(op, impl, rows.device, "triplet", measure):
        indexed = embeddings is not None
        formula = _autograd.Formula(
            *(margin, weights, measure, normalize, soft_margin),
            swap=swap,
            count_invalid=False,
            reduction=reduction,
            with_stats=return_stats,
        )
        sets = (embeddings, ref_embeddings, None) if indexed else triplets
        index = triplets if indexed else (None, None, None)
        loss, numbers = _autograd.triplet(op, sets, index, formula)
        return (loss, Stats(*numbers.to(loss.dtype).unbind())) if return_stats else loss
    return reference.triplet_margin_loss(
        *triplets,
        embeddings=embeddings,
        ref_embeddings=ref_embeddings,
        margin=margin,
        distance=measure,
        normalize=normalize,
        swap=swap,
        soft_margin=soft_margin,
        weights=weights,
        reduction=reduction,
        return_stats=return_stats,
    )


class TripletMarginLoss(LossModule):
    """`triplet_margin_loss` with remembered options; its docstring says what they mean.

    Stateless: no parameters, nothing in the state_dict. A margin tensor moves with the module.

    Example:
        >>> import torch
        >>> from flashmetric import TripletMarginLoss
        >>> criterion = TripletMarginLoss(margin=0.5, swap=True)
        >>> criterion
        TripletMarginLoss(margin=0.5, swap=True)
        >>> criterion(*torch.ones(3, 7, 4)).item()  # all rows equal: max(0, 0 - 0 + 0.5)
        0.5
    """

    def __init__(
        self,
        margin: Schedulable | None = None,
        *,
        distance: Distance = "euclidean",
        normalize: bool = False,
        swap: bool = False,
        soft_margin: bool = False,
        reduction: Reduction = "mean",
        return_stats: bool = False,
        impl: Impl = "auto",
    ) -> None:
        words = {"reduction": reduction, "impl": impl}
        _validate.names(type(self).__name__, **words)
        _validate.distance(type(self).__name__, distance)
        super().__init__(
            margin=margin,
            distance=distance,
            normalize=normalize,
            swap=swap,
            soft_margin=soft_margin,
            return_stats=return_stats,
            **words,
        )

    def forward(
        self,
        anchor: Tensor,
        positive: Tensor,
        negative: Tensor,
        *,
        embeddings: Tensor | None = None,
        ref_embeddings: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Stats]:
        """`triplet_margin_loss` of these triplets: rows, or indices into `embeddings`."""
        result: Tensor | tuple[Tensor, Stats] = triplet_margin_loss(
            anchor,
            positive,
            negative,
            embeddings=embeddings,
            ref_embeddings=ref_embeddings,
            weights=weights,
            **self.options(),
        )
        return result
