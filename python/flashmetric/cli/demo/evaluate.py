# SPDX-License-Identifier: BSD-3-Clause
"""How good is an embedding? MAP@R, the distances that the loss looks at, and a flat view."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import flashmetric
from flashmetric.cli.demo.data import Digits

__all__ = ["View", "map_at_r", "view"]


@dataclass(frozen=True)
class View:
    """The digits through one network."""

    map_at_r: float  # of the test half
    points: Tensor  # (M, 2) first two principal components of the test half
    explained: float  # share of the variance that these two hold
    labels: Tensor  # (M,)
    dist_ap: Tensor  # (N,) training half: to the farthest row of the same class
    dist_an: Tensor  # (N,) training half: to the nearest row of another class


@torch.no_grad()
def view(network: nn.Module, digits: Digits) -> View:
    """What the picture shows: the embedding of unseen rows, the distances that were trained."""
    embeddings, labels = network(digits.test_images), digits.test_labels
    centred = embeddings - embeddings.mean(0)
    _, strength, directions = torch.linalg.svd(centred, full_matrices=False)
    dist_ap, dist_an = hardest_distances(network(digits.train_images), digits.train_labels)
    return View(
        map_at_r=map_at_r(embeddings, labels),
        points=centred @ directions[:2].T,
        explained=float((strength[:2] ** 2).sum() / (strength**2).sum()),
        labels=labels,
        dist_ap=dist_ap,
        dist_an=dist_an,
    )


def hardest_distances(
    embeddings: Tensor,  # (N, D)
    labels: Tensor,  # (N,)
) -> tuple[Tensor, Tensor]:
    """Distance of each row to its farthest positive and to its nearest negative."""
    triplets = flashmetric.mine_triplets(embeddings, labels)
    anchor = embeddings[triplets.anchor]
    dist_ap = torch.linalg.vector_norm(anchor - embeddings[triplets.positive], dim=1)
    dist_an = torch.linalg.vector_norm(anchor - embeddings[triplets.negative], dim=1)
    return dist_ap, dist_an


@torch.no_grad()
def map_at_r(
    rows: Tensor,  # (M, D)
    labels: Tensor,  # (M,)
) -> float:
    """Mean average precision at R (Musgrave et al., A Metric Learning Reality Check, 2020).

    For each row, R is the number of other rows of its class. Of its R nearest neighbours, the
    precision at each correct one is added up and divided by R.
    """
    distances = flashmetric.pairwise_distances(rows)
    distances.fill_diagonal_(torch.inf)
    neighbours = labels[distances.argsort(dim=1)]
    correct = (neighbours == labels[:, None]).double()
    relevant = (labels[:, None] == labels).sum(1, keepdim=True) - 1
    rank = torch.arange(1, len(labels) + 1)
    precision = correct.cumsum(1) / rank
    counted = correct * precision * (rank <= relevant)
    return float((counted.sum(1, keepdim=True) / relevant.clamp(min=1)).mean())
