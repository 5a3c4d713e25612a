# SPDX-License-Identifier: BSD-3-Clause
"""The quadruplet loss of a batch: mining and loss in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

import torch
from torch import Tensor

from flashmetric import _autograd, _validate, reference
from flashmetric._metrics import compared
from flashmetric._mining import Number, Schedulable, current, hardest
from flashmetric._names import Distance, Impl, Reduction
from flashmetric.reference import Stats
from flashmetric.reference.mining import Comparison

from ._keywords import ComparisonKeywords
from ._module import BatchLoss
from ._pairs import Terms, active, distances, quadruplet_value, widened

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["QuadrupletLoss", "quadruplet_loss"]


class _Options(ComparisonKeywords, total=False):
    """The keywords of quadruplet_loss that do not decide what it returns."""

    margin1: Schedulable
    margin2: Schedulable
    reduction: Reduction


@overload
def quadruplet_loss(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    return_stats: Literal[False] = False,
    **options: Unpack[_Options],
) -> Tensor: ...
@overload
def quadruplet_loss(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    return_stats: Literal[True],
    **options: Unpack[_Options],
) -> tuple[Tensor, Stats]: ...
@overload
def quadruplet_loss(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    return_stats: bool,
    **options: Unpack[_Options],
) -> Tensor | tuple[Tensor, Stats]: ...


def quadruplet_loss(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    margin1: Schedulable = 1.0,
    margin2: Schedulable = 0.5,
    distance: Distance = "sqeuclidean",
    normalize: bool = False,
    ref_embeddings: Tensor | None = None,
    ref_labels: Tensor | None = None,
    same_mask: Tensor | None = None,
    self_index: Tensor | None = None,
    ignore_label: float | None = None,
    weights: Tensor | None = None,
    reduction: Reduction = "mean",
    return_stats: bool = False,
    impl: Impl = "auto",
) -> Tensor | tuple[Tensor, Stats]:
    """Equals `reference.quadruplet_loss(...)` without storing the (B, R) distance matrix.

    Each anchor i (a row of the embeddings with a positive and a negative among the references) is
    joined by its farthest positive p, its nearest negative n1, and n2, the reference nearest to n1
    that is of neither's class::

        value_i = max(0, d_ap - d_an1 + margin1) + max(0, d_ap - d_n1n2 + margin2)
        term_i  = weights_i * value_i

    Without an n2 (two classes) the second summand is absent.

    Args:
        embeddings: (B, D) queries; float16, bfloat16, float32 or float64, of any strides.
        labels: (B,) class ids of any integer, bool or float dtype; or (B, C) multi-hot, nonzero =
            member, where two rows are of one class if they share at least one.
        margin1: in the unit of the distance: a finite number, a 0-dim tensor, (B,) one per anchor,
            or a callable that gives one of these on every call.
        margin2: likewise; usually below margin1, as the second summand compares strangers.
        distance: "sqeuclidean", "euclidean" or "cosine"; see `pairwise_distances`. Not "dot".
        normalize: divide each row by max(norm, 1e-12) first, with gradient.
        ref_embeddings: (R, D) references to choose from. Without them the embeddings are the
            references, and no row is compared with itself.
        ref_labels: (R,) or (R, C), of the kind of labels.
        same_mask: (B, B) bool, instead of labels: is row j of the class of row i? It need not be
            symmetric; n2 is neither in the row of the anchor nor in that of n1. Not with
            ref_embeddings, of which it says nothing among themselves.
        self_index: (B,) int64: the reference that is query i itself, excluded before mining;
            -1 = none. Needs ref_embeddings.
        ignore_label: rows of this class are neither anchors nor candidates. Needs (B,) labels.
        weights: (B,) factors of the terms. An anchor of weight 0 is still a candidate of others.
        reduction: "mean" = sum of terms / sum of the weights of the anchors counted; "mean_active"
            divides by those of the anchors whose value is above 0; "sum"; "none" = the terms, 0
            where an anchor is not counted.
        return_stats: return (loss, Stats) instead of the loss; d_an is that of n1.
        impl: "auto", "fused" or "reference"; see `pairwise_distances`.

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
    is chosen, and a row with a NaN key before any other. The hinges have value and slope 0 at 0.

    Empty input: without anything to count (an empty batch, one row, one class, all classes
    distinct, no weight) the loss is exactly 0, connected to the graph, with zero gradients.

    Gradient: to embeddings and ref_embeddings, of the chosen pairs, in their dtype; where a
    euclidean distance is 0, its subgradient 0; a row shorter than 1e-12 gets 0 through normalize
    and cosine. Second derivatives: impl="reference".

    Memory: O((B + R) D). Inputs are used as given under autocast.

    Reference: Chen et al., Beyond Triplet Loss: A Deep Quadruplet Network for Person
    Re-Identification, arXiv 1704.01719, section 3.2.

    Example:
        >>> import torch
        >>> from flashmetric import quadruplet_loss
        >>> embeddings = torch.tensor([[0.0], [2.0], [3.0], [5.0]], requires_grad=True)
        >>> labels = torch.tensor([0, 0, 1, 2])
        >>> terms = quadruplet_loss(embeddings, labels, distance="euclidean", reduction="none")
        >>> terms.tolist()  # n1 is row 2, n2 row 3: (2 - 3 + 1) + (2 - 2 + 0.5), then 2 + 0.5
        [0.5, 2.5, 0.0, 0.0]
    """
    op = "quadruplet_loss"
    _validate.names(op, reduction=reduction)
    _validate.distance(op, distance)
    _validate.not_dot(op, distance)
    _validate.flags(op, normalize=normalize, return_stats=return_stats)
    given = Comparison(
        embeddings, labels, ref_embeddings, ref_labels, same_mask, self_index, ignore_label
    )
    given, (measure, normalize) = compared(op, given, distance, normalize)
    embeddings = given.embeddings
    _validate.no_mask_of_references(op, given)
    margin1, margin2 = current(margin1), current(margin2)
    _validate.number(op, "margin1", margin1, embeddings, embeddings.shape[0])
    _validate.number(op, "margin2", margin2, embeddings, embeddings.shape[0])
    _validate.weights(op, weights, embeddings.shape[0], embeddings)
    if not _validate.use_fused(op, impl, embeddings.device, "apart", measure):
        return reference.quadruplet_loss(
            **given._asdict(),
            margin1=margin1,
            margin2=margin2,
            distance=measure,
            normalize=normalize,
            weights=weights,
            reduction=reduction,
            return_stats=return_stats,
        )
    terms, dist_ap, dist_an = _mined(op, given, (margin1, margin2), (measure, normalize))
    loss = terms.reduce(weights, reduction)
    return (loss, terms.stats(dist_ap, dist_an, embeddings)) if return_stats else loss


def _mined(
    op: str, given: Comparison, margins: tuple[Number, Number], metric: tuple[str, bool]
) -> tuple[Terms, Tensor, Tensor]:
    """The terms of every row of the embeddings, and its d_ap and d_an1, by the kernels."""
    positive, nearest = hardest(given, *metric)
    valid = (positive >= 0) & (nearest >= 0)
    second = _autograd.apart(op, given, nearest, *metric)
    positive, first, second = (torch.where(valid, each, -1) for each in (positive, nearest, second))
    x = widened(given.embeddings)
    if given.ref_embeddings is None:  # one set of rows, and one gradient
        rows = torch.arange(x.shape[0], device=x.device)
        ends = torch.cat((rows, rows, first)), torch.cat((positive, first, second))
        dist_ap, dist_an, dist_nn = distances(op, (x, ends[0]), (x, ends[1]), metric).chunk(3)
    else:
        refs = widened(given.ref_embeddings)
        dist_ap = distances(op, (x, None), (refs, positive), metric)
        dist_an = distances(op, (x, None), (refs, first), metric)
        dist_nn = distances(op, (refs, first), (refs, second), metric)
    value = quadruplet_value((dist_ap, dist_an, dist_nn), margins, second >= 0)
    value = torch.where(valid, value, 0)
    return Terms(value, valid, active(value), value.shape[0]), dist_ap, dist_an


class QuadrupletLoss(BatchLoss):
    """`quadruplet_loss` with remembered options; its docstring says what they mean.

    Stateless: no parameters, nothing in the state_dict. Margin tensors move with the module.

    Example:
        >>> import torch
        >>> from flashmetric import QuadrupletLoss
        >>> criterion = QuadrupletLoss(margin1=0.4, margin2=0.2, normalize=True)
        >>> criterion
        QuadrupletLoss(margin1=0.4, margin2=0.2, normalize=True)
        >>> embeddings = torch.nn.Linear(3, 2)(torch.ones(4, 3))
        >>> criterion(embeddings, torch.tensor([0, 0, 1, 2])).backward()
    """

    function = staticmethod(quadruplet_loss)

    def __init__(
        self,
        margin1: Schedulable = 1.0,
        margin2: Schedulable = 0.5,
        *,
        distance: Distance = "sqeuclidean",
        normalize: bool = False,
        ignore_label: float | None = None,
        reduction: Reduction = "mean",
        return_stats: bool = False,
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
            ignore_label=ignore_label,
            reduction=reduction,
            return_stats=return_stats,
            impl=impl,
        )
