# SPDX-License-Identifier: BSD-3-Clause
"""The margin loss of a batch: a boundary that positives stay within and negatives beyond."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

import torch
from torch import Tensor

from flashmetric import _autograd, _validate
from flashmetric._metrics import compared
from flashmetric._mining import Number, Schedulable, current, rule_of, triplets_of
from flashmetric._names import Distance, Fallback, Impl, ListMining, Reduction, Strategy
from flashmetric.reference import Stats
from flashmetric.reference.margin import boundary_loss
from flashmetric.reference.mining import Comparison, Rule
from flashmetric.reference.triplet import SETS

from ._keywords import ComparisonKeywords, RuleKeywords
from ._pairs import Terms, active, at_anchors, distances, distances_once, widened

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["margin_loss"]

Metric = tuple[str, bool]


class _Options(RuleKeywords, ComparisonKeywords, total=False):
    """The keywords of margin_loss that do not decide what it returns."""

    beta: Schedulable
    margin: Schedulable
    mining: ListMining
    reduction: Reduction


@overload
def margin_loss(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    return_stats: Literal[False] = False,
    **options: Unpack[_Options],
) -> Tensor: ...
@overload
def margin_loss(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    return_stats: Literal[True],
    **options: Unpack[_Options],
) -> tuple[Tensor, Stats]: ...
@overload
def margin_loss(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    return_stats: bool,
    **options: Unpack[_Options],
) -> Tensor | tuple[Tensor, Stats]: ...


def margin_loss(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    beta: Schedulable = 1.2,
    margin: Schedulable = 0.2,
    mining: ListMining = "distance_weighted",
    fallback: Fallback = "farthest",
    hardness: Schedulable | None = None,
    mining_margin: Schedulable | None = None,
    positive_mining: Strategy = "easy",
    negative_mining: Strategy = "semihard",
    n_negatives: int = 1,
    generator: torch.Generator | None = None,
    distance: Distance = "euclidean",
    normalize: bool = True,
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
    """Equals `reference.margin_loss(...)` without storing the (B, R) distance matrix.

    ``mining=`` says which triplets (a, p, n) are formed; `mine_triplets` explains the rules. Each
    has two summands, a positive that lies beyond a boundary and a negative that lies within::

        value = max(0, d_ap - beta_a + margin_a) + max(0, beta_a - d_an + margin_a)
        term  = weights_a * value

    Args:
        embeddings: (B, D) queries; float16, bfloat16, float32 or float64, of any strides.
        labels: (B,) class ids of any integer, bool or float dtype; or (B, C) multi-hot, nonzero =
            member, where two rows are of one class if they share at least one.
        beta: the boundary, in the unit of the distance: a finite number, a 0-dim tensor, (B,) one
            per anchor (per class: ``class_beta[labels]``), or a callable that gives one of these on
            every call. It may require grad.
        margin: the distance that pairs keep from the boundary; likewise, without grad.
        mining: "hard", "semihard", "all", "semihard_all", "hard_all", "easy_all", "easy_hard",
            "distance_weighted" or "random".
        fallback: of semihard, as all keywords of rules explained in `mine_triplets`.
        hardness: of semihard.
        mining_margin: of the sets semihard_all and easy_all. None = the margin.
        positive_mining: of easy_hard.
        negative_mining: of easy_hard.
        n_negatives: of random.
        generator: of distance_weighted and random.
        distance: a name, an object or a function; see `pairwise_distances`.
        normalize: divide each row by max(norm, 1e-12) first, with gradient.
        ref_embeddings: (R, D) references to choose from. Without them the embeddings are the
            references, and no row is compared with itself.
        ref_labels: (R,) or (R, C), of the kind of labels.
        same_mask: (B, R) bool, instead of labels: is reference j of the class of query i? It need
            not be symmetric.
        self_index: (B,) int64: the reference that is query i itself, excluded before mining;
            -1 = none. Needs ref_embeddings.
        ignore_label: rows of this class are neither anchors nor candidates. Needs (B,) labels.
        weights: (B,) factors of the terms. An anchor of weight 0 is still a candidate of others.
        reduction: "mean" = sum of terms / sum of the weights of the triplets; "mean_active" divides
            by those of the summands above 0, of which a triplet has up to two; "sum"; "none" =
            (B,), the sum of the terms of each anchor.
        return_stats: return (loss, Stats) instead of the loss; `Stats` says what they are.
        impl: "auto", "fused" or "reference"; see `pairwise_distances`.

    Returns:
        0-dim loss, or (B,) with reduction="none"; float32 for half precision, else of the dtype of
        the embeddings.

    Raises:
        TypeError: a dtype that is not supported, or that does not fit the other side.
        ValueError: a shape, device, name or value that does not fit; an option of another rule; NaN
            among float labels; a margin or weights that require grad.
        RuntimeError: impl="fused" where there are no kernels; a second derivative of the kernels;
            torch.vmap.

    Ties: rows are compared by float64 keys (`reference.rank_key`); of equal keys the lowest index
    is chosen, and a row with a NaN key before any other. The hinges have value and slope 0 at 0.

    Empty input: without a triplet or without weight the loss is exactly 0, connected to the graph,
    with zero gradients.

    Gradient: to beta, and to embeddings and ref_embeddings, of the triplets, in their dtype; where
    a euclidean distance is 0, its subgradient 0; a row shorter than 1e-12 gets 0 through normalize
    and cosine. Second derivatives: impl="reference".

    Memory: O((B + R) D + T) for T triplets. Inputs are used as given under autocast. T depends on
    the data, so on CUDA this call synchronises.

    Reference: Wu et al., Sampling Matters in Deep Embedding Learning, arXiv 1706.07567, section 4.2
    (there with the mean over the active summands: reduction="mean_active").

    Example:
        >>> import torch
        >>> from flashmetric import margin_loss
        >>> embeddings = torch.tensor([[0.0], [1.5], [2.0]])
        >>> beta = torch.tensor(1.0, requires_grad=True)
        >>> options = {"beta": beta, "margin": 0.25, "mining": "hard", "normalize": False}
        >>> loss = margin_loss(embeddings, torch.tensor([0, 0, 1]), **options, reduction="sum")
        >>> loss.item()  # row 0: (1.5 - 1 + 0.25) + 0; row 1: the same + (1 - 0.5 + 0.25)
        2.25
        >>> loss.backward()
        >>> beta.grad.item()  # one summand pushes it out, two pull it in
        -1.0
    """
    op = "margin_loss"
    options = _validate.RuleOptions(
        *(mining, fallback, hardness, mining_margin, positive_mining, negative_mining),
        *(n_negatives, generator),
    )
    _validate.word(op, "mining", mining, "list_mining")
    _validate.names(op, reduction=reduction)
    _validate.distance(op, distance)
    _validate.rule_words(op, options)
    _validate.flags(op, normalize=normalize, return_stats=return_stats)
    given = Comparison(
        embeddings, labels, ref_embeddings, ref_labels, same_mask, self_index, ignore_label
    )
    given, (measure, normalize) = compared(op, given, distance, normalize)
    embeddings = given.embeddings
    beta, margin = current(beta), current(margin)
    _validate.number(op, "beta", beta, embeddings, embeddings.shape[0], grad=True)
    _validate.number(op, "margin", margin, embeddings, embeddings.shape[0])
    _validate.weights(op, weights, embeddings.shape[0], embeddings)
    rule = rule_of(op, options, margin, embeddings)
    # Statistics of sets are those of their dense loss.
    kernel = {"hard": "paired", **dict.fromkeys(SETS, "dense")}.get(rule.name, "list_triplets")
    if not _validate.use_fused(op, impl, embeddings.device, kernel, measure):
        choice = (rule, measure, normalize)
        loss, stats = boundary_loss(given, choice, (beta, margin), (weights, reduction))
        return (loss, stats) if return_stats else loss
    terms, dist_ap, dist_an = _mined(op, given, rule, (beta, margin), (measure, normalize))
    loss = terms.reduce(weights, reduction)
    if not return_stats:
        return loss
    stats = terms.stats(dist_ap, dist_an, embeddings)
    if rule.name in SETS:
        stats = stats._replace(
            **_distances_of_pairs(op, given, rule, (measure, normalize), loss.dtype)
        )
    return loss, stats


def _mined(
    op: str, given: Comparison, rule: Rule, boundary: tuple[Number, Number], metric: Metric
) -> tuple[Terms, Tensor, Tensor]:
    """The terms of the triplets, and their d_ap and d_an, by the kernels."""
    anchor, positive, negative = triplets_of(op, given, rule, *metric)
    x = widened(given.embeddings)
    refs = x if given.ref_embeddings is None else widened(given.ref_embeddings)
    measure = distances_once if rule.name in SETS else distances
    dist_ap, dist_an = (
        measure(op, (x, anchor), (refs, other), metric) for other in (positive, negative)
    )
    beta, margin = (at_anchors(each, anchor, dist_ap.dtype) for each in boundary)
    pulled, pushed = (dist_ap - beta + margin).relu(), (beta - dist_an + margin).relu()
    n_active = active(pulled).int() + active(pushed).int()
    every = torch.ones_like(pulled, dtype=torch.bool)
    terms = Terms(pulled + pushed, every, n_active, x.shape[0], anchor)
    return terms, dist_ap, dist_an


@torch.no_grad()
def _distances_of_pairs(
    op: str, given: Comparison, rule: Rule, metric: Metric, dtype: torch.dtype
) -> dict[str, Tensor]:
    """The statistics of a set that count a pair once, in however many triplets it is."""
    formula = _autograd.Formula(
        *(0.0, None, *metric),
        soft_margin=False,
        swap=False,
        count_invalid=False,
        reduction="sum",
        with_stats=True,
    )
    _, numbers = _autograd.dense_triplet(op, given, rule, formula)
    names = ("mean_d_ap", "mean_d_an", "max_d_ap", "min_d_an")
    return dict(zip(names, numbers[2:6].to(dtype).unbind(), strict=True))
