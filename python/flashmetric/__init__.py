# SPDX-License-Identifier: BSD-3-Clause
"""FlashMetric: metric-learning losses that never store the distance matrix.

    losses      triplet_loss, triplet_margin_loss, and a module of each: TripletLoss,
                BatchHardTripletLoss, TripletMarginLoss; Stats, what a loss saw
    mining      mine_triplets -> Triplets(anchor, positive, negative)
    distances   pairwise_distances
    functional  the functions alone
    reference   the same operations in plain torch: the definition of every result

`python -m flashmetric info` says what is installed and which kernels run; selftest, demo and bench
are its other commands. Below the public names: _validate (every check and message), _autograd (what
is saved, what flows back), _ops (dispatcher ops), _C (kernels in C++).
"""

from importlib.metadata import PackageNotFoundError, version

import torch as _torch  # noqa: F401  loads the OpenMP runtime that the kernels of _C share

from . import functional, reference
from .distances import pairwise_distances
from .losses import (
    BatchHardTripletLoss,
    Stats,
    TripletLoss,
    TripletMarginLoss,
    triplet_loss,
    triplet_margin_loss,
)
from .mining import Triplets, mine_triplets

try:
    __version__ = version("flashmetric")
except PackageNotFoundError:  # imported from a source tree
    __version__ = "0+unknown"

__all__ = [
    "BatchHardTripletLoss",
    "Stats",
    "TripletLoss",
    "TripletMarginLoss",
    "Triplets",
    "__version__",
    "functional",
    "mine_triplets",
    "pairwise_distances",
    "reference",
    "triplet_loss",
    "triplet_margin_loss",
]
