# SPDX-License-Identifier: BSD-3-Clause
"""The losses of a batch and its labels."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from flashmetric._names import Mining
from flashmetric.losses import triplet_loss

from ._metrics import losses, takes_batch

__all__ = [
    "BatchAllTripletLoss",
    "BatchHardSoftMarginTripletLoss",
    "BatchHardTripletLoss",
    "BatchSemiHardTripletLoss",
]


_KERNELS: dict[Mining, str] = {
    "hard": "mined_triplet",
    "semihard": "listed_triplet",
    "all": "dense",
}


class BatchHardTripletLoss(losses.BatchHardTripletLoss):
    """`BatchHardTripletLoss` of sentence-transformers: per row the farthest of its class and the
    nearest of another, ``max(0, d_ap - d_an + margin)``, mean over all rows.

    A row alone in its class has d_ap = 0; a batch of one class has exactly the margin as its loss,
    with zero gradients.

    Args:
        model: a SentenceTransformer.
        distance_metric: of BatchHardTripletLossDistanceFunction: euclidean_distance (squared by
            ``functools.partial(..., squared=True)``) or cosine_distance; any other runs there.
        margin: a number.

    Embeddings (B, D) of float16, bfloat16, float32 or float64; labels of any shape with B elements.

    Returns:
        0-dim loss, float32 for half precision.

    Raises:
        ValueError: another number of labels.

    Memory: O(B D).

    Example:
        >>> import torch
        >>> from flashmetric.compat.sentence_transformers import BatchHardTripletLoss
        >>> criterion = BatchHardTripletLoss(torch.nn.Identity(), margin=1.0)
        >>> embeddings = torch.tensor([[0.0], [3.0], [5.0], [6.0]])
        >>> labels = torch.tensor([0, 0, 1, 1])
        >>> criterion.compute_loss_from_embeddings([embeddings], labels).item()
        0.5
    """

    def batch_hard_triplet_loss(self, labels: Tensor, embeddings: Tensor) -> Tensor:
        loss = _mined(self, "hard", labels, embeddings, self.triplet_margin)
        if loss is None:
            loss = super().batch_hard_triplet_loss(labels, embeddings)
        return loss


class BatchHardSoftMarginTripletLoss(losses.BatchHardSoftMarginTripletLoss):
    """`BatchHardSoftMarginTripletLoss`: the same with ``log(1 + exp(d_ap - d_an))``.

    A batch of one class has the loss log 2, with zero gradients. All else as `BatchHardTripletLoss`
    has it.
    """

    def batch_hard_triplet_soft_margin_loss(self, labels: Tensor, embeddings: Tensor) -> Tensor:
        loss = _mined(self, "hard", labels, embeddings, 0.0, soft_margin=True)
        if loss is None:
            loss = super().batch_hard_triplet_soft_margin_loss(labels, embeddings)
        return loss


class BatchSemiHardTripletLoss(losses.BatchSemiHardTripletLoss):
    """`BatchSemiHardTripletLoss`: per two rows of a class the nearest negative farther than the
    positive, else the farthest negative; mean over these pairs.

    Without such a pair the loss is 0; in a batch of one class d_an is 0. All else as
    `BatchHardTripletLoss` has it.
    """

    def batch_semi_hard_triplet_loss(self, labels: Tensor, embeddings: Tensor) -> Tensor:
        loss = _mined(self, "semihard", labels, embeddings, self.margin)
        if loss is None:
            loss = super().batch_semi_hard_triplet_loss(labels, embeddings)
        return loss


class BatchAllTripletLoss(losses.BatchAllTripletLoss):
    """`BatchAllTripletLoss`: every triplet, mean over those whose loss is above 0.

    Without one, the loss is 0. All else as `BatchHardTripletLoss` has it.
    """

    def batch_all_triplet_loss(self, labels: Tensor, embeddings: Tensor) -> Tensor:
        loss = _mined(self, "all", labels, embeddings, self.triplet_margin)
        if loss is None:
            loss = super().batch_all_triplet_loss(labels, embeddings)
        return loss


def _mined(
    loss: Any,
    mining: Mining,
    labels: Tensor,
    embeddings: Tensor,
    margin: float,
    soft_margin: bool = False,
) -> Tensor | None:
    """The loss by kernels; None where they do not take the call."""
    distance = takes_batch(loss, _KERNELS[mining], labels, embeddings)
    if distance is None:
        return None
    return triplet_loss(
        embeddings,
        labels.reshape(-1),
        margin=margin,
        mining=mining,
        distance=distance,
        soft_margin=soft_margin,
        invalid="count",
    )
