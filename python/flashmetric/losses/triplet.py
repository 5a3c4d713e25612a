# SPDX-License-Identifier: BSD-3-Clause
"""The triplet loss of a batch: mining and loss in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict, overload

from torch import Tensor

from flashmetric import _autograd, _validate
from flashmetric._names import Distance, Impl, Invalid, Mining, Reduction
from flashmetric.reference import Stats
from flashmetric.reference.losses import Formula, mined_loss
from flashmetric.reference.mining import Comparison

from ._module import LossModule

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["BatchHardTripletLoss", "TripletLoss", "triplet_loss"]


class _Options(TypedDict, total=False):
    """The keywords of triplet_loss that do not decide what it returns."""

    margin: float | Tensor | None
    mining: Mining
    distance: Distance
    normalize: bool
    soft_margin: bool
    ref_embeddings: Tensor | None
    ref_labels: Tensor | None
    same_mask: Tensor | None
    self_index: Tensor | None
    ignore_label: float | None
    weights: Tensor | None
    invalid: Invalid
    reduction: Reduction
    impl: Impl


@overload
def triplet_loss(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    return_stats: Literal[False] = False,
    **options: Unpack[_Options],
) -> Tensor: ...
@overload
def triplet_loss(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    return_stats: Literal[True],
    **options: Unpack[_Options],
) -> tuple[Tensor, Stats]: ...
@overload
def triplet_loss(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    return_stats: bool,
    **options: Unpack[_Options],
) -> Tensor | tuple[Tensor, Stats]: ...


def triplet_loss(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    margin: float | Tensor | None = None,
    mining: Mining = "hard",
    distance: Distance = "euclidean",
    normalize: bool = False,
    soft_margin: bool = False,
    ref_embeddings: Tensor | None = None,
    ref_labels: Tensor | None = None,
    same_mask: Tensor | None = None,
    self_index: Tensor | None = None,
    ignore_label: float | None = None,
    weights: Tensor | None = None,
    invalid: Invalid = "drop",
    reduction: Reduction = "mean",
    return_stats: bool = False,
    impl: Impl = "auto",
) -> Tensor | tuple[Tensor, Stats]:
    """Equals `reference.triplet_loss(...)` without storing the (B, R) distance matrix.

    Each anchor i (a row of the embeddings with a positive and a negative among the references) is
    joined by its farthest positive and its nearest negative, at distances d_ap and d_an::

        violation_i = d_ap - d_an + margin
        value_i     = max(0, violation_i), or log(1 + exp(violation_i)) with soft_margin
        term_i      = weights_i * value_i

    Args:
        embeddings: (B, D) queries; float16, bfloat16, float32 or float64, of any strides.
        labels: (B,) class ids of any integer, bool or float dtype; or (B, C) multi-hot, nonzero =
            member, where two rows are of one class if they share at least one.
        margin: in the unit of the distance: a finite number, a 0-dim tensor, or (B,) one per
            anchor (per class: ``class_margin[labels]``). None = 1 for the hinge, 0 for softplus.
        mining: "hard".
        distance: "euclidean", "sqeuclidean", "cosine" or "dot"; see `pairwise_distances`.
        normalize: divide each row by max(norm, 1e-12) first, with gradient.
        soft_margin: softplus instead of the hinge.
        ref_embeddings: (R, D) references to choose from. Without them the embeddings are the
            references, and no row is compared with itself.
        ref_labels: (R,) or (R, C), of the kind of labels.
        same_mask: (B, R) bool, instead of labels: is reference j of the class of query i? It need
            not be symmetric.
        self_index: (B,) int64: the reference that is query i itself, excluded before mining;
            -1 = none. Needs ref_embeddings.
        ignore_label: rows of this class are neither anchors nor candidates. Needs (B,) labels.
        weights: (B,) factors of the terms. An anchor of weight 0 is still a candidate of others.
        invalid: "drop" leaves out anchors without a positive or without a negative. "count" keeps
            them: d_ap = 0 without a positive; without a negative the violation is the margin.
        reduction: "mean" = sum of terms / sum of the weights of the anchors counted; "mean_active"
            divides by those of the anchors whose value is above 0; "sum"; "none" = the terms, 0
            where an anchor is not counted.
        return_stats: return (loss, Stats) instead of the loss; `Stats` says what they are.
        impl: "fused" (the kernels), "reference" (plain torch), or "auto": the kernels where they
            exist, else plain torch with one warning that says why.

    Returns:
        0-dim loss, or (B,) with reduction="none"; float32 for half precision, else of the dtype of
        the embeddings.

    Raises:
        TypeError: a dtype that is not supported, or that does not fit the other side.
        ValueError: a shape, device, name or value that does not fit; NaN among float labels; a
            margin or weights that require grad.
        RuntimeError: impl="fused" where there are no kernels; a second derivative of the kernels;
            torch.vmap.

    Ties: rows are compared by float64 keys (`reference.rank_key`); of equal keys the lowest index
    is chosen, and a row with a NaN key before any other. The hinge has value and slope 0 at 0.

    Empty input: without anything to count (an empty batch, one row, one class, all classes
    distinct, no weight) the loss is exactly 0, connected to the graph, with zero gradients.

    Gradient: to embeddings and ref_embeddings, of the chosen pairs, in their dtype; where a
    euclidean distance is 0, its subgradient 0; a row shorter than 1e-12 gets 0 through normalize
    and cosine. Second derivatives: impl="reference".

    Memory: O((B + R) D). Inputs are used as given under autocast. No host synchronisation.

    References: Hermans, Beyer, Leibe, In Defense of the Triplet Loss for Person Re-Identification,
    arXiv 1703.07737, section 2 (batch hard, soft margin); Schroff, Kalenichenko, Philbin, FaceNet,
    arXiv 1503.03832, section 3.1 (the hinge).

    Example:
        >>> import torch
        >>> from flashmetric import triplet_loss
        >>> embeddings = torch.tensor([[0.0], [3.0], [5.0], [6.0]], requires_grad=True)
        >>> loss, stats = triplet_loss(embeddings, torch.tensor([0, 0, 1, 1]), return_stats=True)
        >>> loss.item()  # violations: 3 - 5 + 1, 3 - 2 + 1, 1 - 2 + 1, 1 - 3 + 1
        0.5
        >>> stats.active_fraction.item()
        0.25
        >>> loss.backward()
        >>> embeddings.grad.flatten().tolist()
        [-0.25, 0.5, -0.25, 0.0]
    """
    op = "triplet_loss"
    _validate.names(op, mining=mining, distance=distance, invalid=invalid, reduction=reduction)
    _validate.flags(op, normalize=normalize, soft_margin=soft_margin, return_stats=return_stats)
    given = Comparison(
        embeddings, labels, ref_embeddings, ref_labels, same_mask, self_index, ignore_label
    )
    _validate.comparison(op, given)
    _validate.margin(op, margin, embeddings.shape[0], embeddings)
    _validate.weights(op, weights, embeddings.shape[0], embeddings)
    if _validate.use_fused(op, impl, embeddings.device):
        formula = _autograd.Formula(
            *(margin, weights, distance, normalize, soft_margin),
            swap=False,
            count_invalid=invalid == "count",
            reduction=reduction,
            with_stats=return_stats,
        )
        loss, numbers = _autograd.mined_triplet(op, given, mining, formula)
        return (loss, Stats(*numbers.to(loss.dtype).unbind())) if return_stats else loss
    terms = Formula(margin, soft_margin, weights, reduction)
    loss, stats = mined_loss(given, (mining, distance, normalize), terms, invalid)
    return (loss, stats) if return_stats else loss


class TripletLoss(LossModule):
    """`triplet_loss` with remembered options; its docstring says what they mean.

    Stateless: no parameters, nothing in the state_dict. A margin tensor moves with the module.

    Example:
        >>> import torch
        >>> from flashmetric import TripletLoss
        >>> criterion = TripletLoss(margin=0.2, distance="sqeuclidean", normalize=True)
        >>> criterion
        TripletLoss(margin=0.2, distance='sqeuclidean', normalize=True)
        >>> embeddings = torch.nn.Linear(3, 2)(torch.ones(4, 3))
        >>> criterion(embeddings, torch.tensor([0, 0, 1, 1])).backward()
    """

    def __init__(
        self,
        margin: float | Tensor | None = None,
        *,
        mining: Mining = "hard",
        distance: Distance = "euclidean",
        normalize: bool = False,
        soft_margin: bool = False,
        ignore_label: float | None = None,
        invalid: Invalid = "drop",
        reduction: Reduction = "mean",
        return_stats: bool = False,
        impl: Impl = "auto",
    ) -> None:
        super().__init__(margin)
        words = {"distance": distance, "invalid": invalid, "reduction": reduction, "impl": impl}
        _validate.names(type(self).__name__, mining=mining, **words)
        self.mining = mining
        self.distance = distance
        self.normalize = normalize
        self.soft_margin = soft_margin
        self.ignore_label = ignore_label
        self.invalid = invalid
        self.reduction = reduction
        self.return_stats = return_stats
        self.impl = impl

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor | None = None,
        *,
        ref_embeddings: Tensor | None = None,
        ref_labels: Tensor | None = None,
        same_mask: Tensor | None = None,
        self_index: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Stats]:
        """`triplet_loss` of this batch: (B, D) embeddings and their labels."""
        return triplet_loss(
            embeddings,
            labels,
            margin=self.margin,
            mining=self.mining,
            distance=self.distance,
            normalize=self.normalize,
            soft_margin=self.soft_margin,
            ref_embeddings=ref_embeddings,
            ref_labels=ref_labels,
            same_mask=same_mask,
            self_index=self_index,
            ignore_label=self.ignore_label,
            weights=weights,
            invalid=self.invalid,
            reduction=self.reduction,
            return_stats=self.return_stats,
            impl=self.impl,
        )


class BatchHardTripletLoss(TripletLoss):
    """`TripletLoss` with mining="hard": the farthest positive and the nearest negative per anchor.

    Reference: Hermans, Beyer, Leibe, arXiv 1703.07737, section 2. Their best variant is
    ``BatchHardTripletLoss(soft_margin=True)``.
    """

    def __init__(
        self,
        margin: float | Tensor | None = None,
        *,
        distance: Distance = "euclidean",
        normalize: bool = False,
        soft_margin: bool = False,
        ignore_label: float | None = None,
        invalid: Invalid = "drop",
        reduction: Reduction = "mean",
        return_stats: bool = False,
        impl: Impl = "auto",
    ) -> None:
        super().__init__(
            margin,
            mining="hard",
            distance=distance,
            normalize=normalize,
            soft_margin=soft_margin,
            ignore_label=ignore_label,
            invalid=invalid,
            reduction=reduction,
            return_stats=return_stats,
            impl=impl,
        )
