# SPDX-License-Identifier: BSD-3-Clause
"""Every operation of FlashMetric in plain torch: the definition the kernels are checked against.

Read it to learn what is computed; call it (`impl="reference"`) where no kernel exists, or where a
second derivative is wanted. Arguments are those of the public functions, taken without checks.

    distances   rank_key (what decides a choice), pairwise_distances, the distance of row to row
    mining      who may be compared with whom, and which row is chosen: mine_triplets
    losses      triplet_loss, triplet_margin_loss, their reductions and statistics

Choices compare float64 keys. Values are distances of the chosen pairs, by difference, in the dtype
of the rows (half precision: in float32); the expansion |x|^2 + |r|^2 - 2 x.r appears nowhere.
Mining holds one block of key rows at a time, never the (B, R) matrix.
"""

from .distances import pairwise_distances, rank_key
from .losses import Stats, triplet_loss, triplet_margin_loss
from .mining import Triplets, mine_triplets

__all__ = [
    "Stats",
    "Triplets",
    "mine_triplets",
    "pairwise_distances",
    "rank_key",
    "triplet_loss",
    "triplet_margin_loss",
]
