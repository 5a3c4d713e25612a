# SPDX-License-Identifier: BSD-3-Clause
"""The losses of given triplets and pairs."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from flashmetric.losses import triplet_margin_loss

from .._peer import like
from .._rows import distances, shifted
from ._metrics import Metric, losses, takes_given

__all__ = ["ContrastiveLoss", "OnlineContrastiveLoss", "TripletLoss"]


class TripletLoss(losses.TripletLoss):
    """`TripletLoss` of sentence-transformers: ``max(0, d_ap - d_an + triplet_margin)`` of given
    triplets, mean.

    Args:
        model: a SentenceTransformer.
        distance_metric: a member of TripletDistanceMetric or SiameseDistanceMetric; any other
            function runs there.
        triplet_margin: a number.

    Returns:
        0-dim loss; of half precision float32 with TripletDistanceMetric, else half precision.

    Memory: O(B); with an eps, also one copy of the anchors.

    Example:
        >>> import torch
        >>> from flashmetric.compat.sentence_transformers import TripletLoss
        >>> criterion = TripletLoss(torch.nn.Identity(), triplet_margin=1.0)
        >>> rows = [torch.tensor([[0.0]]), torch.tensor([[2.0]]), torch.tensor([[2.5]])]
        >>> criterion.compute_loss_from_embeddings(rows, None).item()
        0.5
    """

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor) -> Tensor:
        metric = takes_given(self, "triplet", embeddings)
        if metric is None:
            return super().compute_loss_from_embeddings(embeddings, labels)
        anchor, positive, negative = shifted(metric.eps, *embeddings)
        loss = triplet_margin_loss(
            anchor, positive, negative, margin=self.triplet_margin, distance=metric.distance
        )
        return _like(loss, embeddings[0], metric)


class ContrastiveLoss(losses.ContrastiveLoss):
    """`ContrastiveLoss` of sentence-transformers, of given pairs with labels y, 1 = similar::

        value = (y d^2 + (1 - y) max(0, margin - d)^2) / 2

    Args:
        model: a SentenceTransformer.
        distance_metric: a member of SiameseDistanceMetric or TripletDistanceMetric; any other
            function runs there.
        margin: how far pairs of label 0 are pushed.
        size_average: mean over the pairs, else their sum.

    Labels are of any shape with B elements; other numbers than 0 and 1 weigh the two terms.

    Returns:
        0-dim loss, float32 for half precision.

    Raises:
        ValueError: another number of labels.

    Memory: O(B); with an eps, also one copy of the first rows.

    Example:
        >>> import torch
        >>> from flashmetric.compat.sentence_transformers import ContrastiveLoss
        >>> criterion = ContrastiveLoss(torch.nn.Identity())
        >>> pair = [torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])]
        >>> criterion.compute_loss_from_embeddings(pair, torch.tensor([1])).item()  # 1^2 / 2
        0.5
    """

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor) -> Tensor:
        metric = takes_given(self, "paired", embeddings, labels)
        if metric is None:
            return super().compute_loss_from_embeddings(embeddings, labels)
        _check_labels(self, labels, "They weigh the two terms by label and 1 - label.")
        labels = labels.reshape(-1)
        found = distances(embeddings[0], embeddings[1], metric.distance, metric.eps)
        apart = (self.margin - found).relu()
        value: Tensor = 0.5 * (labels.float() * found**2 + (1 - labels).float() * apart**2)
        count = max(1, labels.shape[0]) if self.size_average else 1
        return value.sum() / count


class OnlineContrastiveLoss(losses.OnlineContrastiveLoss):
    """`OnlineContrastiveLoss` of sentence-transformers: the hard ones of given pairs.

    Hard are the pairs of label 1 farther than the nearest of label 0 (without one: than their
    mean), and the pairs of label 0 nearer than the farthest of label 1 (than their mean)::

        loss = sum of d^2 over the former + sum of max(0, margin - d)^2 over the latter

    Args:
        model: a SentenceTransformer.
        distance_metric: as of `ContrastiveLoss`.
        margin: how far pairs of label 0 are pushed.

    Labels are of any shape with B elements; pairs of another label than 0 and 1 are ignored.

    Returns:
        0-dim loss; of half precision float32 with TripletDistanceMetric, else half precision.

    Raises:
        ValueError: another number of labels.

    Memory: O(B); with an eps, also one copy of the first rows. No host synchronisation but for the
    first batch, whose labels are looked at.

    Example:
        >>> import torch
        >>> from flashmetric.compat.sentence_transformers import OnlineContrastiveLoss
        >>> criterion = OnlineContrastiveLoss(torch.nn.Identity())
        >>> pairs = [torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])]
        >>> criterion.compute_loss_from_embeddings(pairs, torch.tensor([0, 1])).item()
        1.25
    """

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor) -> Tensor:
        metric = takes_given(self, "paired", embeddings, labels)
        if metric is None:
            return super().compute_loss_from_embeddings(embeddings, labels)
        _check_labels(self, labels, "Pairs of other labels are ignored.")
        labels = labels.reshape(-1)
        found = distances(embeddings[0], embeddings[1], metric.distance, metric.eps)
        hard_positive, hard_negative = _hard_pairs(found.detach(), labels)
        apart = (self.margin - found).relu()
        value = torch.where(hard_positive, found**2, 0) + torch.where(hard_negative, apart**2, 0)
        return _like(value.sum(), embeddings[0], metric)


def _hard_pairs(found: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Which pairs are hard positives, and which hard negatives."""
    positive, negative = labels == 1, labels == 0
    if not len(found):
        return positive, negative
    farthest = torch.where(positive, found, -torch.inf).amax()
    nearest = torch.where(negative, found, torch.inf).amin()
    farthest = torch.where(positive.any(), farthest, _mean(found, negative))
    nearest = torch.where(negative.any(), nearest, _mean(found, positive))
    return positive & (found > nearest), negative & (found < farthest)


def _mean(found: Tensor, chosen: Tensor) -> Tensor:
    return torch.where(chosen, found, 0).sum() / chosen.sum()


def _check_labels(loss: Any, labels: Tensor, effect: str) -> None:
    """Once for a loss, as the library does: reading them waits for the device."""
    if not loss._checked_labels:
        loss._checked_labels = True
        if ((labels != 0) & (labels != 1)).any():
            text = f"[{type(loss).__name__}] labels must be 0 or 1; got others. {effect}"
            warnings.warn(text, UserWarning, stacklevel=4)


def _like(loss: Tensor, rows: Tensor, metric: Metric) -> Tensor:
    return loss if metric.widens else like(loss, rows)
