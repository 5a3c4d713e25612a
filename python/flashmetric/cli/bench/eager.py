# SPDX-License-Identifier: BSD-3-Clause
"""Batch-hard triplet loss as a careful user of plain torch would write it.

The matrix of squared distances is made without a graph and only ranks; the two distances that
the loss needs are evaluated again from their rows, with a graph. Differentiating through the
whole matrix, as most code does, costs several times as much.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["gram_batch_hard"]


def gram_batch_hard(
    embeddings: Tensor,  # (B, D)
    labels: Tensor,  # (B,)
    margin: float,
) -> Tensor:
    """Mean over valid anchors of max(0, d_ap - d_an + margin), Euclidean distances."""
    with torch.no_grad():
        norms_sq = (embeddings * embeddings).sum(1)
        # ||r||^2 - 2 <x, r>: ranks the columns of a row as the distance does.
        rank = torch.addmm(norms_sq, embeddings, embeddings.T, alpha=-2.0)
        same = labels[:, None] == labels[None, :]
        # The anchor itself is its nearest row: as a positive it must not be offered.
        others = same.clone().fill_diagonal_(False)
        farthest, positive = rank.masked_fill(~others, -torch.inf).max(1)
        nearest, negative = rank.masked_fill(same, torch.inf).min(1)
        valid = (farthest > -torch.inf) & (nearest < torch.inf)
    dist_ap = torch.linalg.vector_norm(embeddings - embeddings[positive], dim=1)
    dist_an = torch.linalg.vector_norm(embeddings - embeddings[negative], dim=1)
    terms = torch.relu(dist_ap - dist_an + margin)
    return torch.where(valid, terms, 0.0).sum() / valid.sum().clamp(min=1)
