# SPDX-License-Identifier: BSD-3-Clause
"""Mining over a whole data set, and training on what was found.

triplets  mine_offline -> Triplets
pairs     mine_pairs -> Pairs(x1, x2, similar)
dataset   TripletDataset: samples of mined triplets; load_mined: results from disk
_chunks   queries in chunks, each against all references
_store    chunks on disk: written whole or not at all, put together at the end
"""

from .dataset import TripletDataset, load_mined
from .pairs import Pairs, mine_pairs
from .triplets import mine_offline

__all__ = ["Pairs", "TripletDataset", "load_mined", "mine_offline", "mine_pairs"]
