# SPDX-License-Identifier: BSD-3-Clause
"""The contrastive loss of a batch: all its pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

from torch import Tensor

from flashmetric import _autograd, _validate, reference
from flashmetric._metrics import compared
from flashmetric._mining import Schedulable, current
from flashmetric._names import Distance, Impl, PairReduction
from flashmetric.reference import Stats
from flashmetric.reference.mining import Comparison

from ._keywords import ComparisonKeywords
from ._module import BatchLoss

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ContrastiveLoss", "contrastive_loss"]


class _Options(ComparisonKeywords, total=False):
    """The keywords of contrastive_loss that do not decide what it returns."""

    margin: Schedulable
    pos_margin: Schedulable
    power: Literal[1, 2]
    half: bool
    reduction: PairReduction


@overload
def contrastive_loss(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    return_stats: Literal[False] = False,
    **options: Unpack[_Options],
) -> Tensor: ...
@overload
def contrastive_loss(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    return_stats: Literal[True],
    **options: Unpack[_Options],
) -> tuple[Tensor, Stats]: ...
@overload
def contrastive_loss(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    return_stats: bool,
    **options: Unpack[_Options],
) -> Tensor | tuple[Tensor, Stats]: ...


def contrastive_loss(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    margin: Schedulable = 1.0,
    pos_margin: Schedulable = 0.0,
    power: Literal[1, 2] = 2,
    half: bool = False,
    distance: Distance = "euclidean",
    normalize: bool = False,
    ref_embeddings: Tensor | None = None,
    ref_labels: Tensor | None = None,
    same_mask: Tensor | None = None,
    self_index: Tensor | None = None,
    ignore_label: float | None = None,
    weights: Tensor | None = None,
    reduction: PairReduction = "mean",
    return_stats: bool = False,
    impl: Impl = "auto",
) -> Tensor | tuple[Tensor, Stats]:
    """Equals `reference.contrastive_loss(...)` without storing the (B, R) distance matrix.

    Each anchor i is paired with each reference j, at distance d::

        value_ij = max(0, d - pos_margin)^power   of one class: a positive pair
        value_ij = max(0, margin - d)^power       of two: a negative pair
        term_ij  = weights_i * weights_j * value_ij

    Without references every two rows form two pairs, one from each side.

    Args:
        embeddings: (B, D) queries; float16, bfloat16, float32 or float64, of any strides.
        labels: (B,) class ids of any integer, bool or float dtype; or (B, C) multi-hot, nonzero =
            member, where two rows are of one class if they share at least one.
        margin: how far negatives are pushed, in the unit of the distance: a finite number, a 0-dim
            tensor, or a callable that gives one of these on every call.
        pos_margin: how near positives are pulled; likewise.
        power: 1 or 2, of the named distance: with "sqeuclidean" 2 is its square.
        half: halve every value.
        distance: a name, an object or a function; see `pairwise_distances`. Not "dot", which has no
            0 to measure margins from.
        normalize: divide each row by max(norm, 1e-12) first, with gradient.
        ref_embeddings: (R, D) references to pair with. Without them the embeddings are the
            references, and no row is paired with itself.
        ref_labels: (R,) or (R, C), of the kind of labels.
        same_mask: (B, R) bool, instead of labels: is reference j of the class of query i? It need
            not be symmetric.
        self_index: (B,) int64: the reference that is query i itself, which it is not paired with;
            -1 = none. Needs ref_embeddings.
        ignore_label: rows of this class are in no pair. Needs (B,) labels.
        weights: (B,) factors of the rows. References have none: a pair then has weight weights_i.
        reduction: "mean" = mean over the positive pairs + mean over the negative pairs, each the
            sum of terms / sum of their weights, 0 without such pairs; "mean_active" = the same over
            the pairs whose value is above 0; "mean_pairs" = one mean over all pairs; "sum"; "none"
            = (B,), the sum of the terms of each anchor.
        return_stats: return (loss, Stats) instead of the loss. valid_anchors have a positive and a
            negative; the other numbers are over all pairs.
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

    Ties: none; nothing is chosen. The hinges have value and slope 0 at 0.

    Empty input: without pairs or without weight the loss is exactly 0, connected to the graph, with
    zero gradients.

    Gradient: to embeddings and ref_embeddings, in their dtype; where a euclidean distance is 0, its
    subgradient 0; a row shorter than 1e-12 gets 0 through normalize and cosine. Second derivatives:
    impl="reference".

    Memory: O((B + R) D). Inputs are used as given under autocast. No host synchronisation.

    Reference: Hadsell, Chopra, LeCun, Dimensionality Reduction by Learning an Invariant Mapping,
    CVPR 2006, section 2.1 (with half=True, of given pairs).

    Example:
        >>> import torch
        >>> from flashmetric import contrastive_loss
        >>> embeddings = torch.tensor([[0.0], [2.0], [2.5]], requires_grad=True)
        >>> loss = contrastive_loss(embeddings, torch.tensor([0, 0, 1]))
        >>> loss.item()  # positive pair 2^2; negative pairs max(0, 1 - 2.5)^2, max(0, 1 - 0.5)^2
        4.125
        >>> loss.backward()
        >>> embeddings.grad.flatten().tolist()
        [-4.0, 4.5, -0.5]
    """
    op = "contrastive_loss"
    _validate.distance(op, distance)
    _validate.not_dot(op, distance)
    _validate.word(op, "reduction", reduction, "pair_reduction")
    _validate.power(op, power)
    _validate.flags(op, half=half, normalize=normalize, return_stats=return_stats)
    given = Comparison(
        embeddings, labels, ref_embeddings, ref_labels, same_mask, self_index, ignore_label
    )
    given, (measure, normalize) = compared(op, given, distance, normalize)
    embeddings = given.embeddings
    margin, pos_margin = current(margin), current(pos_margin)
    _validate.number(op, "margin", margin, embeddings)
    _validate.number(op, "pos_margin", pos_margin, embeddings)
    _validate.weights(op, weights, embeddings.shape[0], embeddings)
    if _validate.use_fused(op, impl, embeddings.device, "dense", measure):
        formula = _autograd.PairFormula(
            *(margin, pos_margin, power, half, weights, measure, normalize, reduction),
            with_stats=return_stats,
        )
        loss, numbers = _autograd.contrastive(op, given, formula)
        return (loss, Stats(*numbers.to(loss.dtype).unbind())) if return_stats else loss
    return reference.contrastive_loss(
        **given._asdict(),
        margin=margin,
        pos_margin=pos_margin,
        power=power,
        half=half,
        distance=measure,
        normalize=normalize,
        weights=weights,
        reduction=reduction,
        return_stats=return_stats,
    )


class ContrastiveLoss(BatchLoss):
    """`contrastive_loss` with remembered options; its docstring says what they mean.

    Stateless: no parameters, nothing in the state_dict. Margin tensors move with the module. The
    option half is the attribute ``half_``, next to the method ``half()`` of modules.

    Example:
        >>> import torch
        >>> from flashmetric import ContrastiveLoss
        >>> criterion = ContrastiveLoss(margin=0.5, normalize=True, half=True)
        >>> criterion
        ContrastiveLoss(margin=0.5, half=True, normalize=True)
        >>> embeddings = torch.nn.Linear(3, 2)(torch.ones(4, 3))
        >>> criterion(embeddings, torch.tensor([0, 0, 1, 1])).backward()
    """

    function = staticmethod(contrastive_loss)

    def __init__(
        self,
        margin: Schedulable = 1.0,
        pos_margin: Schedulable = 0.0,
        *,
        power: Literal[1, 2] = 2,
        half: bool = False,
        distance: Distance = "euclidean",
        normalize: bool = False,
        ignore_label: float | None = None,
        reduction: PairReduction = "mean",
        return_stats: bool = False,
        impl: Impl = "auto",
    ) -> None:
        name = type(self).__name__
        _validate.names(name, impl=impl)
        _validate.distance(name, distance)
        _validate.not_dot(name, distance)
        _validate.word(name, "reduction", reduction, "pair_reduction")
        _validate.power(name, power)
        super().__init__(
            margin=margin,
            pos_margin=pos_margin,
            power=power,
            half=half,
            distance=distance,
            normalize=normalize,
            ignore_label=ignore_label,
            reduction=reduction,
            return_stats=return_stats,
            impl=impl,
        )
