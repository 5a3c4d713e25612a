# SPDX-License-Identifier: BSD-3-Clause
"""Fused classes of pytorch-metric-learning on a GPU, beside the peer there."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from device import DEVICE, GPU, on_cuda

pytest.importorskip(
    "pytorch_metric_learning", reason="compares with pytorch-metric-learning 2.9, of `test`"
)

from pytorch_metric_learning import losses as their_losses
from pytorch_metric_learning import miners as their_miners
from pytorch_metric_learning import reducers

from flashmetric import _C
from flashmetric.compat.pytorch_metric_learning import losses, miners
from pml_grid import (
    DISTANCES,
    LAYOUTS,
    REDUCERS,
    assert_as_precise,
    assert_equal,
    batch_of,
    dtypes_of,
    loss_of,
    twins,
)
from samples import class_batch

pytestmark = GPU
MINERS = {
    "none": lambda _: None,
    "hard": lambda distance: twins("BatchHardMiner", distance=distance),
    "easy semihard": lambda distance: twins("BatchEasyHardMiner", distance=distance),
    "margin": lambda distance: twins("TripletMarginMiner", margin=0.3, distance=distance),
    "semihard": lambda distance: twins(
        "TripletMarginMiner", type_of_triplets="semihard", distance=distance
    ),
    "pairs": lambda distance: twins("PairMarginMiner", distance=distance),
}
FUSED = sorted(losses.__all__)
WHOLE = {**REDUCERS, "nothing": lambda: reducers.DoNothingReducer()}
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def _there(batch: Any) -> Any:
    return None if batch is None else tuple(each.to(DEVICE) for each in batch)


def _refs(wanted: bool) -> Any:
    return _there(batch_of((3, 3, 2), 104)) if wanted else None


def _twins(name: str, **options: Any) -> tuple[Any, ...]:
    return tuple(loss.to(DEVICE) for loss in twins(name, **options))


def _options(name: str, distance: str, **options: Any) -> dict[str, Any]:
    return options if name.startswith("Signal") else {**options, "distance": DISTANCES[distance]}


@pytest.mark.parametrize("references", [False, True])
@pytest.mark.parametrize("miner", MINERS)
@pytest.mark.parametrize("name", FUSED)
def test_losses(name, miner, references):
    for number, layout in enumerate([each for each in LAYOUTS if len(each) > 1]):
        batch, refs = _there(batch_of(layout, number)), _refs(references)
        for distance in ("L2", "L2 as given", "squared", "L1", "cosine", "snr"):
            mine = MINERS[miner](DISTANCES[distance])
            pairs = None if mine is None else mine[1](*batch, *(refs or ()))
            if pairs is not None and max(map(len, pairs)) <= 1:
                continue  # ContrastiveLoss of the peer ignores one pair of each kind
            for reducer in ("default", "sum", "threshold"):
                options = _options(name, distance, reducer=REDUCERS[reducer])
                assert_equal(*_twins(name, **options), *batch, mine, refs)


@pytest.mark.parametrize("miner", MINERS)
@pytest.mark.parametrize("name", FUSED)
def test_batches_that_tiles_look_at(name, miner):
    """The peer lists a million triplets: of all of them, one distance."""
    batch = _there(class_batch(600, 32, 150, dtype=torch.float64))
    for distance in ("L2", "cosine"):
        mine = MINERS[miner](DISTANCES[distance])
        assert_equal(*_twins(name, **_options(name, distance)), *batch, mine)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("miner", MINERS)
@pytest.mark.parametrize("name", FUSED)
def test_dtypes(name, miner, dtype, autocast):
    """Under autocast as well: there a network returns half precision."""
    for seed in range(3):
        batch = _there(batch_of((1, 6, 2, 3), seed))
        for references in (False, True):
            losses_of = _twins(name, **_options(name, "L2"))
            mine = MINERS[miner](DISTANCES["L2"])
            under = torch.autocast(DEVICE.type, torch.bfloat16) if autocast else None
            assert_as_precise(*losses_of, batch, _refs(references), mine, dtype, under)


@on_cuda
@pytest.mark.parametrize("reducer", WHOLE)
@pytest.mark.parametrize("miner", MINERS)
@pytest.mark.parametrize("name", FUSED)
def test_autocast_gives_the_dtypes_of_the_peer(name, miner, reducer):
    """Of the value, and of each loss that a reducer asks for."""
    for dtype in DTYPES:
        rows, labels = _there(batch_of((1, 6, 2, 3), 0))
        losses_of = _twins(name, **_options(name, "L2", reducer=WHOLE[reducer]))
        mines = MINERS[miner](DISTANCES["L2"]) or (None, None)
        with torch.autocast(DEVICE.type, torch.bfloat16):
            ours, theirs = (
                dtypes_of(loss_of(loss, mine, labels)(rows.to(dtype)))
                for loss, mine in zip(losses_of, mines, strict=True)
            )
        assert ours == theirs


def _train(kind: Any, mining: Any, name: str, miner: str, wide: bool) -> list[Any]:
    """Losses, scales and parameters. The first scale is one that overflows."""
    torch.manual_seed(0)
    layers = torch.nn.Linear(12, 16), torch.nn.ReLU(), torch.nn.Linear(16, 8)
    network = torch.nn.Sequential(*layers).to(DEVICE)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    scaler = torch.amp.GradScaler(DEVICE.type, init_scale=2.0**40)
    loss_of, mine = getattr(kind, name)(), getattr(mining, miner)()
    found = []
    for step in range(30):
        rows, labels = _there(class_batch(32, 12, 8, seed=step))
        with torch.autocast(DEVICE.type, dtype=torch.float16):
            x = network(rows).float() if wide else network(rows)
            loss = loss_of(x, labels, mine(x, labels))
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        found += [loss.item(), scaler.get_scale()]
    return [*found, *(each.detach().cpu() for each in network.parameters())]


@on_cuda
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("miner", ["BatchHardMiner", "TripletMarginMiner"])
@pytest.mark.parametrize("name", ["TripletMarginLoss", "ContrastiveLoss"])
def test_training_with_autocast_and_a_scaler_goes_the_same_way(name, miner, wide):
    """Embeddings in float16: both round the gradient, so the way is the same to a few of its
    digits."""
    ours = _train(losses, miners, name, miner, wide)
    theirs = _train(their_losses, their_miners, name, miner, wide)
    eps = torch.finfo(torch.float16).eps
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=30 * eps, atol=30 * eps)


@on_cuda
def test_a_mined_loss_runs_on_the_gpu():
    """By kernels there, in one pass: no index is read."""
    rows, labels = _there(class_batch(64, 16, 16))
    miner, loss = miners.BatchHardMiner(), losses.TripletMarginLoss()
    before = _C.counters()
    pairs = miner(rows.requires_grad_(), labels)
    loss(rows, labels, pairs).backward()
    assert pairs.recipe._found is None
    moved = {name for name, n in _C.counters().items() if n > before[name]}
    assert "cuda_mine" in moved
    assert not moved & {"dense", "list_triplets", "mine", "paired", "triplet"}
    assert all(each.device == rows.device for each in pairs)
