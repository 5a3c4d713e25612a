# SPDX-License-Identifier: BSD-3-Clause
"""Every operation of FlashMetric in plain torch: the definition the kernels are checked against.

Read it to learn what is computed; call it (`impl="reference"`) where no kernel exists, or where a
second derivative is wanted. Arguments are those of the public functions, taken without checks.

    distances   rank_key (what decides a choice), pairwise_distances, the distance of row to row
    mining      who may be compared with whom, and which triplets are mined: mine_triplets
    rules       the miners, from keys to triplets
    sampling    the random numbers of the miners that draw
    evaluation  what the losses share: distances of pairs, reductions, Stats
    triplet     triplet_loss, triplet_margin_loss
    pairs       contrastive_loss, contrastive_pairs_loss, online_contrastive_loss
    quadruplet  quadruplet_loss, quadruplet_margin_loss
    margin      margin_loss

Choices compare float64 keys. Values are distances of the chosen pairs, by difference, in the dtype
of the rows (half precision: in float32); the expansion |x|^2 + |r|^2 - 2 x.r appears nowhere.
Mining holds the keys of some rows at a time. The losses hold what they are sums of: the triplets
that are listed, every pair of a contrastive loss.
"""

from .distances import pairwise_distances, rank_key
from .evaluation import Stats
from .margin import margin_loss
from .mining import Rule, Triplets, mine_triplets
from .pairs import contrastive_loss, contrastive_pairs_loss, online_contrastive_loss
from .quadruplet import quadruplet_loss, quadruplet_margin_loss
from .sampling import draw_seed
from .triplet import triplet_loss, triplet_margin_loss

__all__ = [
    "Rule",
    "Stats",
    "Triplets",
    "contrastive_loss",
    "contrastive_pairs_loss",
    "draw_seed",
    "margin_loss",
    "mine_triplets",
    "online_contrastive_loss",
    "pairwise_distances",
    "quadruplet_loss",
    "quadruplet_margin_loss",
    "rank_key",
    "triplet_loss",
    "triplet_margin_loss",
]
