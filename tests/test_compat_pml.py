# SPDX-License-Identifier: BSD-3-Clause
"""Fused classes of pytorch-metric-learning against the peer's own: values, gradients, indices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip(
    "pytorch_metric_learning", reason="compares with pytorch-metric-learning 2.9, of `test`"
)

from pytorch_metric_learning import distances, losses, miners, reducers

from flashmetric.compat.pytorch_metric_learning import (
    distances as our_distances,
)
from flashmetric.compat.pytorch_metric_learning import losses as our_losses
from flashmetric.compat.pytorch_metric_learning import miners as our_miners

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


def _batch(layout: tuple[int, ...], seed: int, dtype=torch.float64) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(layout)), torch.tensor(layout))
    labels = labels[torch.randperm(labels.shape[0], generator=generator)]
    rows = torch.randn(labels.shape[0], 7, generator=generator, dtype=torch.float64)
    return (rows + torch.nn.functional.one_hot(labels, 7)).to(dtype), labels


def _with_gradients(loss: Any, rows: torch.Tensor, refs: torch.Tensor | None) -> list[Any]:
    leaves = [each.clone().requires_grad_() for each in (rows, refs) if each is not None]
    value = loss(*leaves)
    parameters = [each for each in getattr(loss, "parameters", list)() if each.requires_grad]
    # Without a triplet the peer's zero hangs on the embeddings alone.
    leaves += parameters
    grads = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
    return [value.detach(), *grads]


def _assert_equal(ours: Any, theirs: Any, rows, labels, mine=None, refs=None) -> None:
    """Two losses, each with its own miner or without one."""

    def loss_of(loss: Any, miner: Any) -> Any:
        def loss_of_rows(*leaves: torch.Tensor) -> torch.Tensor:
            sides = (leaves[1], refs[1]) if refs is not None else ()
            pairs = None if miner is None else miner(leaves[0], labels, *sides)
            return loss(leaves[0], labels, pairs, *sides)

        loss_of_rows.parameters = loss.parameters  # type: ignore[attr-defined]
        return loss_of_rows

    ref_rows = None if refs is None else refs[0]
    our_miner, their_miner = mine or (None, None)
    found = _with_gradients(loss_of(ours, our_miner), rows, ref_rows)
    expected = _with_gradients(loss_of(theirs, their_miner), rows, ref_rows)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


def _twins(name: str, **options: Any) -> tuple[Any, Any]:
    """A class of ours and the peer's, of the same options; callables make an object for each."""

    def made(module: Any) -> Any:
        return getattr(module, name)(**{k: v() if callable(v) else v for k, v in options.items()})

    return (
        (made(our_losses), made(losses))
        if hasattr(losses, name)
        else (made(our_miners), made(miners))
    )


batches = st.tuples(st.sampled_from(LAYOUTS), st.integers(0, 99))
with_references = st.booleans()


@pytest.mark.filterwarnings("ignore:.*runs the code of its peer:RuntimeWarning")
@settings(max_examples=150, deadline=None)
@given(
    batch=batches,
    references=with_references,
    distance=st.sampled_from(sorted(DISTANCES)),
    reducer=st.sampled_from(sorted(REDUCERS)),
    margin=st.sampled_from([0.05, 0.0, 0.4, -0.1]),
    swap=st.booleans(),
    smooth=st.booleans(),
    miner=st.sampled_from(["none", "hard", "easy semihard", "all hard", "margin", "margin hard"]),
)
def test_triplet_margin_loss(batch, references, distance, reducer, margin, swap, smooth, miner):
    rows, labels = _batch(*batch)
    refs = _batch((3, 3, 2), batch[1] + 100) if references else None
    ours, theirs = _twins(
        "TripletMarginLoss",
        margin=margin,
        swap=swap and not references,  # with references the peer is wrong: a test of its own
        smooth_loss=smooth,
        distance=DISTANCES[distance],
        reducer=REDUCERS[reducer],
    )
    mine = {
        "none": lambda: None,
        "hard": lambda: _twins("BatchHardMiner", distance=DISTANCES[distance]),
        "easy semihard": lambda: _twins("BatchEasyHardMiner", distance=DISTANCES[distance]),
        "all hard": lambda: _twins(
            "BatchEasyHardMiner",
            pos_strategy="all",
            neg_strategy="hard",
            distance=DISTANCES[distance],
        ),
        "margin": lambda: _twins("TripletMarginMiner", distance=DISTANCES[distance]),
        "margin hard": lambda: _twins("TripletMarginMiner", margin=0.3, type_of_triplets="hard"),
    }[miner]()
    _assert_equal(ours, theirs, rows, labels, mine, refs)


