# SPDX-License-Identifier: BSD-3-Clause
"""Losses: one function each, and an nn.Module that remembers its options.

of a batch, whose pairs or triplets they find themselves:
    triplet             triplet_loss; modules in triplet_module: TripletLoss, BatchHardTripletLoss,
                        BatchSemiHardTripletLoss, BatchAllTripletLoss
    quadruplet          quadruplet_loss, QuadrupletLoss
    margin              margin_loss; module in margin_module: MarginLoss
    contrastive         contrastive_loss, ContrastiveLoss
    online_contrastive  online_contrastive_loss, OnlineContrastiveLoss
of given ones:
    triplet_margin      triplet_margin_loss, TripletMarginLoss
    quadruplet_margin   quadruplet_margin_loss, QuadrupletMarginLoss
    contrastive_pairs   contrastive_pairs_loss, ContrastivePairsLoss
"""

from flashmetric.reference import Stats

from .contrastive import ContrastiveLoss, contrastive_loss
from .contrastive_pairs import ContrastivePairsLoss, contrastive_pairs_loss
from .margin import margin_loss
from .margin_module import MarginLoss
from .online_contrastive import OnlineContrastiveLoss, online_contrastive_loss
from .quadruplet import QuadrupletLoss, quadruplet_loss
from .quadruplet_margin import QuadrupletMarginLoss, quadruplet_margin_loss
from .triplet import triplet_loss
from .triplet_margin import TripletMarginLoss, triplet_margin_loss
from .triplet_module import (
    BatchAllTripletLoss,
    BatchHardTripletLoss,
    BatchSemiHardTripletLoss,
    TripletLoss,
)

__all__ = [
    "BatchAllTripletLoss",
    "BatchHardTripletLoss",
    "BatchSemiHardTripletLoss",
    "ContrastiveLoss",
    "ContrastivePairsLoss",
    "MarginLoss",
    "OnlineContrastiveLoss",
    "QuadrupletLoss",
    "QuadrupletMarginLoss",
    "Stats",
    "TripletLoss",
    "TripletMarginLoss",
    "contrastive_loss",
    "contrastive_pairs_loss",
    "margin_loss",
    "online_contrastive_loss",
    "quadruplet_loss",
    "quadruplet_margin_loss",
    "triplet_loss",
    "triplet_margin_loss",
]
