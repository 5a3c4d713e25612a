# SPDX-License-Identifier: BSD-3-Clause
"""The functions of FlashMetric, without the modules: `import flashmetric.functional as FM`."""

from .distances import pairwise_distances
from .losses import (
    contrastive_loss,
    contrastive_pairs_loss,
    margin_loss,
    online_contrastive_loss,
    quadruplet_loss,
    quadruplet_margin_loss,
    triplet_loss,
    triplet_margin_loss,
)
from .mining import mine_triplets

__all__ = [
    "contrastive_loss",
    "contrastive_pairs_loss",
    "margin_loss",
    "mine_triplets",
    "online_contrastive_loss",
    "pairwise_distances",
    "quadruplet_loss",
    "quadruplet_margin_loss",
    "triplet_loss",
    "triplet_margin_loss",
]