@pytest.mark.filterwarnings("ignore:.*runs the code of its peer:RuntimeWarning")
@settings(max_examples=100, deadline=None)
@given(
    batch=batches,
    references=with_references,
    distance=st.sampled_from(sorted(DISTANCES)),
    reducer=st.sampled_from(sorted(REDUCERS)),
    margins=st.sampled_from([(0, 1), (0.2, 0.8), (0.9, 0.3)]),
    miner=st.sampled_from(["none", "pairs", "hard", "triplets"]),
)
def test_contrastive_loss(batch, references, distance, reducer, margins, miner):
    rows, labels = _batch(*batch)
    refs = _batch((3, 3, 2), batch[1] + 100) if references else None
    ours, theirs = _twins(
        "ContrastiveLoss",
        pos_margin=margins[0],
        neg_margin=margins[1],
        distance=DISTANCES[distance],
        reducer=REDUCERS[reducer],
    )
    mine = {
        "none": lambda: None,
        "pairs": lambda: _twins("PairMarginMiner", distance=DISTANCES[distance]),
        "hard": lambda: _twins("BatchHardMiner", distance=DISTANCES[distance]),
        "triplets": lambda: _twins("TripletMarginMiner"),
    }[miner]()
    tuples = None if mine is None else mine[1](rows, labels, *(refs or ()))
    if tuples is not None and all(len(each) <= 1 for each in tuples):
        return  # ignored by the peer: a test of its own
    if tuples is None and rows.shape[0] * (8 if references else rows.shape[0]) <= 4:
        return
    _assert_equal(ours, theirs, rows, labels, mine, refs)


@pytest.mark.filterwarnings("ignore:.*runs the code of its peer:RuntimeWarning")
@settings(max_examples=80, deadline=None)
@given(
    batch=batches,
    references=with_references,
    distance=st.sampled_from(sorted(DISTANCES)),
    reducer=st.sampled_from(["default", "sum", "threshold"]),
    beta=st.sampled_from([1.2, 0.5]),
    learned=st.sampled_from([(False, None), (True, None), (True, 9)]),
    nu=st.sampled_from([0, 0.3]),
    miner=st.sampled_from(["none", "hard", "margin"]),
)
def test_margin_loss(batch, references, distance, reducer, beta, learned, nu, miner):
    rows, labels = _batch(*batch)
    refs = _batch((3, 3, 2), batch[1] + 100) if references else None
    ours, theirs = _twins(
        "MarginLoss",
        beta=beta,
        nu=nu,
        learn_beta=learned[0],
        num_classes=learned[1],
        distance=DISTANCES[distance],
        reducer=REDUCERS[reducer],
    )
    for each in (ours, theirs):
        each.double()
    mine = {
        "none": lambda: None,
        "hard": lambda: _twins("BatchHardMiner", distance=DISTANCES[distance]),
        "margin": lambda: _twins("TripletMarginMiner"),
    }[miner]()
    if learned[0]:
        assert [name for name, _ in ours.named_parameters()] == ["beta"]
    _assert_equal(ours, theirs, rows, labels, mine, refs)


STRATEGIES = [
    (positive, negative)
    for positive in ("easy", "hard", "semihard", "all")
    for negative in ("easy", "hard", "semihard", "all")
    if "semihard" not in (positive, negative) or not {positive, negative} <= {"semihard", "all"}
]


@pytest.mark.parametrize("distance", ["L2", "cosine", "dot", "L1", "squared", "snr"])
@pytest.mark.parametrize("references", [False, True, "the batch"])
def test_mined_indices(distance, references):
    """The same sets; pairs and triplets of one anchor in the same order."""
    for layout in LAYOUTS:
        rows, labels = _batch(layout, 3)
        refs: tuple[Any, ...] = ()
        if references:
            refs = (rows, labels.clone()) if references == "the batch" else _batch((3, 3, 2), 5)
        options = {"distance": DISTANCES[distance]}
        pairs = [_twins("BatchHardMiner", **options), _twins("PairMarginMiner", **options)]
        pairs += [
            _twins("BatchEasyHardMiner", pos_strategy=pos, neg_strategy=neg, **options)
            for pos, neg in STRATEGIES
        ]
        pairs += [
            _twins("TripletMarginMiner", margin=margin, type_of_triplets=kind, **options)
            for kind in ("all", "hard", "semihard", "easy")
            for margin in (0.0, 0.3)
        ]
        for ours, theirs in pairs:
            found, expected = ours(rows, labels, *refs), theirs(rows, labels, *refs)
            assert len(found) == len(expected)
            for one, other in zip(found, expected, strict=True):
                assert one.dtype == torch.int64
                assert one.tolist() == other.tolist()
            names = ("num_triplets",) if len(found) == 3 else ("num_pos_pairs", "num_neg_pairs")
            assert [getattr(ours, n) for n in names] == [getattr(theirs, n) for n in names]
