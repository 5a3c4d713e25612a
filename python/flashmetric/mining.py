# SPDX-License-Identifier: BSD-3-Clause
"""Which rows a triplet consists of."""

from __future__ import annotations

from torch import Tensor

from . import _ops, _validate, reference
from ._labels import relation_of, signed
from ._names import Distance, Impl, Mining
from .reference import Triplets
from .reference.mining import Comparison

__all__ = ["Triplets", "mine_triplets"]


def mine_triplets(
    embeddings: Tensor,
    labels: Tensor | None = None,
    *,
    mining: Mining = "hard",
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

    Every row of the embeddings that has at least one positive (a reference of its class) and one
    negative (a reference of another class) is the anchor of one triplet. With ``mining="hard"``
    (batch-hard) it is joined by its farthest positive and its nearest negative.

    Args:
        embeddings: (B, D) queries; float16, bfloat16, float32 or float64, of any strides.
        labels: (B,) class ids of any integer, bool or float dtype; or (B, C) multi-hot, nonzero =
            member, where two rows are of one class if they share at least one.
        mining: "hard".
        distance: "euclidean", "sqeuclidean", "cosine" or "dot"; see `pairwise_distances`.
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
        Triplets(anchor, positive, negative): int64 (T,), ordered by anchor. anchor counts rows of
        embeddings; positive and negative rows of ref_embeddings if given, else of embeddings.

    Raises:
        TypeError: a dtype that is not supported, or that does not fit the other side.
        ValueError: a shape, device, name or value that does not fit; NaN among float labels.
        RuntimeError: impl="fused" where there are no kernels.

    Ties: rows are compared by float64 keys (`reference.rank_key`); of equal keys the lowest index
    is chosen, and a row with a NaN key before any other.

    Empty input: a batch without valid anchors (empty, one row, one class, all classes distinct)
    gives T = 0.

    Gradient: none; indices are constants.

    Memory: O((B + R) D). T depends on the data, so on CUDA this call synchronises; `triplet_loss`
    does not.

    Reference: Hermans, Beyer, Leibe, In Defense of the Triplet Loss for Person Re-Identification,
    arXiv 1703.07737, section 2 (batch hard).

    Example:
        >>> import torch
        >>> from flashmetric import mine_triplets
        >>> embeddings = torch.tensor([[0.0], [1.0], [5.0], [7.0], [99.0]])
        >>> triplets = mine_triplets(embeddings, torch.tensor([0, 0, 1, 1, 2]))
        >>> torch.stack(triplets, dim=1).tolist()  # row 4 is alone in its class: no triplet
        [[0, 1, 2], [1, 0, 2], [2, 3, 1], [3, 2, 1]]
    """
    op = "mine_triplets"
    _validate.names(op, mining=mining, distance=distance)
    _validate.flags(op, normalize=normalize)
    given = Comparison(
        embeddings, labels, ref_embeddings, ref_labels, same_mask, self_index, ignore_label
    )
    _validate.comparison(op, given)
    if not _validate.use_fused(op, impl, embeddings.device):
        positive, negative = reference.mining.choose(given, mining, distance, normalize)
    else:
        relation, query_labels = relation_of(labels, same_mask)
        tensors = (embeddings, ref_embeddings, query_labels, ref_labels, self_index)
        rule = (relation, signed(ignore_label, labels), mining, distance, normalize)
        positive, negative = _ops.mine(*tensors, *rule)
    anchor = ((positive >= 0) & (negative >= 0)).nonzero().squeeze(1)
    return Triplets(anchor, positive[anchor], negative[anchor])
