# SPDX-License-Identifier: BSD-3-Clause
"""Which rows a triplet consists of."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _validate, reference
from ._metrics import compared
from ._mining import Schedulable, rule_of, triplets_of
from ._names import Distance, Fallback, Impl, ListMining, Strategy
from .reference import Triplets
from .reference.mining import Comparison

__all__ = ["Triplets", "mine_triplets"]


def mine_triplets(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    mining: ListMining = "hard",
    fallback: Fallback = "farthest",
    hardness: Schedulable | None = None,
    mining_margin: Schedulable | None = None,
    positive_mining: Strategy = "easy",
    negative_mining: Strategy = "semihard",
    n_negatives: int = 1,
    generator: torch.Generator | None = None,
    distance: Distance = "euclidean",
    normalize: bool = False,
    ref_embeddings: Tensor | None = None,
    ref_labels: Tensor | None = None,
    same_mask: Tensor | None = None,
    self_index: Tensor | None = None,
    ignore_label: float | None = None,
    impl: Impl = "auto",
) -> Triplets:
    """Equals `reference.mine_triplets(...)` without storing the (B, R) distances.

    Every row of the embeddings is an anchor. Its positives are the references of its class, its
    negatives those of other classes, at distances d_ap and d_an. The triplets of ``mining=`` are:

    =================== ==========================================================================
    hard                per anchor: the farthest positive, the nearest negative (batch hard)
    semihard            per positive: the nearest negative farther than it (FaceNet); without one
                        the farthest negative, or with fallback="drop" none
    all                 every positive with every negative
    semihard_all        those of all with 0 < d_an - d_ap <= mining_margin
    hard_all            those with d_an - d_ap <= 0
    easy_all            those with d_an - d_ap > mining_margin
    easy_hard           per anchor: what positive_mining and negative_mining say
    distance_weighted   per positive: a random negative, any distance on the unit sphere as likely
                        as any other between 0.5 and 1.4; none from 1.4 on
    random              per positive: n_negatives random negatives, with replacement
    =================== ==========================================================================

    Args:
        embeddings: (B, D) queries; float16, bfloat16, float32 or float64, of any strides.
        labels: (B,) class ids of any integer, bool or float dtype; or (B, C) multi-hot, nonzero =
            member, where two rows are of one class if they share at least one.
        mining: one of the rules above. An option of another rule is refused.
        fallback: of semihard: "farthest" or "drop".
        hardness: of semihard: where to look for the negative, from 0, at the farthest, over 0.5,
            just beyond the positive, to 1, at the nearest. A number, a 0-dim tensor, or a callable
            that gives one on every call; None = 0.5. With d_min and d_max those of the anchor's
            negatives, the chosen one is the nearest with ``d_an > d_ap + (1 - 2 hardness)
            max(0, d_max - d_ap)`` up to 0.5, and above 0.5 the nearest with ``d_an >= d_ap -
            (2 hardness - 1) max(0, d_ap - d_min)``.
        mining_margin: of the sets, in the unit of the distance: a number, a 0-dim tensor, (B,) one
            per anchor, or a callable that gives one; None = 1.
        positive_mining: of easy_hard: "hard", the farthest positive; "easy", the nearest; "all";
            or "semihard", the farthest of those nearer than the chosen negative.
        negative_mining: of easy_hard: "hard", the nearest negative; "easy", the farthest; "all"; or
            "semihard", the nearest of those farther than the chosen positive. An anchor without
            such a row forms no triplet. One side can be "semihard" if the other is "easy" or
            "hard".
        n_negatives: of random: draws per positive.
        generator: of distance_weighted and random: a generator on the CPU, from which one number is
            drawn; None = the default generator of torch, the only one that torch.compile traces.
            The triplets follow from that number on every device.
        distance: a name, an object or a function; see `pairwise_distances`.
        normalize: divide each row by max(norm, 1e-12) before it is compared.
        ref_embeddings: (R, D) references to choose from. Without them the embeddings are the
            references, and no row is compared with itself.
        ref_labels: (R,) or (R, C), of the kind of labels.
        same_mask: (B, R) bool, instead of labels: is reference j of the class of query i? It need
            not be symmetric.
        self_index: (B,) int64: the reference that is query i itself, excluded before mining;
            -1 = none. Needs ref_embeddings.
        ignore_label: rows of this class are neither anchors nor candidates. Needs (B,) labels.
        impl: "auto", "fused" or "reference"; see `pairwise_distances`.

    Returns:
        Triplets(anchor, positive, negative): int64 (T,), ordered by anchor, then positive, then
        negative (random: in the order of the draws). anchor counts rows of embeddings; positive and
        negative rows of ref_embeddings if given, else of embeddings.

    Raises:
        TypeError: a dtype that is not supported, or that does not fit the other side.
        ValueError: a shape, device, name or value that does not fit; NaN among float labels.
        RuntimeError: impl="fused" where there are no kernels.

    Ties: rows are compared by float64 keys (`reference.rank_key`); of equal keys the lowest index
    is chosen, and a row with a NaN key before any other. NaN is in every set.

    Empty input: a batch without a positive and a negative of one anchor (empty, one row, one class,
    all classes distinct) gives T = 0.

    Gradient: none; indices are constants.

    Memory: O((B + R) D + T). T depends on the data, so on CUDA this call synchronises;
    `triplet_loss` does not.

    References: Hermans, Beyer, Leibe, In Defense of the Triplet Loss for Person Re-Identification,
    arXiv 1703.07737, section 2 (hard, all); Schroff, Kalenichenko, Philbin, FaceNet,
    arXiv 1503.03832, section 3.2 (semihard); Wu et al., Sampling Matters in Deep Embedding
    Learning, arXiv 1706.07567, section 4.1 (distance_weighted); Xuan, Stylianou, Pless, Improved
    Embeddings with Easy Positive Triplet Mining, arXiv 1904.04370, section 3 (easy_hard).

    Example:
        >>> import torch
        >>> from flashmetric import mine_triplets
        >>> embeddings = torch.tensor([[0.0], [1.0], [5.0], [7.0], [99.0]])
        >>> labels = torch.tensor([0, 0, 1, 1, 2])
        >>> triplets = mine_triplets(embeddings, labels)
        >>> torch.stack(triplets, dim=1).tolist()  # row 4 is alone in its class: no triplet
        [[0, 1, 2], [1, 0, 2], [2, 3, 1], [3, 2, 1]]
        >>> triplets = mine_triplets(embeddings, labels, mining="semihard_all", mining_margin=4.0)
        >>> torch.stack(triplets, dim=1).tolist()
        [[0, 1, 2], [1, 0, 2], [2, 3, 0], [2, 3, 1], [3, 2, 1]]
    """
    op = "mine_triplets"
    options = _validate.RuleOptions(
        *(mining, fallback, hardness, mining_margin, positive_mining, negative_mining),
        *(n_negatives, generator),
    )
    _validate.word(op, "mining", mining, "list_mining")
    _validate.distance(op, distance)
    _validate.rule_words(op, options)
    _validate.flags(op, normalize=normalize)
    given = Comparison(
        embeddings, labels, ref_embeddings, ref_labels, same_mask, self_index, ignore_label
    )
    given, (measure, normalize) = compared(op, given, distance, normalize)
    rule = rule_of(op, options, None, given.embeddings)
    kernel = "mine" if rule.name == "hard" else "list_triplets"
    if _validate.use_fused(op, impl, given.embeddings.device, kernel, measure):
        return triplets_of(op, given, rule, measure, normalize)
    return reference.mining.list_triplets(given, rule, measure, normalize)
