# SPDX-License-Identifier: BSD-3-Clause
"""FlashMetric: metric-learning losses that never store the distance matrix.

    losses      of a batch: triplet_loss, quadruplet_loss, margin_loss, contrastive_loss,
                online_contrastive_loss; of given rows: triplet_margin_loss,
                quadruplet_margin_loss, contrastive_pairs_loss; and a module of each, TripletLoss
                ..., BatchHardTripletLoss and its like; Stats, what a loss saw
    mining      mine_triplets -> Triplets(anchor, positive, negative)
    distances   pairwise_distances; Minkowski, Mahalanobis, for distance=
    offline     mine_offline, mine_pairs: over a data set; TripletDataset, load_mined
    samplers    PKSampler: P classes, K samples of each; split_identities
    schedules   LinearSchedule, CosineSchedule, StepSchedule: of a margin or a hardness
    diagnostics diagnose: the statistics of a loss in words
    functional  the functions alone
    reference   the same operations in plain torch: the definition of every result
    compat      classes of other libraries by our kernels; patch, unpatch, fuse

`python -m flashmetric info` says what is installed and which kernels run; selftest, demo and bench
are its other commands. Below the public names: _validate (every check and message), _autograd (what
is saved, what flows back), _ops (dispatcher ops), _C (kernels in C++).
"""

from importlib.metadata import PackageNotFoundError, version

import torch as _torch  # noqa: F401  loads the OpenMP runtime that the kernels of _C share

from . import functional, reference
from .compat import fuse, patch, unpatch
from .diagnostics import diagnose
from .distances import Mahalanobis, Minkowski, pairwise_distances
from .losses import (
    BatchAllTripletLoss,
    BatchHardTripletLoss,
    BatchSemiHardTripletLoss,
    ContrastiveLoss,
    ContrastivePairsLoss,
    MarginLoss,
    OnlineContrastiveLoss,
    QuadrupletLoss,
    QuadrupletMarginLoss,
    Stats,
    TripletLoss,
    TripletMarginLoss,
    contrastive_loss,
    contrastive_pairs_loss,
    margin_loss,
    online_contrastive_loss,
    quadruplet_loss,
    quadruplet_margin_loss,
    triplet_loss,
    triplet_margin_loss,
)
from .mining import Triplets, mine_triplets
from .offline import Pairs, TripletDataset, load_mined, mine_offline, mine_pairs
from .samplers import PKSampler, split_identities
from .schedules import CosineSchedule, LinearSchedule, Schedule, StepSchedule

try:
    __version__ = version("flashmetric")
except PackageNotFoundError:  # imported from a source tree
    __version__ = "0+unknown"

__all__ = [
    "BatchAllTripletLoss",
    "BatchHardTripletLoss",
    "BatchSemiHardTripletLoss",
    "ContrastiveLoss",
    "ContrastivePairsLoss",
    "CosineSchedule",
    "LinearSchedule",
    "Mahalanobis",
    "MarginLoss",
    "Minkowski",
    "OnlineContrastiveLoss",
    "PKSampler",
    "Pairs",
    "QuadrupletLoss",
    "QuadrupletMarginLoss",
    "Schedule",
    "Stats",
    "StepSchedule",
    "TripletDataset",
    "TripletLoss",
    "TripletMarginLoss",
    "Triplets",
    "__version__",
    "contrastive_loss",
    "contrastive_pairs_loss",
    "diagnose",
    "functional",
    "fuse",
    "load_mined",
    "margin_loss",
    "mine_offline",
    "mine_pairs",
    "mine_triplets",
    "online_contrastive_loss",
    "pairwise_distances",
    "patch",
    "quadruplet_loss",
    "quadruplet_margin_loss",
    "reference",
    "split_identities",
    "triplet_loss",
    "triplet_margin_loss",
    "unpatch",
]
