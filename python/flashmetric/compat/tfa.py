# SPDX-License-Identifier: BSD-3-Clause
"""The triplet losses of TensorFlow Addons for torch, by our kernels; TensorFlow is not needed.

    tfa.losses.triplet_semihard_loss(y_true, y_pred)          # you had
    from flashmetric.compat import tfa                        # you write
    tfa.triplet_semihard_loss(y_true, y_pred)

Values are those of TensorFlow Addons, with two differences: where nothing can be averaged (no two
rows of one class, an empty batch) the loss is 0 with zero gradients, there 0/0 = NaN; and among
rows of equal distance the lowest index carries the gradient, there all share it. A distance that is
a function of your own is refused: `flashmetric.triplet_loss(distance=...)` takes one.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import Tensor, nn

from flashmetric import _validate
from flashmetric._names import DistanceName
from flashmetric._validate import data
from flashmetric.losses import triplet_loss

from ._peer import like
from ._rows import batch_of

__all__ = [
    "TripletHardLoss",
    "TripletSemiHardLoss",
    "triplet_hard_loss",
    "triplet_semihard_loss",
]

Metric: TypeAlias = Literal["L2", "squared-L2", "angular"]

_DISTANCES: dict[str, DistanceName] = {
    "L2": "euclidean",
    "squared-L2": "sqeuclidean",
    "angular": "cosine",
}


def triplet_semihard_loss(
    y_true: Tensor, y_pred: Tensor, margin: float = 1.0, distance_metric: Metric = "L2"
) -> Tensor:
    """Per two rows of a class the nearest negative farther than the positive, else the farthest::

        value = max(0, d_ap - d_an + margin), mean over these pairs

    Args:
        y_true: (B,) or (B, 1) class ids of any integer, bool or float dtype.
        y_pred: (B, D) embeddings of float16, bfloat16, float32 or float64; TensorFlow Addons asks
            for rows of length 1, the formula does not.
        margin: a number.
        distance_metric: "L2", "squared-L2" or "angular" (1 - cosine).

    Returns:
        0-dim loss in the dtype of y_pred; under autocast float32 at least.

    Raises:
        TypeError: a dtype that is not supported.
        ValueError: a shape or name that does not fit.

    Degenerate input: one class has d_an = 0; without two rows of one class the loss is 0, connected
    to the graph, with zero gradients (TensorFlow Addons: NaN).

    Memory: O(B D).

    Example:
        >>> import torch
        >>> from flashmetric.compat.tfa import triplet_semihard_loss
        >>> triplet_semihard_loss(torch.zeros(2), torch.eye(2))  # 1 + sqrt(2)
        tensor(2.4142)
    """
    return _loss("triplet_semihard_loss", y_true, y_pred, margin, distance_metric)


def triplet_hard_loss(
    y_true: Tensor,
    y_pred: Tensor,
    margin: float = 1.0,
    soft: bool = False,
    distance_metric: Metric = "L2",
) -> Tensor:
    """Per row the farthest of its class and the nearest of another::

        value = max(0, d_ap - d_an + margin), mean over all rows
                log(1 + exp(d_ap - d_an))   with soft, whatever the margin

    Args:
        y_true: as of `triplet_semihard_loss`.
        y_pred: likewise.
        margin: a number.
        soft: softplus instead of the hinge; it does not overflow here.
        distance_metric: "L2", "squared-L2" or "angular" (1 - cosine).

    Returns:
        0-dim loss in the dtype of y_pred; under autocast float32 at least.

    Raises:
        TypeError: a dtype that is not supported, or soft that is no bool.
        ValueError: a shape or name that does not fit.

    Degenerate input: a row alone in its class has d_ap = 0; of one class the loss is exactly the
    margin (soft: log 2), with zero gradients; an empty batch has 0.

    Memory: O(B D).

    Example:
        >>> import torch
        >>> from flashmetric.compat.tfa import triplet_hard_loss
        >>> embeddings = torch.tensor([[0.0], [3.0], [5.0], [6.0]])
        >>> triplet_hard_loss(torch.tensor([0, 0, 1, 1]), embeddings)
        tensor(0.5000)
    """
    return _loss("triplet_hard_loss", y_true, y_pred, margin, distance_metric, soft)


class TripletSemiHardLoss(nn.Module):
    """`triplet_semihard_loss` with remembered options; no parameters.

    Example:
        >>> import torch
        >>> from flashmetric.compat.tfa import TripletSemiHardLoss
        >>> criterion = TripletSemiHardLoss(margin=0.5)
        >>> criterion
        TripletSemiHardLoss(margin=0.5, distance_metric='L2')
        >>> criterion(torch.zeros(2), torch.eye(2))
        tensor(1.9142)
    """

    def __init__(self, margin: float = 1.0, distance_metric: Metric = "L2") -> None:
        super().__init__()
        data.choice(type(self).__name__, "distance_metric", distance_metric, tuple(_DISTANCES))
        self.margin = margin
        self.distance_metric = distance_metric

    def forward(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of (B,) or (B, 1) labels and (B, D) embeddings."""
        return triplet_semihard_loss(y_true, y_pred, self.margin, self.distance_metric)

    def extra_repr(self) -> str:
        return f"margin={self.margin}, distance_metric={self.distance_metric!r}"


class TripletHardLoss(nn.Module):
    """`triplet_hard_loss` with remembered options; no parameters.

    Example:
        >>> import torch
        >>> from flashmetric.compat.tfa import TripletHardLoss
        >>> TripletHardLoss(soft=True)
        TripletHardLoss(margin=1.0, soft=True, distance_metric='L2')
        >>> TripletHardLoss()(torch.zeros(2), torch.eye(2))
        tensor(1.)
    """

    def __init__(
        self, margin: float = 1.0, soft: bool = False, distance_metric: Metric = "L2"
    ) -> None:
        super().__init__()
        data.choice(type(self).__name__, "distance_metric", distance_metric, tuple(_DISTANCES))
        self.margin = margin
        self.soft = soft
        self.distance_metric = distance_metric

    def forward(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of (B,) or (B, 1) labels and (B, D) embeddings."""
        return triplet_hard_loss(y_true, y_pred, self.margin, self.soft, self.distance_metric)

    def extra_repr(self) -> str:
        options = f"margin={self.margin}, soft={self.soft}"
        return f"{options}, distance_metric={self.distance_metric!r}"


def _loss(
    op: str, y_true: Tensor, y_pred: Tensor, margin: float, metric: str, soft: bool | None = None
) -> Tensor:
    """Either loss; soft is None for the semi-hard one."""
    data.choice(op, "distance_metric", metric, tuple(_DISTANCES))
    labels = batch_of(op, "y_true", y_true, "y_pred", y_pred)
    if soft is not None:
        _validate.flags(op, soft=soft)
    loss = triplet_loss(
        y_pred,
        labels,
        margin=None if soft else margin,
        mining="semihard" if soft is None else "hard",
        distance=_DISTANCES[metric],
        soft_margin=bool(soft),
        invalid="count",
    )
    return like(loss, y_pred)
