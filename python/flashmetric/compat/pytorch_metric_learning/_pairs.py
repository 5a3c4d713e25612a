# SPDX-License-Identifier: BSD-3-Clause
"""Losses of pairs: all of a batch, those of a miner, or listed ones."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_metric_learning import losses as _peer

from flashmetric import functional
from flashmetric._compat import certainly

from ._indices import pairs_of
from ._loss import Call, FusedLoss, reduced
from ._metric import Metric, distance_of, reduction_of, unusual

__all__ = ["ContrastiveLoss", "SignalToNoiseRatioContrastiveLoss"]

FM: Any = functional  # called with options from dictionaries, which overloads cannot follow


class _OfPairs(FusedLoss):
    pos_margin: float
    neg_margin: float

    def metric(self) -> Metric | str:
        return unusual(self.pos_margin, self.neg_margin) or distance_of(self.distance)

    def kernel_of(self, indices: Any) -> str:
        return "dense" if indices is None else "paired"

    def fused_losses(self, call: Call) -> dict[str, Any]:
        reductions = [reduction_of(self.reducer, name) for name in ("pos_loss", "neg_loss")]
        one = reductions[0] == reductions[1] and reductions[0] not in (None, "divisor")
        if call.indices is None and one:
            loss = FM.contrastive_loss(
                **call.batch()._asdict(),
                **self._margins(call),
                reduction=reductions[0],
                **call.metric.options(),
            )
            # One number for both: the peer returns their sum.
            return {"pos_loss": reduced(loss, call.embeddings), "neg_loss": self.zero_loss()}
        a1, p, a2, n = pairs_of(call)
        return {
            "pos_loss": self._listed(call, (a1, p), "pos"),
            "neg_loss": self._listed(call, (a2, n), "neg"),
        }

    def _margins(self, call: Call) -> dict[str, Any]:
        near, far = (call.metric.boundary(each) for each in (self.pos_margin, self.neg_margin))
        return {"pos_margin": near, "margin": far, "power": 1}

    def _listed(self, call: Call, pairs: Any, kind: str) -> dict[str, Any]:
        found: dict[str, Any] = {"losses": 0, "indices": pairs, "reduction_type": f"{kind}_pair"}
        if not certainly(pairs[0].shape[0] == 0):
            similar = torch.full_like(pairs[0], int(kind == "pos"))
            options = {**call.given(), **self._margins(call), "reduction": "none"}
            losses = FM.contrastive_pairs_loss(*pairs, similar, **options)
            found["losses"] = call.as_measured(losses)
        return found


class ContrastiveLoss(_OfPairs, _peer.ContrastiveLoss):
    """`pytorch_metric_learning.losses.ContrastiveLoss`, in O((B + R) D) memory.

    With a miner, or a reducer that asks for each loss, memory is O(T) for T pairs. The peer ignores
    the pairs if there is one of each kind at most; here they count. Not fused: inner products
    without normalisation; distances that are no classes of the peer.
    """


class SignalToNoiseRatioContrastiveLoss(_OfPairs, _peer.SignalToNoiseRatioContrastiveLoss):
    """`pytorch_metric_learning.losses.SignalToNoiseRatioContrastiveLoss`; see `ContrastiveLoss`."""
