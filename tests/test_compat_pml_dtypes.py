# SPDX-License-Identifier: BSD-3-Clause
"""Fused classes of pytorch-metric-learning in float32 and half precision, beside the peer.

The truth is the peer in float64 on the same rounded rows and the same mined indices, the baseline
the peer in float32: its own half precision rounds every distance, and lacks some on the CPU.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

pytest.importorskip(
    "pytorch_metric_learning", reason="compares with pytorch-metric-learning 2.9, of `test`"
)

from compare import assert_no_worse_than, exact
from less_lucky import less_lucky
from pml_grid import DISTANCES, LAYOUTS, REDUCERS, batch_of, loss_of, twins, with_gradients

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# Thresholds and statistics of the rest are over losses that have been rounded.
REDUCED = ["avg non zero", "class weighted", "default", "mean", "sum"]
MEASURED = sorted(set(DISTANCES) - {"dot"})  # margins of inner products run the code of the peer
MINERS = {
    "none": lambda _: None,
    "hard": lambda distance: twins("BatchHardMiner", distance=distance),
    "easy semihard": lambda distance: twins("BatchEasyHardMiner", distance=distance),
    "pairs": lambda distance: twins("PairMarginMiner", distance=distance),
    "margin": lambda distance: twins("TripletMarginMiner", distance=distance),
    "another margin": lambda _: twins("TripletMarginMiner", margin=0.3),
}


# In half precision: rows are divided by their L1 norms before they are compared, and rounded; two
# features may have the same largest difference, of which the peer gives either the whole slope.
ROUNDED = ("L1", "Linf")


def _in_order(found: list[torch.Tensor], columns: torch.Tensor) -> list[torch.Tensor]:
    """Gradients of rows whose features were put into this order, in the order before."""
    back = columns.argsort()
    return [each[:, back] if each.ndim == 2 else each for each in found]


def _assert_as_precise(ours, theirs, batch, refs, mine, dtype) -> None:
    """Value and gradients, parameters included."""
    rows, labels = batch[0].to(dtype), batch[1]
    ref_rows, ref_labels = (None, None) if refs is None else (refs[0].to(dtype), refs[1])
    sides = () if refs is None else (ref_rows, ref_labels)
    miner = None if mine is None else mine[0]
    found = with_gradients(loss_of(ours, miner, labels, ref_labels), rows, ref_rows)
    # Near ties may be decided otherwise elsewhere: every side evaluates the same indices.
    pairs = None if miner is None else tuple(miner(rows, labels, *sides))

    def evaluated(loss: Any, kind: torch.dtype, columns: torch.Tensor) -> list[torch.Tensor]:
        wide = [None if each is None else each.to(kind)[:, columns] for each in (rows, ref_rows)]
        return _in_order(with_gradients(loss_of(loss, pairs, labels, ref_labels), *wide), columns)

    columns = torch.arange(rows.shape[1])
    truth = evaluated(copy.deepcopy(theirs).double(), torch.float64, columns)
    plain = [evaluated(theirs, torch.float32, order) for order in (columns, columns.flip(0))]
    assert {each.dtype for each in found[: 2 + (refs is not None)]} == {dtype}
    for one, right, *others in zip(found, truth, *plain, strict=True):
        right = exact(right).reshape(one.shape)
        rounded = [each.to(dtype).reshape(one.shape) for each in others]
        # Parameters stay float32; in half precision what reaches them has been rounded.
        baseline = less_lucky(right, *rounded)
        assert_no_worse_than(one.to(dtype), baseline=baseline, truth=right)


batches = st.tuples(st.sampled_from(LAYOUTS), st.integers(0, 99)).map(lambda both: batch_of(*both))
references = st.sampled_from([None, *(batch_of((3, 3, 2), seed) for seed in (101, 102))])
dtypes = st.sampled_from(DTYPES)


@settings(max_examples=120, deadline=None)
@given(
    batch=batches,
    refs=references,
    dtype=dtypes,
    distance=st.sampled_from(sorted(DISTANCES)),
    reducer=st.sampled_from(REDUCED),
    margin=st.sampled_from([0.05, 0.4, -0.1]),
    swap=st.booleans(),
    smooth=st.booleans(),
    miner=st.sampled_from(["none", "hard", "easy semihard", "margin", "another margin"]),
)
def test_triplet_margin_loss(batch, refs, dtype, distance, reducer, margin, swap, smooth, miner):
    assume(dtype is torch.float32 or distance not in ROUNDED)
    losses = twins(
        "TripletMarginLoss",
        margin=margin,
        swap=swap and refs is None,  # with references the peer is wrong
        smooth_loss=smooth,
        distance=DISTANCES[distance],
        reducer=REDUCERS[reducer],
    )
    _assert_as_precise(*losses, batch, refs, MINERS[miner](DISTANCES[distance]), dtype)


@settings(max_examples=100, deadline=None)
@given(
    batch=batches,
    refs=references,
    dtype=dtypes,
    distance=st.sampled_from(MEASURED),
    reducer=st.sampled_from(REDUCED),
    margins=st.sampled_from([(0, 1), (0.2, 0.8), (0.9, 0.3)]),
    miner=st.sampled_from(["none", "pairs", "hard", "another margin"]),
)
def test_contrastive_loss(batch, refs, dtype, distance, reducer, margins, miner):
    assume(dtype is torch.float32 or distance not in ROUNDED)
    losses = twins(
        "ContrastiveLoss",
        pos_margin=margins[0],
        neg_margin=margins[1],
        distance=DISTANCES[distance],
        reducer=REDUCERS[reducer],
    )
    mine = MINERS[miner](DISTANCES[distance])
    pairs = None if mine is None else mine[1](*batch, *(refs or ()))
    if (pairs is not None and max(map(len, pairs)) <= 1) or len(batch[0]) <= 2:
        return  # the peer ignores one pair of each kind: a test of its own
    _assert_as_precise(*losses, batch, refs, mine, dtype)


@settings(max_examples=80, deadline=None)
@given(
    batch=batches,
    refs=references,
    dtype=dtypes,
    distance=st.sampled_from(MEASURED),
    reducer=st.sampled_from(["default", "sum"]),
    beta=st.sampled_from([1.2, 0.5]),
    learned=st.sampled_from([(False, None), (True, None), (True, 9)]),
    miner=st.sampled_from(["none", "hard", "margin"]),
)
def test_margin_loss(batch, refs, dtype, distance, reducer, beta, learned, miner):
    assume(dtype is torch.float32 or distance not in ROUNDED)
    losses = twins(
        "MarginLoss",
        beta=beta,
        learn_beta=learned[0],
        num_classes=learned[1],
        distance=DISTANCES[distance],
        reducer=REDUCERS[reducer],
    )
    _assert_as_precise(*losses, batch, refs, MINERS[miner](DISTANCES[distance]), dtype)
