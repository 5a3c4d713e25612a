# SPDX-License-Identifier: BSD-3-Clause
"""The triplet loss of a batch: mining and loss in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor

from flashmetric import _autograd, _validate
from flashmetric._metrics import compared
from flashmetric._mining import Schedulable, current, rule_of
from flashmetric._names import Distance, Fallback, Impl, Invalid, Mining, Reduction, Strategy
from flashmetric.reference import Stats
from flashmetric.reference.mining import Comparison
from flashmetric.reference.triplet import SETS, Formula, mined_loss

from ._keywords import ComparisonKeywords, RuleKeywords

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["triplet_loss"]

# The op of a rule: rules that are sums over all triplets are dense, and those of others listed.
_OPS = {"hard": "mined_triplet", **dict.fromkeys((*SETS, "soft"), "dense")}

_known = _autograd.KnownCalls()
# What a call means without other tensors, in the order in which triplet_loss says it.
_WORDS = (
    *("mining", "fallback", "hardness", "mining_margin", "positive_mining", "negative_mining"),
    *("n_negatives", "generator", "temperature", "detach_weights", "distance", "normalize"),
    *("soft_margin", "invalid", "reduction", "return_stats", "impl"),
)


class _Options(RuleKeywords, ComparisonKeywords, total=False):
    """The keywords of triplet_loss that do not decide what it returns."""

    margin: Schedulable | None
    mining: Mining
    temperature: float
    detach_weights: bool
    soft_margin: bool
    invalid: Invalid
    reduction: Reduction


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
    margin: Schedulable | None = None,
    mining: Mining = "hard",
    fallback: Fallback = "farthest",
    hardness: Schedulable | None = None,
    mining_margin: Schedulable | None = None,
    positive_mining: Strategy = "easy",
    negative_mining: Strategy = "semihard",
    n_negatives: int = 1,
    generator: torch.Generator | None = None,
    temperature: float = 1,
    detach_weights: bool = False,
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

    ``mining=`` says which triplets (a, p, n) are formed of an anchor a, a reference p of its class
    and a reference n of another, at distances d_ap and d_an; `mine_triplets` explains the rules::

        violation = d_ap - d_an + margin_a
        value     = max(0, violation), or log(1 + exp(violation)) with soft_margin
        term      = weights_a * value

    With ``mining="soft"`` each anchor has one triplet, of all its positives and negatives: d_ap is
    the mean of theirs with the weights softmax(d_ap / temperature), d_an the mean with
    softmax(-d_an / temperature).

    Args:
        embeddings: (B, D) queries; float16, bfloat16, float32 or float64, of any strides.
        labels: (B,) class ids of any integer, bool or float dtype; or (B, C) multi-hot, nonzero =
            member, where two rows are of one class if they share at least one.
        margin: in the unit of the distance: a finite number, a 0-dim tensor, (B,) one per anchor
            (per class: ``class_margin[labels]``), or a callable that gives one of these on every
            call. None = 1 for the hinge, 0 for softplus.
        mining: "hard", "semihard", "all", "semihard_all", "hard_all", "easy_all", "easy_hard",
            "distance_weighted", "random" or "soft".
        fallback: of semihard, as all keywords of rules explained in `mine_triplets`.
        hardness: of semihard.
        mining_margin: of the sets semihard_all and easy_all. None = the margin.
        positive_mining: of easy_hard.
        negative_mining: of easy_hard.
        n_negatives: of random.
        generator: of distance_weighted and random.
        temperature: of soft: a number above 0, in the unit of the distance.
        detach_weights: of soft: no gradient through the softmax weights.
        distance: a name, an object or a function; see `pairwise_distances`.
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
        invalid: "drop" leaves out what has no positive or no negative. "count" (hard, semihard,
            all) keeps it: hard counts every anchor, with d_ap = 0 without a positive and the margin
            for a violation without a negative; semihard every positive pair, with d_an = 0 without
            a negative; all has nothing to count.
        reduction: "mean" = sum of terms / sum of their weights, over the anchors of hard and soft
            and the triplets of other rules, of all and the sets *_all the active ones;
            "mean_active" = over those whose value is above 0; "sum"; "none" = (B,), the sum of the
            terms of each anchor, 0 where it has none.
        return_stats: return (loss, Stats) instead of the loss; `Stats` says what they are.
        impl: "fused" (the kernels), "reference" (plain torch), or "auto": the kernels where they
            exist, else plain torch with one warning that says why.

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
    is chosen, and a row with a NaN key before any other. The hinge has value and slope 0 at 0.

    Empty input: without anything to count (an empty batch, one row, one class, all classes
    distinct, no weight) the loss is exactly 0, connected to the graph, with zero gradients.

    Gradient: to embeddings and ref_embeddings, of the chosen pairs, in their dtype; where a
    euclidean distance is 0, its subgradient 0; a row shorter than 1e-12 gets 0 through normalize
    and cosine. Second derivatives: impl="reference".

    Memory: O((B + R) D). Inputs are used as given under autocast. No host synchronisation.

    References: Hermans, Beyer, Leibe, In Defense of the Triplet Loss for Person Re-Identification,
    arXiv 1703.07737, section 2 (batch hard, batch all, soft margin); Schroff, Kalenichenko,
    Philbin, FaceNet, arXiv 1503.03832, section 3 (the hinge, semihard); Ristani, Tomasi, Features
    for Multi-Target Multi-Camera Tracking and Re-Identification, arXiv 1803.10859 (soft: the
    adaptive weights).

    Example:
        >>> import torch
        >>> from flashmetric import triplet_loss
        >>> embeddings = torch.tensor([[0.0], [3.0], [5.0], [6.0]], requires_grad=True)
        >>> labels = torch.tensor([0, 0, 1, 1])
        >>> loss, stats = triplet_loss(embeddings, labels, return_stats=True)
        >>> loss.item()  # violations: 3 - 5 + 1, 3 - 2 + 1, 1 - 2 + 1, 1 - 3 + 1
        0.5
        >>> stats.active_fraction.item()
        0.25
        >>> loss.backward()
        >>> embeddings.grad.flatten().tolist()
        [-0.25, 0.5, -0.25, 0.0]
        >>> triplet_loss(embeddings, labels, mining="all", reduction="none").tolist()
        [0.0, 3.0, 0.0, 0.0]
    """
    # fmt: off
    words = (
        mining, fallback, hardness, mining_margin, positive_mining, negative_mining, n_negatives,
        generator, temperature, detach_weights, distance, normalize, soft_margin, invalid,
        reduction, return_stats, impl,
    )
    # fmt: on
    alone = ref_embeddings is ref_labels is same_mask is self_index is weights is None
    flags = type(normalize) is type(soft_margin) is type(return_stats) is type(detach_weights)
    if alone and ignore_label is None and flags and type(normalize) is bool:
        loss = _known.loss(words, embeddings, labels, margin)
        if loss is not None:
            return loss
    given = Comparison(
        embeddings, labels, ref_embeddings, ref_labels, same_mask, self_index, ignore_label
    )
    return _checked(given, margin, weights, *words)


