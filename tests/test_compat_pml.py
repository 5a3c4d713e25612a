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

from pml_grid import DISTANCES, LAYOUTS, REDUCERS, assert_equal, batch_of, twins

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
    rows, labels = batch_of(*batch)
    refs = batch_of((3, 3, 2), batch[1] + 100) if references else None
    ours, theirs = twins(
        "TripletMarginLoss",
        margin=margin,
        swap=swap and not references,  # with references the peer is wrong: a test of its own
        smooth_loss=smooth,
        distance=DISTANCES[distance],
        reducer=REDUCERS[reducer],
    )
    mine = {
        "none": lambda: None,
        "hard": lambda: twins("BatchHardMiner", distance=DISTANCES[distance]),
        "easy semihard": lambda: twins("BatchEasyHardMiner", distance=DISTANCES[distance]),
        "all hard": lambda: twins(
            "BatchEasyHardMiner",
            pos_strategy="all",
            neg_strategy="hard",
            distance=DISTANCES[distance],
        ),
        "margin": lambda: twins("TripletMarginMiner", distance=DISTANCES[distance]),
        "margin hard": lambda: twins("TripletMarginMiner", margin=0.3, type_of_triplets="hard"),
    }[miner]()
    assert_equal(ours, theirs, rows, labels, mine, refs)


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
    rows, labels = batch_of(*batch)
    refs = batch_of((3, 3, 2), batch[1] + 100) if references else None
    ours, theirs = twins(
        "ContrastiveLoss",
        pos_margin=margins[0],
        neg_margin=margins[1],
        distance=DISTANCES[distance],
        reducer=REDUCERS[reducer],
    )
    mine = {
        "none": lambda: None,
        "pairs": lambda: twins("PairMarginMiner", distance=DISTANCES[distance]),
        "hard": lambda: twins("BatchHardMiner", distance=DISTANCES[distance]),
        "triplets": lambda: twins("TripletMarginMiner"),
    }[miner]()
    tuples = None if mine is None else mine[1](rows, labels, *(refs or ()))
    if tuples is not None and all(len(each) <= 1 for each in tuples):
        return  # ignored by the peer: a test of its own
    if tuples is None and rows.shape[0] * (8 if references else rows.shape[0]) <= 4:
        return
    assert_equal(ours, theirs, rows, labels, mine, refs)


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
    rows, labels = batch_of(*batch)
    refs = batch_of((3, 3, 2), batch[1] + 100) if references else None
    ours, theirs = twins(
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
        "hard": lambda: twins("BatchHardMiner", distance=DISTANCES[distance]),
        "margin": lambda: twins("TripletMarginMiner"),
    }[miner]()
    if learned[0]:
        assert [name for name, _ in ours.named_parameters()] == ["beta"]
    assert_equal(ours, theirs, rows, labels, mine, refs)


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
        rows, labels = batch_of(layout, 3)
        refs: tuple[Any, ...] = ()
        if references:
            refs = (rows, labels.clone()) if references == "the batch" else batch_of((3, 3, 2), 5)
        options = {"distance": DISTANCES[distance]}
        pairs = [twins("BatchHardMiner", **options), twins("PairMarginMiner", **options)]
        pairs += [
            twins("BatchEasyHardMiner", pos_strategy=pos, neg_strategy=neg, **options)
            for pos, neg in STRATEGIES
        ]
        pairs += [
            twins("TripletMarginMiner", margin=margin, type_of_triplets=kind, **options)
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
