# SPDX-License-Identifier: BSD-3-Clause
"""Other libraries' losses and miners, by our kernels: change one import, get the same numbers.

    pytorch_metric_learning   losses, miners, distances, reducers; the rest of it passes through
    sentence_transformers     BatchHardTripletLoss and its like, TripletLoss, ContrastiveLoss ...
    reid                      TripletLoss of torchreid, triplet_loss of fast-reid
    oml                       TripletLossWithMiner of open-metric-learning, and its miners
    tfa                       triplet_semihard_loss, triplet_hard_loss of TensorFlow Addons
    torch                     TripletMarginLoss, CosineEmbeddingLoss ... of torch.nn

    patch, unpatch            the same without changing an import: `flashmetric.patch("...")`
    fuse                      the fused equivalent of a loss (and a miner) that exists already

A peer is needed only by the module that extends its classes. What has no kernel runs the peer's own
code, and says so once.
"""

from ._patch import fuse, patch, unpatch

__all__ = ["fuse", "patch", "unpatch"]