def known_triplet_loss(
    embeddings: Tensor, labels: Tensor, margin: Any, **options: Any
) -> _autograd.KnownCall | None:
    """`triplet_loss` of this margin and these options without its checks, if it found the loss of
    these rows by them, and the margin is a number."""
    named = {**(triplet_loss.__kwdefaults__ or {}), **options}
    return _known.call(tuple(named[word] for word in _WORDS), embeddings, labels, margin)


def _checked(
    given: Comparison,
    margin: Schedulable | None,
    weights: Tensor | None,
    *words: Any,
) -> Tensor | tuple[Tensor, Stats]:
    """A call of which nothing is known yet."""
    op = "triplet_loss"
    options, mining = _validate.RuleOptions(*words[:10]), words[0]
    distance, normalize, soft_margin, invalid, reduction, return_stats, impl = words[10:]
    _validate.names(op, mining=mining, invalid=invalid, reduction=reduction)
    _validate.distance(op, distance)
    _validate.rule_words(op, options)
    _validate.counts_invalid(op, invalid, mining)
    _validate.flags(op, normalize=normalize, soft_margin=soft_margin, return_stats=return_stats)
    _validate.flags(op, detach_weights=options.detach_weights)
    given, (measure, normalize) = compared(op, given, distance, normalize)
    embeddings = given.embeddings
    margin = current(margin)
    _validate.number(op, "margin", margin, embeddings, embeddings.shape[0], optional=True)
    _validate.weights(op, weights, embeddings.shape[0], embeddings)
    terms = Formula(margin, soft_margin, weights, reduction)
    rule = rule_of(op, options, terms.resolved_margin, embeddings)
    kernel = _OPS.get(rule.name, "listed_triplet")
    if not _validate.use_fused(op, impl, embeddings.device, kernel, measure):
        loss, stats = mined_loss(given, (rule, measure, normalize), terms, invalid)
        return (loss, stats) if return_stats else loss
    formula = _autograd.Formula(
        *(margin, weights, measure, normalize, soft_margin),
        swap=False,
        count_invalid=invalid == "count",
        reduction=reduction,
        with_stats=return_stats,
    )
    if kernel == "mined_triplet":
        if distance != "jaccard":  # whose rows are looked at every time
            _known.learn(words, op, given, formula, mining)
        loss, numbers = _autograd.mined_triplet(op, given, mining, formula)
    elif kernel == "dense":
        loss, numbers = _autograd.dense_triplet(op, given, rule, formula)
    else:
        loss, numbers = _autograd.listed_triplet(op, given, rule, formula)
    return (loss, Stats(*numbers.to(loss.dtype).unbind())) if return_stats else loss
