# SPDX-License-Identifier: BSD-3-Clause
"""`pytorch_metric_learning.miners`: the same classes, without the distance matrix.

    BatchHardMiner, BatchEasyHardMiner   lazy: a fused loss never sees an index (_mined.py)
    TripletMarginMiner                   likewise
    PairMarginMiner                      pairs, from chunks of rows
    DistanceWeightedMiner                negatives drawn by our kernel, of the same distribution

Every other name is the peer's own. Among equal distances the lowest index is chosen; the peer
leaves that to torch.

Example:
    >>> import torch
    >>> from flashmetric.compat.pytorch_metric_learning import losses, miners
    >>> embeddings = torch.eye(4).requires_grad_()
    >>> labels = torch.tensor([0, 0, 1, 1])
    >>> pairs = miners.BatchHardMiner()(embeddings, labels)
    >>> loss = losses.TripletMarginLoss(margin=0.1)(embeddings, labels, pairs)  # one pass
    >>> anchor, positive, negative = pairs
    >>> positive.tolist()  # found now
    [1, 0, 3, 2]
"""

from __future__ import annotations

from pytorch_metric_learning import miners as _peer

from flashmetric.compat._peer import passing_through

from ._lazy_miners import BatchEasyHardMiner, BatchHardMiner, TripletMarginMiner
from ._listed_miners import DistanceWeightedMiner, PairMarginMiner

__all__ = [
    "BatchEasyHardMiner",
    "BatchHardMiner",
    "DistanceWeightedMiner",
    "PairMarginMiner",
    "TripletMarginMiner",
]

# Where they are found: the name that is pickled, and that a reader sees.
for _name in __all__:
    globals()[_name].__module__ = __name__

__getattr__, __dir__ = passing_through(globals(), _peer)
