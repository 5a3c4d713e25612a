# SPDX-License-Identifier: BSD-3-Clause
"""Miners that list pairs or draw triplets."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_metric_learning import miners as _peer
from torch import Tensor

from flashmetric import functional

from ._lazy_miners import FusedMiner
from ._metric import Batch, Metric, batch_of

__all__ = ["DistanceWeightedMiner", "PairMarginMiner"]

FM: Any = functional  # called with options from dictionaries, which overloads cannot follow
_CHUNK = 2**22  # distances held at a time: 16 MiB of float32


class PairMarginMiner(FusedMiner, _peer.PairMarginMiner):
    """`pytorch_metric_learning.miners.PairMarginMiner`, by chunks of rows.

    Memory: O((B + R) D), 16 MiB, and the pairs. Not fused: collect_stats, whose numbers are over
    all pairs.
    """

    pos_margin: float
    neg_margin: float

    def _unknown_option(self) -> str:
        return "collect_stats asks for every pair" if self.collect_stats else ""

    def kernel(self) -> str:
        return "pairwise"

    def mine(self, *asked: Tensor) -> tuple[Tensor, ...]:
        metric = self._metric(asked[0], asked[2])
        if metric is None:
            return super().mine(*asked)
        batch = batch_of(metric, *asked)
        step = max(1, _CHUNK // max(1, batch.refs()[0].shape[0]))
        starts = range(0, max(1, batch.labels.shape[0]), step)
        chunks = [self._chunk(batch, metric, start, start + step) for start in starts]
        return tuple(torch.cat(side) for side in zip(*chunks, strict=True))

    def _chunk(self, batch: Batch, metric: Metric, start: int, end: int) -> tuple[Tensor, ...]:
        """The pairs of some anchors."""
        refs, ref_labels = batch.refs()
        dist = FM.pairwise_distances(batch.embeddings[start:end], refs, **metric.options())
        same = batch.labels[start:end, None] == ref_labels
        far = dist > metric.boundary(self.pos_margin)
        near = dist < metric.boundary(self.neg_margin)
        positive, negative = same & far, ~same & near
        if batch.leaves_out_itself():
            positive.diagonal(start).fill_(False)
        (a1, p), (a2, n) = positive.nonzero(as_tuple=True), negative.nonzero(as_tuple=True)
        return a1 + start, p, a2 + start, n


class DistanceWeightedMiner(FusedMiner, _peer.DistanceWeightedMiner):
    """`pytorch_metric_learning.miners.DistanceWeightedMiner`, of the same distribution.

    Each anchor draws as many triplets as its class has references (itself included): a positive at
    random and a negative, any distance between the cut-offs as likely as any other. One number of
    torch's default generator seeds the draws, so they are repeatable, and not the peer's.

    Not fused: cut-offs other than 0.5 and 1.4.
    """

    cutoff: float
    nonzero_loss_cutoff: float

    def _unknown_option(self) -> str:
        default = (self.cutoff, self.nonzero_loss_cutoff) == (0.5, 1.4)
        return "" if default else "there is a kernel for the cut-offs 0.5 and 1.4 only"

    def mine(self, *asked: Tensor) -> tuple[Tensor, ...]:
        metric = self._metric(asked[0], asked[2])
        if metric is None:
            return super().mine(*asked)
        batch = batch_of(metric, *asked)

        def draw() -> Any:  # the rule looks at directions: nothing is to be normalised
            return FM.mine_triplets(**batch._asdict(), mining="distance_weighted")

        drawn = draw()
        anchor, negative = drawn.anchor, drawn.negative
        if batch.leaves_out_itself():  # one more each, for itself
            again = draw()
            first = torch.ones_like(again.anchor, dtype=torch.bool)
            first[1:] = again.anchor[1:] != again.anchor[:-1]
            anchor = torch.cat([anchor, again.anchor[first]])
            negative = torch.cat([negative, again.negative[first]])
        return anchor, _positive(anchor, drawn), negative


def _positive(anchor: Tensor, drawn: Any) -> Tensor:
    """For each of these one of the positives of its anchor, which were drawn once each."""
    start = torch.searchsorted(drawn.anchor, anchor)
    count = torch.searchsorted(drawn.anchor, anchor, right=True) - start
    part = torch.rand(anchor.shape[0], dtype=torch.float64).to(anchor.device)
    index: Tensor = drawn.positive[start + (part * count).long()]
    return index
