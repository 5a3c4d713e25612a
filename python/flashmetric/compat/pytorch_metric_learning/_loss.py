# SPDX-License-Identifier: BSD-3-Clause
"""What fused losses of pytorch-metric-learning share."""

from __future__ import annotations

from typing import Any, NamedTuple

from pytorch_metric_learning.utils import common_functions as _c_f
from torch import Tensor

from flashmetric import _ops
from flashmetric._compat import is_compiling
from flashmetric.compat._peer import like, not_fused

from ._metric import (
    Batch,
    Metric,
    batch_of,
    keeps_stats,
    labels_of,
    measured_dtype,
    metric_of,
    record,
)
from ._mined import Mined

__all__ = ["Call", "FusedLoss", "reduced"]


class Call(NamedTuple):
    """One call of a loss, with its distance."""

    metric: Metric
    embeddings: Tensor
    labels: Any  # (B,), or None if indices are given
    indices: Any
    ref: Tensor  # the embeddings themselves if none are given
    ref_labels: Any

    def batch(self) -> Batch:
        return batch_of(self.metric, self.embeddings, self.labels, self.ref, self.ref_labels)

    def rows(self) -> dict[str, Tensor]:
        """What given indices point into: keywords of our functions."""
        rows = {"embeddings": self.metric.rows(self.embeddings)}
        if self.ref is not self.embeddings:
            rows["ref_embeddings"] = self.metric.rows(self.ref)
        return rows

    def given(self) -> dict[str, Any]:
        """Keywords of our functions of given indices."""
        return {**self.rows(), **self.metric.options()}

    def as_measured(self, losses: Tensor) -> Tensor:
        """(T,) losses of listed pairs or triplets, in the dtype of the peer's."""
        return losses.to(measured_dtype(self.embeddings.dtype, self.embeddings.device.type))


class FusedLoss:
    """A loss by our kernels, or, saying why, by the peer's own code."""

    distance: Any
    reducer: Any
    zero_loss: Any
    zero_losses: Any

    def metric(self) -> Metric | str:
        """That of the loss, or why our kernels do not compute it."""
        return metric_of(self.distance)

    def why_not_fused(self) -> str:
        """Empty if our kernels compute the loss."""
        metric = self.metric()
        return metric if isinstance(metric, str) else ""

    def reset_stats(self) -> None:
        if keeps_stats(self):
            super().reset_stats()  # type: ignore[misc]

    def kernel_of(self, indices: Any) -> str:
        """The op that computes the loss of these; not every device has every one."""
        raise NotImplementedError

    def compute_loss(
        self, embeddings: Tensor, labels: Any, indices_tuple: Any, ref_emb: Tensor, ref_labels: Any
    ) -> dict[str, Any]:
        """The sub-losses, for the reducer of the loss."""
        if is_compiling() and isinstance(indices_tuple, Mined):
            indices_tuple = indices_tuple.recipe.found()
        metric = self.metric()
        if isinstance(metric, Metric):
            reason = _ops.why_not_fused(embeddings.device, self.kernel_of(indices_tuple))
            metric = reason or metric
        ref_labels = labels_of(ref_emb, ref_labels, labels)
        given = (embeddings, labels, indices_tuple, ref_emb, ref_labels)
        if isinstance(metric, str):
            not_fused(type(self).__name__, metric)
            theirs: dict[str, Any] = super().compute_loss(*given)  # type: ignore[misc]
            return theirs
        _c_f.labels_or_indices_tuple_required(labels, indices_tuple)
        record(self.distance, embeddings, ref_emb)
        return self.fused_losses(Call(metric, *given))

    def fused_losses(self, call: Call) -> dict[str, Any]:
        raise NotImplementedError


def reduced(loss: Tensor, embeddings: Tensor) -> dict[str, Any]:
    """A sub-loss that its reducer takes as it is."""
    value = like(loss, embeddings)
    return {"losses": value, "indices": None, "reduction_type": "already_reduced"}
