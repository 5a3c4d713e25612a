# SPDX-License-Identifier: BSD-3-Clause
"""Losses: one function each, and an nn.Module that remembers its options.

triplet         triplet_loss mines its triplets in the batch; TripletLoss, BatchHardTripletLoss
triplet_margin  triplet_margin_loss takes given triplets; TripletMarginLoss
"""

from flashmetric.reference import Stats

from .triplet import BatchHardTripletLoss, TripletLoss, triplet_loss
from .triplet_margin import TripletMarginLoss, triplet_margin_loss

__all__ = [
    "BatchHardTripletLoss",
    "Stats",
    "TripletLoss",
    "TripletMarginLoss",
    "triplet_loss",
    "triplet_margin_loss",
]
