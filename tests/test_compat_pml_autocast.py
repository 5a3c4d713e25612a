# SPDX-License-Identifier: BSD-3-Clause
"""Fused classes of pytorch-metric-learning under CUDA's autocast, without a GPU: dtypes and
precision are the peer's. On a GPU: test_gpu_compat_pml.py."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses import FakeTensorMode

pytest.importorskip(
    "pytorch_metric_learning", reason="compares with pytorch-metric-learning 2.9, of `test`"
)

from pytorch_metric_learning import distances as their_distances
from pytorch_metric_learning import reducers

from cuda_autocast import WIDENED, cuda_autocast, flagged
from flashmetric.compat.pytorch_metric_learning import distances, losses
from flashmetric.compat.pytorch_metric_learning._metric import measured_dtype
from pml_grid import DISTANCES, REDUCERS, assert_as_precise, batch_of, dtypes_of, loss_of, twins

HALF = [torch.float16, torch.bfloat16]
FUSED = sorted(losses.__all__)
MINERS = {
    "none": lambda: None,
    "hard": lambda: twins("BatchHardMiner"),
    "margin": lambda: twins("TripletMarginMiner", margin=0.3),
    "pairs": lambda: twins("PairMarginMiner"),
}
# What the autocast of CUDA widens; inner products are another matter.
MEASURED = ["L2", "squared", "L1", "snr"]
ASKED = {
    **{name: REDUCERS[name] for name in ("default", "sum", "threshold", "class weighted")},
    "nothing": lambda: reducers.DoNothingReducer(),
}


def _twins(name, distance, reducer):
    options = {} if name.startswith("Signal") else {"distance": DISTANCES[distance]}
    return twins(name, reducer=ASKED[reducer], **options)


@pytest.mark.parametrize("rows", [*HALF, torch.float32, torch.float64])
def test_the_dtype_of_what_is_measured(rows):
    for autocast in ("cpu", "cuda"):
        with flagged(autocast):
            for device in ("cpu", "cuda"):
                widens = rows in HALF and device == autocast == "cuda"
                assert measured_dtype(rows, device) == (torch.float32 if widens else rows)
    assert measured_dtype(rows, "cuda") == rows


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", WIDENED)
def test_cuda_widens_what_is_widened_here(name, dtype):
    """By the rules of torch itself, which need no GPU for the dtype of a result."""
    with FakeTensorMode(), flagged("cuda"):
        rows = torch.ones(2, 3, dtype=dtype, device="cuda")
        others = {"power": (2,), "distances": (rows,)}.get(name, ())
        assert {each(rows, *others).dtype for each in WIDENED[name]} == {torch.float32}
        assert rows.mean().dtype == rows.var().dtype == dtype


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("reducer", ["default", "sum"])
@pytest.mark.parametrize("miner", MINERS)
@pytest.mark.parametrize("name", FUSED)
def test_the_precision_is_the_peers(name, miner, reducer, dtype):
    for seed in range(3):
        for refs in (None, batch_of((3, 3, 2), 104)):
            for distance in MEASURED if not name.startswith("Signal") else ["snr"]:
                both, batch = _twins(name, distance, reducer), batch_of((1, 6, 2, 3), seed)
                assert_as_precise(*both, batch, refs, MINERS[miner](), dtype, cuda_autocast())


@pytest.mark.parametrize("dtype", [*HALF, torch.float32])
@pytest.mark.parametrize("reducer", ASKED)
@pytest.mark.parametrize("miner", MINERS)
@pytest.mark.parametrize("name", FUSED)
def test_the_dtypes_are_the_peers(name, miner, reducer, dtype):
    """Of the value, and of each loss that a reducer asks for."""
    rows, labels = batch_of((1, 6, 2, 3), 0)
    for distance in MEASURED:
        both = _twins(name, distance, reducer)
        with cuda_autocast():
            ours, theirs = (
                dtypes_of(loss_of(loss, mine, labels)(rows.to(dtype)))
                for loss, mine in zip(both, MINERS[miner]() or (None, None), strict=True)
            )
        assert ours == theirs


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("normalize", [True, False])
def test_a_matrix_of_distances_has_the_dtype_of_the_peers(normalize, power):
    """Of float16 as given the peer has none there: it writes float32 into a matrix of float16."""
    rows = batch_of((4, 4), 0)[0]
    options = {"normalize_embeddings": normalize, "power": power}
    for dtype in HALF if normalize else [torch.bfloat16]:
        with cuda_autocast():
            ours, theirs = (
                module.LpDistance(**options)(rows.to(dtype)).dtype
                for module in (distances, their_distances)
            )
        assert ours == theirs == torch.float32
