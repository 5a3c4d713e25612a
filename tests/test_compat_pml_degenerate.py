# SPDX-License-Identifier: BSD-3-Clause
"""Degenerate batches of pytorch-metric-learning: the peer's values and gradients, and what is ours
where it raises."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip(
    "pytorch_metric_learning", reason="compares with pytorch-metric-learning 2.9, of `test`"
)

from pytorch_metric_learning import losses as their_losses
from pytorch_metric_learning import miners as their_miners

from flashmetric.compat.pytorch_metric_learning import distances, losses, miners
from pml_grid import DISTANCES, REDUCERS, assert_equal, loss_of, twins, with_gradients

pytestmark = pytest.mark.filterwarnings("ignore:.*runs the code of its peer:RuntimeWarning")
BATCHES = {
    "one row": [3],
    "two rows of a class": [3, 3],
    "two rows": [3, 4],
    "three rows": [3, 4, 4],
    "one class": [2] * 5,
    "all distinct": [4, 1, 3, 0, 2],
    "identical rows": [0, 0, 1, 1, 2, 2],
    "rows of zeros": [0, 0, 1, 1, 2, 2],
}
MINERS = sorted(set(miners.__all__) - {"DistanceWeightedMiner"})
FUSED = sorted(losses.__all__)


def _batch(name: str, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.tensor(BATCHES[name])
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(len(labels), 5, generator=generator, dtype=torch.float64)
    if name == "identical rows":
        rows = rows[:1].repeat(len(labels), 1)
    return (0 * rows if name == "rows of zeros" else rows), labels


def _options(loss: str, distance: str) -> dict[str, Any]:
    return {} if loss.startswith("Signal") else {"distance": DISTANCES[distance]}


@pytest.mark.parametrize("reducer", ["default", "sum", "threshold"])
@pytest.mark.parametrize("miner", ["none", *MINERS])
@pytest.mark.parametrize("name", BATCHES)
def test_losses(name, miner, reducer):
    batch = _batch(name)
    for loss in FUSED:
        for distance in ("L2",) if loss.startswith("Signal") else ("L2", "L1", "cosine", "dot"):
            options = _options(loss, distance)
            if name == "rows of zeros" and loss.startswith("Signal"):
                continue  # below
            mine = None if miner == "none" else twins(miner, **options)
            pairs = None if mine is None else mine[1](*batch)
            if pairs is not None and max(map(len, pairs)) <= 1 and loss.endswith("trastiveLoss"):
                continue  # the peer ignores one pair of each kind: a test of its own
            for more in ({}, {"swap": True}, {"smooth_loss": True}):
                if loss == "TripletMarginLoss" or not more:
                    both = twins(loss, reducer=REDUCERS[reducer], **options, **more)
                    assert_equal(*both, *batch, mine)


@pytest.mark.parametrize("miner", ["none", *MINERS])
@pytest.mark.parametrize("name", sorted(set(BATCHES) - {"rows of zeros", "identical rows"}))
def test_references(name, miner):
    """More, fewer, and of classes that no query has."""
    batch = _batch(name)
    refs = [
        _batch("three rows", 1),
        (torch.arange(5.0).double()[None], torch.tensor([3])),
        (_batch("one class", 2)[0], torch.full((5,), 77)),
    ]
    for loss in FUSED:
        for side in refs:
            mine = None if miner == "none" else twins(miner)
            pairs = None if mine is None else mine[1](*batch, *side)
            few = len(batch[1]) * len(side[1]) <= 2 if pairs is None else max(map(len, pairs)) <= 1
            if not (few and loss.endswith("trastiveLoss")):
                assert_equal(*twins(loss), *batch, mine, side)


@pytest.mark.parametrize("miner", [None, *miners.__all__])
@pytest.mark.parametrize("name", FUSED)
def test_an_empty_batch_is_0_where_most_miners_of_the_peer_raise(name, miner):
    rows, labels = torch.zeros(0, 5, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)
    mine = miner and getattr(miners, miner)()
    for options in ({}, {"reducer": REDUCERS["mean"]()}, {"reducer": REDUCERS["sum"]()}):
        value, grad = with_gradients(
            loss_of(getattr(losses, name)(**options), mine, labels), rows, None
        )
        assert torch.equal(value, torch.zeros((), dtype=torch.float64))
        assert grad.shape == (0, 5)
    if miner in (None, "TripletMarginMiner", "PairMarginMiner"):
        assert_equal(*twins(name), rows, labels, miner and twins(miner))
    else:
        with pytest.raises((IndexError, RuntimeError), match=r"max\(\)|min\(\)"):
            getattr(their_miners, miner)()(rows, labels)


@pytest.mark.parametrize("name", miners.__all__)
def test_an_empty_batch_has_no_indices(name):
    rows, labels = torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64)
    found = getattr(miners, name)()(rows, labels)
    assert [each.tolist() for each in found] == [[]] * len(found)


def test_rows_without_variance_are_at_distance_0_where_the_peer_has_nan():
    """It divides 0 by 0, and its sum leaves out what is not above 0."""
    rows, labels = _batch("rows of zeros")
    value, grad = with_gradients(
        loss_of(losses.SignalToNoiseRatioContrastiveLoss(), None, labels), rows, None
    )
    assert value == 1, "negatives at distance 0, with the margin 1"
    assert not grad.any()
    assert their_losses.SignalToNoiseRatioContrastiveLoss()(rows, labels) == 0


def test_features_with_the_same_largest_difference_share_its_slope():
    """Each has all of it in the peer."""
    rows = torch.tensor([[0.0, 0.0], [1.0, 1.0], [9.0, 0.0]], dtype=torch.float64)
    pairs = tuple(torch.tensor([each]) for each in (0, 1, 2))
    grads = []
    for ours in (True, False):
        kind = losses if ours else their_losses
        loss = kind.TripletMarginLoss(margin=9.0, distance=DISTANCES["Linf"]())
        grads.append(with_gradients(loss_of(loss, pairs, torch.arange(3)), rows, None)[1][1])
    assert grads[0].tolist() == [0.5, 0.5]
    assert grads[1].tolist() == [1.0, 1.0]
    mine = distances.LpDistance(p=float("inf"), normalize_embeddings=False)
    leaf = rows.clone().requires_grad_()
    (grad,) = torch.autograd.grad(mine(leaf)[0, 1], leaf)
    assert grad[1].tolist() == [0.5, 0.5]
