# SPDX-License-Identifier: BSD-3-Clause
"""The triplet loss of open-metric-learning (OML) and two of its miners, by our kernels.

    from oml.losses import TripletLossWithMiner                                   # you have
    from oml.miners import AllTripletsMiner, HardTripletsMiner
    from flashmetric.compat.oml import (                                          # you write
        AllTripletsMiner, HardTripletsMiner, TripletLossWithMiner
    )

OML is not needed. Another miner of its interface, with ``sample(features, labels)`` that returns
rows of anchors, positives and negatives, may be given: it mines, kernels evaluate. Differences:

- OML asserts two classes and two rows of each. Here rows without a positive or a negative are in no
  triplet, and without any triplet the loss is 0 with zero gradients.
- The soft margin does not overflow; there above distances of 88.
- With reduction="none" triplets are ordered by anchor, then positive, then negative.
- A cap on the triplets draws from torch's generator, not from numpy's.
"""

from __future__ import annotations

import sys
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from flashmetric import _validate
from flashmetric._names import ListMining
from flashmetric._validate import data
from flashmetric.losses import Stats, contrastive_loss, triplet_loss, triplet_margin_loss
from flashmetric.mining import Triplets, mine_triplets

from ._rows import batch_of

__all__ = ["AllTripletsMiner", "HardTripletsMiner", "Miner", "TripletLossWithMiner"]

_REDUCTIONS = ("mean", "sum", "none")


class Miner(Protocol):
    """A miner of OML's interface."""

    def sample(self, features: Tensor, labels: list[int]) -> tuple[Tensor, ...]:
        """Rows of anchors, positives and negatives, (T, D) each."""


class _InBatch:
    """A rule that the kernels mine by."""

    rule: ListMining
    cap: int = sys.maxsize

    def mine(self, features: Tensor, labels: Tensor) -> Triplets:
        """Indices of the triplets, ordered by anchor; on CUDA their number is waited for."""
        found = mine_triplets(features.detach(), labels, mining=self.rule)
        if len(found.anchor) <= self.cap:
            return found
        kept = torch.randperm(len(found.anchor))[: self.cap].sort().values
        return Triplets(*(index[kept.to(index.device)] for index in found))

    def sample(self, features: Tensor, labels: Tensor | list[int]) -> tuple[Tensor, ...]:
        """Rows of the anchors, positives and negatives, (T, D) each, with gradient."""
        found = self.mine(features, _labels(type(self).__name__, features, labels))
        return tuple(features[index] for index in found)


class AllTripletsMiner(_InBatch):
    """Every triplet of the batch; more than the cap are sampled.

    Args:
        max_output_triplets: how many at most. The loss then stores their indices; without a cap it
            stores none.

    Raises:
        TypeError: no integer. ValueError: one below 1.

    Example:
        >>> import torch
        >>> from flashmetric.compat.oml import AllTripletsMiner
        >>> rows = torch.tensor([[0.0], [2.0], [2.5]])
        >>> anchor, positive, negative = AllTripletsMiner().sample(rows, [0, 0, 1])
        >>> negative.flatten().tolist()
        [2.5, 2.5]
    """

    rule = "all"

    def __init__(self, max_output_triplets: int = sys.maxsize) -> None:
        data.counts(type(self).__name__, max_output_triplets=max_output_triplets)
        self.cap = max_output_triplets

    def __repr__(self) -> str:
        cap = "" if self.cap == sys.maxsize else f"max_output_triplets={self.cap}"
        return f"{type(self).__name__}({cap})"


