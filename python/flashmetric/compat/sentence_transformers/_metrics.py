# SPDX-License-Identifier: BSD-3-Clause
"""The library's losses, and what its distance functions compute."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from flashmetric._names import DistanceName

from .._peer import not_fused, peer
from .._rows import why_not

__all__ = ["Metric", "batch_distance", "given_metric", "losses", "takes_batch", "takes_given"]

peer("sentence_transformers", "sentence-transformers", "6.2")
losses: Any = importlib.import_module("sentence_transformers.sentence_transformer.losses")


class Metric(NamedTuple):
    """What a distance function of two sides of rows computes."""

    distance: DistanceName
    eps: float = 0.0  # added to each difference
    widens: bool = False  # is the distance of half precision float32?


_OF_BATCH = losses.BatchHardTripletLossDistanceFunction
_OF_TRIPLETS, _OF_PAIRS = losses.TripletDistanceMetric, losses.SiameseDistanceMetric
_METRICS = (
    (_OF_TRIPLETS.EUCLIDEAN, Metric("euclidean", widens=True)),
    (_OF_TRIPLETS.MANHATTAN, Metric("manhattan", widens=True)),
    (_OF_TRIPLETS.COSINE, Metric("cosine", widens=True)),
    (_OF_PAIRS.EUCLIDEAN, Metric("euclidean", eps=1e-6)),
    (_OF_PAIRS.MANHATTAN, Metric("manhattan", eps=1e-6)),
    (_OF_PAIRS.COSINE_DISTANCE, Metric("cosine")),
)
_NO_KERNEL = "distance_metric is a function that kernels do not know"


def batch_distance(function: Any) -> DistanceName | None:
    """Of a function of a batch; None if it is not one of the library's."""
    squared = False
    if isinstance(function, functools.partial) and not function.args:
        squared = function.keywords.get("squared", False)
        known = not set(function.keywords) - {"squared"}
        function = function.func if known else None
    if function is _OF_BATCH.euclidean_distance:
        return "sqeuclidean" if squared else "euclidean"
    return "cosine" if function is _OF_BATCH.cosine_distance else None


def given_metric(function: Any) -> Metric | None:
    """Of a function of two sides; None if it is not one of the library's."""
    return next((metric for known, metric in _METRICS if function is known), None)


def takes_batch(loss: Any, kernel: str, labels: Tensor, embeddings: Tensor) -> DistanceName | None:
    """The distance of a batch that kernels take; otherwise None, and it is said why."""
    distance = batch_distance(loss.distance_metric)
    reason = _why_not(kernel, [embeddings]) if distance else _NO_KERNEL
    if reason:
        not_fused(type(loss).__name__, reason)
        return None
    # Their own check has its own error.
    return distance if labels.numel() == embeddings.shape[0] else None


def takes_given(
    loss: Any, kernel: str, embeddings: Sequence[Tensor], labels: Tensor | None = None
) -> Metric | None:
    """The same of given rows."""
    metric = given_metric(loss.distance_metric)
    reason = _why_not(kernel, embeddings) if metric else _NO_KERNEL
    if reason:
        not_fused(type(loss).__name__, reason)
        return None
    complete = labels is None or labels.numel() == embeddings[0].shape[0]
    n_sides = 3 if kernel == "triplet" else 2
    return metric if complete and len(embeddings) == n_sides else None


def _why_not(kernel: str, embeddings: Sequence[Tensor]) -> str:
    first = embeddings[0]
    if any(each.ndim != 2 or each.shape != first.shape for each in embeddings):
        return "embeddings are not (B, D), all of one shape"
    return why_not(kernel, *embeddings)
