# SPDX-License-Identifier: BSD-3-Clause
"""Fused classes of pytorch-metric-learning in float32 and half precision: as precise as the peer in
float32 on the same rounded rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

pytest.importorskip(
    "pytorch_metric_learning", reason="compares with pytorch-metric-learning 2.9, of `test`"
)

from pytorch_metric_learning import losses as their_losses

from flashmetric.compat.pytorch_metric_learning import distances, losses
from pml_grid import DISTANCES, LAYOUTS, REDUCERS, assert_as_precise, batch_of, twins

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


# In half precision two features may have the same largest difference, of which the peer gives
# either the whole slope.
ROUNDED = ("Linf",)


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
    assert_as_precise(*losses, batch, refs, MINERS[miner](DISTANCES[distance]), dtype)


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
    assert_as_precise(*losses, batch, refs, mine, dtype)


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
    assert_as_precise(*losses, batch, refs, MINERS[miner](DISTANCES[distance]), dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rows_are_divided_by_an_l1_norm_in_float32(dtype):
    """Rounded to half before, their gradient is off by a tenth; after, by the rounding of half."""
    labels = torch.arange(64) % 16
    rows = torch.randn(64, 128, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = []
    for kind, x in ((losses, rows), (their_losses, rows.double())):
        x = x.clone().requires_grad_()
        kind.TripletMarginLoss(distance=distances.LpDistance(p=1))(x, labels).backward()
        found.append(x.grad.double())
    error = (found[0] - found[1]).abs().max() / found[1].abs().max()
    assert error <= torch.finfo(dtype).eps
