# SPDX-License-Identifier: BSD-3-Clause
"""The functions of FlashMetric, without the modules: `import flashmetric.functional as FM`."""

from .distances import pairwise_distances
from .losses import triplet_loss, triplet_margin_loss
from .mining import mine_triplets

__all__ = ["mine_triplets", "pairwise_distances", "triplet_loss", "triplet_margin_loss"]
