# SPDX-License-Identifier: BSD-3-Clause
"""Triplet losses of person re-identification, by our kernels: torchreid's, fast-reid's.

    from torchreid.losses import TripletLoss                            # you have
    from flashmetric.compat.reid import TripletLoss                     # you write

    from fastreid.modeling.losses import triplet_loss                   # you have
    from flashmetric.compat.reid import triplet_loss                    # you write

Neither library is needed. In both an anchor is a positive of itself, so that one alone in its class
counts with d_ap = 0, and the mean is over all anchors. Differences:

- A batch of one class has loss 0 with zero gradients; torchreid raises, fast-reid has 0 with hard
  mining and d_ap + margin without.
- Equal rows are at distance 0; there at 1e-6, the root of a clamp.
- Soft weights add up to 1; those of fast-reid to Z / (Z + 1e-6), where Z is the sum of exp(-d_an):
  the same for rows of length 1, but almost 0 for rows that are far apart.
- The soft margin does not overflow; there it falls back to a hinge of margin 0.3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flashmetric import _validate, losses
from flashmetric._validate import data

from ._peer import like
from ._rows import batch_of

__all__ = ["TripletLoss", "triplet_loss"]


class TripletLoss(nn.Module):
    """`TripletLoss` of torchreid: per row the farthest of its class and the nearest of another::

        value = max(0, d_ap - d_an + margin), mean over all rows

    Args:
        margin: a number.

    Call: (inputs, targets): (B, D) embeddings of float16, bfloat16, float32 or float64, and labels
    with B elements.

    Returns:
        0-dim loss in the dtype of the inputs; under autocast float32 at least.

    Raises:
        TypeError: a dtype that is not supported.
        ValueError: a shape that does not fit.

    Degenerate input: a row alone in its class has d_ap = 0; of one class, or no rows, the loss is
    exactly 0, connected to the graph, with zero gradients.

    Memory: O(B D).

    Example:
        >>> import torch
        >>> from flashmetric.compat.reid import TripletLoss
        >>> criterion = TripletLoss(margin=1.0)
        >>> embeddings = torch.tensor([[0.0], [3.0], [5.0], [6.0]])
        >>> criterion(embeddings, torch.tensor([0, 0, 1, 1])).item()
        0.5
    """

    def __init__(self, margin: float = 0.3) -> None:
        super().__init__()
        self.margin = data.number(type(self).__name__, "margin", margin)

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of (B, D) embeddings and B labels."""
        labels = batch_of(type(self).__name__, "targets", targets, "inputs", inputs)
        loss = _hard(inputs, labels, self.margin)
        return like(loss, inputs)

    def extra_repr(self) -> str:
        return f"margin={self.margin}"


def triplet_loss(
    embedding: Tensor,
    targets: Tensor,
    margin: float = 0.3,
    norm_feat: bool = False,
    hard_mining: bool = False,
) -> Tensor:
    """`triplet_loss` of fast-reid; the defaults are those of its configuration::

        value = max(0, d_ap - d_an + margin), mean over all rows
                log(1 + exp(d_ap - d_an))   if margin <= 0

    With hard_mining d_ap is the distance to the farthest row of the class and d_an that to the
    nearest of another; without it the means of all, weighted by softmax(d_ap) and softmax(-d_an),
    through which the gradient flows.

    Args:
        embedding: (B, D) of float16, bfloat16, float32 or float64.
        targets: labels with B elements.
        margin: a number; 0 or below asks for the soft margin.
        norm_feat: compare rows of length 1, by 2 - 2 cos.
        hard_mining: the hardest rows instead of soft weights.

    Returns:
        0-dim loss in the dtype of the embedding; under autocast float32 at least.

    Raises:
        TypeError: a dtype that is not supported; a flag that is no bool.
        ValueError: a shape that does not fit.

    Degenerate input: as of `TripletLoss`.

    Memory: O(B D).

    Example:
        >>> import torch
        >>> from flashmetric.compat.reid import triplet_loss
        >>> embeddings = torch.tensor([[0.0], [3.0], [5.0], [6.0]])
        >>> targets = torch.tensor([0, 0, 1, 1])
        >>> triplet_loss(embeddings, targets, margin=1.0, hard_mining=True).item()
        0.5
        >>> triplet_loss(embeddings, targets)
        tensor(0.2222)
    """
    op = "triplet_loss"
    _validate.flags(op, norm_feat=norm_feat, hard_mining=hard_mining)
    soft_margin = data.number(op, "margin", margin) <= 0
    labels = batch_of(op, "targets", targets, "embedding", embedding)
    mined = _hard if hard_mining else _weighted
    loss = mined(embedding, labels, margin, soft_margin, norm_feat)
    return like(loss, embedding)


def _hard(
    rows: Tensor,
    labels: Tensor,
    margin: float,
    soft_margin: bool = False,
    norm_feat: bool = False,
) -> Tensor:
    loss = losses.triplet_loss(
        rows,
        labels,
        margin=None if soft_margin else margin,
        soft_margin=soft_margin,
        distance="sqeuclidean" if norm_feat else "euclidean",
        normalize=norm_feat,
        invalid="count",
    )
    return torch.where((labels == labels[:1]).all(), 0, loss)


def _weighted(
    rows: Tensor, labels: Tensor, margin: float, soft_margin: bool, norm_feat: bool
) -> Tensor:
    return losses.triplet_loss(
        rows,
        labels,
        margin=None if soft_margin else margin,
        soft_margin=soft_margin,
        mining="soft",
        distance="sqeuclidean" if norm_feat else "euclidean",
        normalize=norm_feat,
        # As references of itself the batch has every anchor among its own positives.
        ref_embeddings=rows.view_as(rows),  # torch.compile refuses a tensor given twice
        ref_labels=labels,
    )
