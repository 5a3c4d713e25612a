# SPDX-License-Identifier: BSD-3-Clause
"""A distance, a batch and a reducer of pytorch-metric-learning in the terms of our functions."""

from __future__ import annotations

from operator import itemgetter
from typing import Any, NamedTuple

import torch
from pytorch_metric_learning import reducers as _reducers

# By name: `flashmetric.patch` puts other classes into that module.
from pytorch_metric_learning.distances import (
    CosineSimilarity,
    DotProductSimilarity,
    LpDistance,
    SNRDistance,
)
from torch import Tensor
from torch.nn.functional import normalize

from flashmetric._compat import is_compiling
from flashmetric._names import Distance
from flashmetric.distances import Minkowski
from flashmetric.losses import contrastive_pairs_loss

__all__ = [
    "Batch",
    "Metric",
    "batch_of",
    "distance_of",
    "is_hooked",
    "is_touched",
    "keeps_stats",
    "labels_of",
    "measured_dtype",
    "metric_of",
    "n_triplets",
    "record",
    "reduction_of",
    "unusual",
]


class Metric(NamedTuple):
    """Our name of a distance of the peer, and how its numbers are read."""

    distance: Distance
    normalize: bool = False
    first: float | None = None  # rows are divided by this norm before, if it is not the second
    similarity: bool = False  # the peer's value is 1 - cosine, or - dot, of ours

    def rows(self, embeddings: Tensor) -> Tensor:
        """Half precision would round what it divides, and becomes float32."""
        if self.first is None:
            return embeddings
        return normalize(
            embeddings.float() if embeddings.itemsize == 2 else embeddings, p=self.first
        )

    def options(self) -> dict[str, Any]:
        """Keywords of our functions."""
        return {"distance": self.distance, "normalize": self.normalize}

    def distances(self, pairs: tuple[Tensor, Tensor], **rows: Tensor) -> Tensor:
        """(T,) of given pairs, in our terms; rows: embeddings, and ref_embeddings if given.

        The hinge of a positive pair at 0 leaves its distance as it is.
        """
        similar = torch.ones_like(pairs[0])
        return contrastive_pairs_loss(
            *pairs,
            similar,
            embeddings=rows["embeddings"],
            ref_embeddings=rows.get("ref_embeddings"),
            power=1,
            reduction="none",
            distance=self.distance,
            normalize=self.normalize,
        )

    def boundary(self, number: Any) -> Any:
        """A distance or similarity of the peer as a distance of ours."""
        if not self.similarity:
            return number
        return -number if self.distance == "dot" else 1 - number


def metric_of(distance: Any) -> Metric | str:
    """The metric, or why there is none."""
    kind = _KIND.get(type(distance))
    if kind is None:
        return f"distance {type(distance).__name__} has no kernel"
    if not is_compiling() and is_touched(distance):
        return f"{type(distance).__name__} has hooks or methods of its own"
    if distance.is_inverted is not (kind in (CosineSimilarity, DotProductSimilarity)):
        return f"is_inverted of {type(distance).__name__} was changed"
    asked = kind, distance.power, distance.p, distance.normalize_embeddings
    found = _METRICS.get(asked)
    if found is None:
        found = _METRICS[asked] = _metric_of(*asked)
    return found


_METRICS: dict[tuple[Any, ...], Metric | str] = {}


def _metric_of(kind: type, power: float, given: float, divided: bool) -> Metric | str:
    p = float(given)
    if power != 1 and not (kind is LpDistance and p == power == 2):
        return f"there is no kernel for the power {power} of {kind.__name__}"
    rows = (divided and p == 2, p if divided and p != 2 else None)
    if kind is SNRDistance:
        return Metric("snr", *rows)
    if kind is not LpDistance:
        return Metric("cosine" if rows[0] else "dot", *rows, similarity=True)
    if p < 1:
        return f"LpDistance(p={given}) is no distance: p must be at least 1"
    if p == 2:
        return Metric("euclidean" if power == 1 else "sqeuclidean", *rows)
    return Metric(Minkowski(p), *rows)


def unusual(*margins: Any) -> str:
    """Why our kernels do not take these margins; "" if they do."""
    for margin in margins:
        if not isinstance(margin, (int, float)) or margin - margin != 0:
            return "there is no kernel for a margin that is not a finite number"
    return ""


def distance_of(distance: Any) -> Metric | str:
    """The same for margins that are measured from a distance of 0."""
    metric = metric_of(distance)
    if isinstance(metric, Metric) and metric.distance == "dot":
        return "margins of inner products have no kernel"
    return metric


