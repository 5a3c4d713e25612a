# SPDX-License-Identifier: BSD-3-Clause
"""Options and batches of the grids in which pytorch-metric-learning and its fused classes meet."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import torch
from pytorch_metric_learning import distances, losses, miners, reducers

from compare import assert_no_worse_than, exact, ulp
from flashmetric.compat.pytorch_metric_learning import (
    distances as our_distances,
)
from flashmetric.compat.pytorch_metric_learning import losses as our_losses
from flashmetric.compat.pytorch_metric_learning import miners as our_miners
from less_lucky import less_lucky

DISTANCES = {
    "L2": lambda: distances.LpDistance(),
    "L2 as given": lambda: distances.LpDistance(normalize_embeddings=False),
    "squared": lambda: distances.LpDistance(power=2),
    "L1": lambda: distances.LpDistance(p=1),
    "L3": lambda: distances.LpDistance(p=3, normalize_embeddings=False),
    "Linf": lambda: distances.LpDistance(p=float("inf"), normalize_embeddings=False),
    "cosine": lambda: distances.CosineSimilarity(),
    "dot": lambda: distances.DotProductSimilarity(normalize_embeddings=False),
    "dot on the sphere": lambda: distances.DotProductSimilarity(),
    "snr": lambda: distances.SNRDistance(),
    "ours": lambda: our_distances.LpDistance(normalize_embeddings=False),
}
REDUCERS = {
    "default": lambda: None,
    "mean": lambda: reducers.MeanReducer(),
    "sum": lambda: reducers.SumReducer(),
    "threshold": lambda: reducers.ThresholdReducer(low=0.1, high=0.9),
    "class weighted": lambda: reducers.ClassWeightedReducer(torch.arange(1.0, 40.0).double()),
    "avg non zero": lambda: reducers.AvgNonZeroReducer(),
    "with statistics": lambda: reducers.AvgNonZeroReducer(collect_stats=True),
}
# How labels lie: sizes of classes, at most one of them large.
LAYOUTS = [(4, 4, 4), (1, 6, 2, 3), (2, 9), (1, 1, 1), (5,), (2,), (1, 1, 2)]


def batch_of(layout: tuple[int, ...], seed: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(layout)), torch.tensor(layout))
    labels = labels[torch.randperm(labels.shape[0], generator=generator)]
    rows = torch.randn(labels.shape[0], 7, generator=generator, dtype=torch.float64)
    return rows + torch.nn.functional.one_hot(labels, 7), labels


def with_gradients(loss: Any, rows: torch.Tensor, refs: torch.Tensor | None) -> list[Any]:
    leaves = [each.clone().requires_grad_() for each in (rows, refs) if each is not None]
    value = loss(*leaves)
    parameters = [each for each in getattr(loss, "parameters", list)() if each.requires_grad]
    # Without a triplet the peer's zero hangs on the embeddings alone.
    leaves += parameters
    grads = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
    return [value.detach(), *grads]


def loss_of(loss: Any, miner: Any, labels: torch.Tensor, ref_labels: Any = None) -> Any:
    """The loss as a function of rows and references; of what a miner or a given tuple says."""

    def found(*leaves: torch.Tensor) -> torch.Tensor:
        sides = (leaves[1], ref_labels) if ref_labels is not None else ()
        pairs = miner(leaves[0], labels, *sides) if callable(miner) else miner
        return loss(leaves[0], labels, pairs, *sides)

    found.parameters = loss.parameters  # type: ignore[attr-defined]
    return found


def dtypes_of(result: Any) -> Any:
    """That of a value; of sub-losses that nobody reduced, those of the losses of each."""
    if not isinstance(result, dict):
        return result.dtype
    # One that has no pair is the number 0.
    losses = {name: each["losses"] for name, each in result.items()}
    return {name: each.dtype for name, each in losses.items() if isinstance(each, torch.Tensor)}


def assert_equal(ours: Any, theirs: Any, rows, labels, mine=None, refs=None) -> None:
    """Two losses, each with its own miner or without one."""
    ref_rows, ref_labels = refs or (None, None)
    found, expected = (
        with_gradients(loss_of(loss, miner, labels, ref_labels), rows, ref_rows)
        for loss, miner in zip((ours, theirs), mine or (None, None), strict=True)
    )
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


def _precision_of(reducer: Any, value: torch.Tensor, dtype: torch.dtype) -> torch.dtype:
    """The reducer of several sub-losses keeps each in the dtype of the rows, whatever dtype their
    sum has."""
    return dtype if isinstance(reducer, reducers.MultipleReducers) else value.dtype


def _ulps(place: int, kind: torch.dtype, right: Any, n_compared: int, largest: float) -> float:
    """How many may be lost. In float32 a gradient has a rounding for each row that is compared, and
    a value those of the distances, of which it may be a small difference. The others are rounded
    once, at the end."""
    if kind is not torch.float32:
        return 2.0
    if place:
        return max(2.0, n_compared)
    return 2.0 * max(1.0, ulp(largest, kind) / ulp(abs(float(right.item())), kind))


def assert_as_precise(
    ours: Any, theirs: Any, batch, refs, mine, dtype: torch.dtype, autocast: Any = None
) -> None:
    """Value and gradients, parameters included: no further from the truth than twice as far as the
    peer is. The truth is the peer in float64 on the same rounded rows and the same mined indices,
    the baseline the peer in float32: its half precision rounds every distance, and lacks some. Ours
    may be in a context, of autocast."""
    rows, labels = batch[0].to(dtype), batch[1]
    ref_rows, ref_labels = (None, None) if refs is None else (refs[0].to(dtype), refs[1])
    miner = None if mine is None else mine[0]
    with autocast or nullcontext():
        found = with_gradients(loss_of(ours, miner, labels, ref_labels), rows, ref_rows)
    # Near ties may be decided otherwise elsewhere: every side evaluates the same indices.
    sides = () if refs is None else (ref_rows, ref_labels)
    pairs = None if miner is None else tuple(miner(rows, labels, *sides))

    def evaluated(loss: Any, kind: torch.dtype, columns: torch.Tensor) -> list[torch.Tensor]:
        """With features in another order, whose roundings are others."""
        wide = [None if each is None else each.to(kind)[:, columns] for each in (rows, ref_rows)]
        results = with_gradients(loss_of(loss, pairs, labels, ref_labels), *wide)
        return [each[:, columns.argsort()] if each.ndim == 2 else each for each in results]

    columns = torch.arange(rows.shape[1], device=rows.device)
    truth = evaluated(copy.deepcopy(theirs).double(), torch.float64, columns)
    plain = [evaluated(theirs, torch.float32, order) for order in (columns, columns.flip(0))]
    n_rows = 1 if refs is None else 2
    largest = float(
        theirs.distance(rows.double(), (ref_rows if refs else rows).double()).abs().max()
    )
    assert {each.dtype for each in found[1 : 1 + n_rows]} == {dtype}
    assert found[0].dtype == dtype or autocast
    n_compared = len(rows) + (0 if refs is None else len(ref_rows))
    for place, (one, right, *others) in enumerate(zip(found, truth, *plain, strict=True)):
        # Parameters stay float32; in half precision what reaches them has been rounded.
        kind = dtype if place else _precision_of(theirs.reducer, one, dtype)
        right = exact(right).reshape(one.shape)
        baseline = less_lucky(right, *(each.to(kind).reshape(one.shape) for each in others))
        ulps = _ulps(place, kind, right, n_compared, largest)
        assert_no_worse_than(one.to(kind), baseline=baseline, truth=right, ulps=ulps)


def twins(name: str, **options: Any) -> tuple[Any, Any]:
    """A class of ours and the peer's, of the same options; callables make an object for each."""

    def made(module: Any) -> Any:
        return getattr(module, name)(**{k: v() if callable(v) else v for k, v in options.items()})

    return (
        (made(our_losses), made(losses))
        if hasattr(losses, name)
        else (made(our_miners), made(miners))
    )
