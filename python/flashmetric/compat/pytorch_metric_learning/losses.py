# SPDX-License-Identifier: BSD-3-Clause
"""`pytorch_metric_learning.losses`: the same classes, without the distance matrix.

    TripletMarginLoss                                   of all triplets, or those of a miner
    MarginLoss                                          likewise
    ContrastiveLoss, SignalToNoiseRatioContrastiveLoss  of all pairs, or those of a miner

Every other name is the peer's own. The mean, the mean over what is above 0 and the sum come from
one pass over tiles. Reducers that ask for each loss get the losses of the triplets or pairs, which
are then listed, in the order of the peer.

Example:
    >>> import torch
    >>> from flashmetric.compat.pytorch_metric_learning import losses
    >>> embeddings = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6], [0.0, 1.0]])
    >>> labels = torch.tensor([0, 0, 1, 1])
    >>> round(losses.TripletMarginLoss()(embeddings, labels).item(), 4)
    0.4285
    >>> round(losses.ContrastiveLoss()(embeddings, labels).item(), 4)
    1.3785
"""

from __future__ import annotations

from pytorch_metric_learning import losses as _peer

from flashmetric.compat._peer import passing_through

from ._pairs import ContrastiveLoss, SignalToNoiseRatioContrastiveLoss
from ._triplets import MarginLoss, TripletMarginLoss

__all__ = [
    "ContrastiveLoss",
    "MarginLoss",
    "SignalToNoiseRatioContrastiveLoss",
    "TripletMarginLoss",
]

# Where they are found: the name that is pickled, and that a reader sees.
for _name in __all__:
    globals()[_name].__module__ = __name__

__getattr__, __dir__ = passing_through(globals(), _peer)