def measured_dtype(rows: torch.dtype, device: str) -> torch.dtype:
    """Of the peer's distances of such rows, on a type of device, and of the loss of each pair.

    CUDA's autocast takes norms, torch.cdist and powers of half precision in float32. The peer has
    inner products in the dtype of autocast; here they are float32 as well.
    """
    if device != "cuda" or not torch.is_autocast_enabled(device):
        return rows
    return torch.promote_types(rows, torch.float32)


# Exact types: a subclass may mean anything.
_KIND: dict[type, type] = {
    each: each for each in (LpDistance, SNRDistance, CosineSimilarity, DotProductSimilarity)
}


def stands_for(ours: type) -> type:
    """Registers our subclass of a distance; a decorator."""
    _KIND[ours] = _KIND[ours.__mro__[1]]
    return ours


_HOOKS = itemgetter(
    "_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks"
)


def is_hooked(module: Any) -> bool:
    """Whether somebody wants to see what it is given or returns."""
    return any(_HOOKS(module.__dict__))


def is_touched(module: Any) -> bool:
    """The same, or put something into the place of a method of its class."""
    shadows = (callable(getattr(type(module), name, None)) for name in module.__dict__)
    return is_hooked(module) or any(shadows)


def keeps_stats(module: Any) -> bool:
    """Whether there are statistics to reset or to find; a module without any takes 4 us to see."""
    own = module.__dict__
    return bool(own.get("collect_stats")) or "_record_these_stats" in own


def record(distance: Any, query: Tensor, ref: Tensor) -> None:
    """The statistics that a call of the distance leaves behind, and its checks."""
    if keeps_stats(distance):
        distance.reset_stats()
    distance.check_shapes(query, ref)
    if distance.collect_stats:
        final = distance.maybe_normalize(query), distance.maybe_normalize(ref)
        distance.set_default_stats(query, ref, *final)


class Batch(NamedTuple):
    """The arguments of our functions."""

    embeddings: Tensor
    labels: Tensor
    ref_embeddings: Tensor | None = None
    ref_labels: Tensor | None = None
    self_index: Tensor | None = None

    def refs(self) -> tuple[Tensor, Tensor]:
        """The rows that are compared with, and their labels."""
        if self.ref_embeddings is None or self.ref_labels is None:
            return self.embeddings, self.labels
        return self.ref_embeddings, self.ref_labels

    def leaves_out_itself(self) -> bool:
        return self.ref_embeddings is None or self.self_index is not None


def labels_of(ref_emb: Any, ref_labels: Any, labels: Any) -> Any:
    """Those of the references: of references without any, the peer takes those of the batch."""
    return labels if ref_emb is not None and ref_labels is None else ref_labels


def batch_of(
    metric: Metric, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor
) -> Batch:
    """A row is not compared with itself if the labels of both sides are one object, as in the peer:
    references that merely hold the same rows are others."""
    ref_labels = labels_of(ref_emb, ref_labels, labels)
    own = ref_labels is labels
    rows = metric.rows(embeddings)
    if own and ref_emb is embeddings:
        return Batch(rows, labels)
    refs = rows if ref_emb is embeddings else metric.rows(ref_emb)
    index = torch.arange(labels.shape[0], device=labels.device) if own else None
    kind = torch.promote_types(labels.dtype, ref_labels.dtype)
    return Batch(rows, labels.to(kind), refs, ref_labels.to(kind), index)


def n_triplets(batch: Batch) -> Tensor:
    """How many triplets the labels allow."""
    _, refs = batch.refs()
    _, ids = torch.cat([batch.labels, refs]).unique(return_inverse=True)
    n = batch.labels.shape[0]
    of_class = ids[n:].bincount(minlength=2 * n + 1)[ids[:n]]
    return ((of_class - int(batch.leaves_out_itself())) * (refs.shape[0] - of_class)).sum()


def reduction_of(reducer: Any, name: str) -> str | None:
    """The reduction that a reducer makes of the losses of that name; None: it asks for each."""
    if type(reducer) is _reducers.MultipleReducers:
        if name not in reducer.reducers:
            return reduction_of(reducer.default_reducer, name)
        return reduction_of(reducer.reducers[name], name)
    if reducer.collect_stats:
        return None
    if type(reducer) in (_reducers.AvgNonZeroReducer, _reducers.ThresholdReducer):
        return "mean_active" if reducer.low == 0 and reducer.high is None else None
    return _REDUCTIONS.get(type(reducer))


_REDUCTIONS = {
    _reducers.MeanReducer: "mean",
    _reducers.SumReducer: "sum",
    _reducers.DivisorReducer: "divisor",
}