class HardTripletsMiner(_InBatch):
    """Per row the farthest of its class and the nearest of another.

    Example:
        >>> import torch
        >>> from flashmetric.compat.oml import HardTripletsMiner
        >>> HardTripletsMiner().mine(torch.tensor([[0.0], [2.0], [2.5]]), torch.tensor([0, 0, 1]))
        Triplets(anchor=tensor([0, 1]), positive=tensor([1, 0]), negative=tensor([2, 2]))
    """

    rule = "hard"

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class TripletLossWithMiner(nn.Module):
    """`TripletLossWithMiner` of OML: Euclidean triplets that a miner chooses::

        value = max(0, d_ap - d_an + margin)
                log(1 + exp(d_ap - d_an))     if margin is None

    Args:
        margin: a number above 0, or None for the soft margin.
        miner: `AllTripletsMiner` (the default), `HardTripletsMiner`, or any object with OML's
            ``sample``.
        reduction: "mean" over all triplets, those of value 0 included; "sum"; or "none", (T,).
        need_logs: keep ``last_logs``: active_tri, the share of triplets whose value is above 0, and
            the mean distances pos_dist and neg_dist, as numbers. On CUDA they are waited for; with
            all triplets they cost two more passes.

    Call: (features, labels): (B, D) of float16, bfloat16, float32 or float64, and B labels, a
    tensor or a list.

    Returns:
        0-dim loss, or (T,) with reduction="none"; float32 for half precision.

    Raises:
        TypeError: a dtype that is not supported, or a miner that cannot sample.
        ValueError: a margin of 0 or below, an unknown reduction, a shape that does not fit.

    Degenerate input: without any triplet exactly 0, connected to the graph, with zero gradients.

    Memory: O(B D) with mean and sum and a miner of this module; with reduction="none" or a cap the
    indices of the triplets; with another miner its rows.

    Example:
        >>> import torch
        >>> from flashmetric.compat.oml import HardTripletsMiner, TripletLossWithMiner
        >>> rows, labels = torch.tensor([[0.0], [3.0], [5.0], [6.0]]), torch.tensor([0, 0, 1, 1])
        >>> TripletLossWithMiner(margin=1.0, miner=HardTripletsMiner())(rows, labels).item()
        0.5
        >>> criterion = TripletLossWithMiner(margin=1.0, need_logs=True)
        >>> criterion(rows, labels).item()  # (2 + 1) / 8 triplets
        0.375
        >>> criterion.last_logs
        {'active_tri': 0.25, 'pos_dist': 2.0, 'neg_dist': 4.0}
    """

    def __init__(
        self,
        margin: float | None,
        miner: Miner | AllTripletsMiner | HardTripletsMiner | None = None,
        reduction: Literal["mean", "sum", "none"] = "mean",
        need_logs: bool = False,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        data.choice(name, "reduction", reduction, _REDUCTIONS)
        _validate.flags(name, need_logs=need_logs)
        if margin is not None and data.number(name, "margin", margin) <= 0:
            text = f"[{name}] margin must be above 0, or None; got {margin}."
            raise ValueError(text)
        miner = AllTripletsMiner() if miner is None else miner
        if not callable(getattr(miner, "sample", None)):
            text = f"[{name}] miner must have a method sample; got {type(miner).__name__}."
            raise TypeError(text)
        self.margin = margin
        self.miner = miner
        self.reduction = reduction
        self.need_logs = need_logs
        self.last_logs: dict[str, float] = {}

    def forward(self, features: Tensor, labels: Tensor | list[int]) -> Tensor:
        """The loss of (B, D) features and B labels."""
        ids = _labels(type(self).__name__, features, labels)
        if isinstance(self.miner, _InBatch):
            loss, stats = self._mined(self.miner, features, ids)
        else:
            rows = self.miner.sample(features=features, labels=ids.tolist())[:3]
            loss, stats = self._given(*rows)
        if self.need_logs:
            numbers = stats.active_fraction, stats.mean_d_ap, stats.mean_d_an
            names = ("active_tri", "pos_dist", "neg_dist")
            self.last_logs = {name: each.item() for name, each in zip(names, numbers, strict=True)}
        return loss

    def _mined(self, miner: _InBatch, features: Tensor, labels: Tensor) -> tuple[Tensor, Stats]:
        capped = miner.cap < sys.maxsize
        if self.reduction == "none" or capped:
            return self._given(*miner.mine(features, labels), embeddings=features)
        loss, stats = triplet_loss(
            features,
            labels,
            margin=self.margin,
            soft_margin=self.margin is None,
            mining=miner.rule,
            # The mean over all triplets would be over those with a loss.
            reduction="sum" if miner.rule == "all" else self.reduction,
            return_stats=True,
        )
        if miner.rule == "all" and self.reduction == "mean":
            positives, negatives = _others(labels)
            loss = loss / (positives * negatives).sum().clamp(min=1)
        if miner.rule == "all" and self.need_logs:
            stats = stats._replace(**_mean_distances(features, labels))
        return loss, stats

    def _given(
        self,
        anchor: Tensor,
        positive: Tensor,
        negative: Tensor,
        embeddings: Tensor | None = None,
    ) -> tuple[Tensor, Stats]:
        return triplet_margin_loss(
            anchor,
            positive,
            negative,
            embeddings=embeddings,
            margin=self.margin,
            soft_margin=self.margin is None,
            reduction=self.reduction,
            return_stats=True,
        )

    def extra_repr(self) -> str:
        return f"margin={self.margin}, miner={self.miner!r}, reduction={self.reduction!r}"


def _labels(op: str, features: Tensor, labels: Tensor | list[int]) -> Tensor:
    if isinstance(labels, list):
        labels = torch.tensor(labels, device=features.device)
    return batch_of(op, "labels", labels, "features", features)


def _others(labels: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) how many positives and negatives each row has, without waiting for the device."""
    labels = labels.byte() if labels.dtype == torch.bool else labels  # what searchsorted takes
    ordered = labels.sort().values
    same = torch.searchsorted(ordered, labels, right=True) - torch.searchsorted(ordered, labels)
    return same - 1, labels.shape[0] - same


@torch.no_grad()
def _mean_distances(features: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Over all triplets: each pair counts as often as there are triplets with it."""
    positives, negatives = _others(labels)
    count = (positives * negatives).sum().clamp(min=1)

    def sums(classes: Tensor) -> Tensor:
        """(B,) of the distances to the rows of the class."""
        return contrastive_loss(features, classes, margin=0.0, power=1, reduction="none").double()

    to_class = sums(labels)
    to_others = sums(torch.zeros_like(labels)) - to_class
    return {
        "mean_d_ap": (to_class * negatives).sum() / count,
        "mean_d_an": (to_others * positives).sum() / count,
    }
