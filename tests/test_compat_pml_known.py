# SPDX-License-Identifier: BSD-3-Clause
"""Modules remember what their last call meant: whatever has changed since then counts."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

from samples import class_batch

pytest.importorskip(
    "pytorch_metric_learning", reason="compares with pytorch-metric-learning 2.9, of `test`"
)

from pytorch_metric_learning import losses as their_losses
from pytorch_metric_learning import miners as their_miners
from pytorch_metric_learning.losses import BaseMetricLossFunction
from pytorch_metric_learning.miners import BaseMiner

from flashmetric.compat.pytorch_metric_learning import distances, losses, miners, reducers


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    rows, labels = class_batch(40, 6, 8, seed=3)
    return rows.requires_grad_(), labels


def _warm(loss: Any, miner: Any, rows: Any, labels: Any) -> None:
    """Until both know what their calls mean: the first ones add attributes to the modules."""
    for _ in range(3):
        loss(rows, labels, miner(rows, labels))


@pytest.mark.parametrize("options", [{}, {"smooth_loss": True}, {"reducer": reducers.SumReducer()}])
def test_a_repeated_call_goes_by_what_the_last_one_meant(options, monkeypatch):
    rows, labels = _batch()
    loss, miner = losses.TripletMarginLoss(**options), miners.BatchHardMiner()
    _warm(loss, miner, rows, labels)
    before = loss(rows, labels, miner(rows, labels))
    for module in (miner, loss):
        for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert copied.__dict__["_known"] is None

    def refuse(*_: Any) -> None:
        pytest.fail("not by the road of calls that are not known")

    monkeypatch.setattr(BaseMiner, "forward", refuse)
    monkeypatch.setattr(BaseMetricLossFunction, "forward", refuse)
    after = loss(rows, labels, miner(rows, labels))
    assert torch.equal(before, after)
    (other,), (expected,) = (
        torch.autograd.grad(each, rows, retain_graph=True) for each in (before, after)
    )
    assert torch.equal(other, expected)
    with torch.no_grad():
        assert torch.equal(loss(rows, labels, miner(rows, labels)), before)


CHANGES = {
    "margin": lambda loss, _: setattr(loss, "margin", 0.7),
    "soft": lambda loss, _: setattr(loss, "smooth_loss", True),
    "swap": lambda loss, _: setattr(loss, "swap", True),
    "reducer": lambda loss, _: setattr(loss, "reducer", reducers.MeanReducer()),
    "low": lambda loss, _: setattr(loss.reducer, "low", 0.4),
    "high": lambda loss, _: setattr(loss.reducer, "high", 0.4),
    "distance": lambda loss, _: setattr(loss, "distance", distances.CosineSimilarity()),
    "power": lambda loss, _: setattr(loss.distance, "power", 2),
    "norm": lambda loss, _: setattr(loss.distance, "p", 1),
    "length": lambda loss, _: setattr(loss.distance, "normalize_embeddings", False),
    "mined distance": lambda _, miner: setattr(miner, "distance", distances.SNRDistance()),
    "mined power": lambda _, miner: setattr(miner.distance, "power", 2),
    "mined norm": lambda _, miner: setattr(miner.distance, "p", 1),
    "strategy": lambda _, miner: setattr(miner, "neg_strategy", "easy"),
    "range": lambda _, miner: setattr(miner, "allowed_neg_range", (0.9, 1.2)),
}


@pytest.mark.filterwarnings("ignore:.* runs the code of its peer")
@pytest.mark.parametrize("miner", ["BatchHardMiner", "BatchEasyHardMiner"])
@pytest.mark.parametrize("change", CHANGES)
def test_options_that_change_between_calls_count(change, miner):
    rows, labels = _batch()
    found = []
    for kind, of in ((losses, miners), (their_losses, their_miners)):
        loss, mined = kind.TripletMarginLoss(), getattr(of, miner)()
        _warm(loss, mined, rows, labels)
        CHANGES[change](loss, mined)
        _warm(loss, mined, rows, labels)
        value = loss(rows, labels, mined(rows, labels))
        found.append([value.detach(), *torch.autograd.grad(value, rows)])
    torch.testing.assert_close(*found)


def test_what_is_added_to_modules_between_calls_counts():
    rows, labels = _batch()
    loss, miner = losses.TripletMarginLoss(), miners.BatchHardMiner()
    _warm(loss, miner, rows, labels)
    once = loss(rows, labels, miner(rows, labels))
    called = []
    loss.reducer.register_forward_hook(lambda *_: called.append("reducer"))
    _warm(loss, miner, rows, labels)
    assert called == ["reducer"] * 3
    for distance in (loss.distance, miner.distance):
        distance.collect_stats = True
        for size in (2, 3):
            _warm(loss, miner, rows * size, labels)
            torch.testing.assert_close(distance.initial_avg_query_norm, _mean_norm(rows * size))
    loss.reducer.collect_stats = True
    loss(rows, labels, miner(rows, labels))
    assert loss.reducer.losses_size == 40
    usual, loss.compute_loss = loss.compute_loss, lambda *given: _doubled(usual(*given))
    torch.testing.assert_close(loss(rows, labels, miner(rows, labels)), 2 * once)
    mine, miner.mine = miner.mine, lambda *asked: tuple(each[:8] for each in mine(*asked))
    assert miner(rows, labels)[0].shape == (8,)


def test_a_part_of_a_reducer_that_changes_counts():
    rows, labels = _batch()
    several = reducers.MultipleReducers({"loss": reducers.MeanReducer()})
    loss, miner = losses.TripletMarginLoss(reducer=several), miners.BatchHardMiner()
    _warm(loss, miner, rows, labels)
    several.reducers["loss"] = reducers.SumReducer()
    expected = losses.TripletMarginLoss(reducer=reducers.SumReducer())
    torch.testing.assert_close(
        loss(rows, labels, miner(rows, labels)), expected(rows, labels, miner(rows, labels))
    )


@pytest.mark.filterwarnings("ignore:.* runs the code of its peer")
def test_a_margin_for_each_anchor_counts():
    rows, labels = _batch()
    loss, miner = losses.TripletMarginLoss(), miners.BatchHardMiner()
    _warm(loss, miner, rows, labels)
    loss.margin = torch.linspace(0.1, 0.5, 40)
    expected = losses.TripletMarginLoss(margin=loss.margin)
    torch.testing.assert_close(
        loss(rows, labels, miner(rows, labels)), expected(rows, labels, miner(rows, labels))
    )


def _mean_norm(rows: torch.Tensor) -> float:
    return rows.norm(dim=1).mean().item()


def _doubled(found: Any) -> Any:
    found["loss"]["losses"] = 2 * found["loss"]["losses"]
    return found


def test_other_labels_and_rows_than_those_that_were_mined_count():
    rows, labels = _batch()
    loss, miner = losses.TripletMarginLoss(), miners.BatchHardMiner()
    _warm(loss, miner, rows, labels)
    theirs = their_losses.TripletMarginLoss()
    other = (rows.detach() * 2 + 1).requires_grad_()
    pairs, expected = miner(rows, labels), their_miners.BatchHardMiner()(rows, labels)
    torch.testing.assert_close(loss(other, labels, pairs), theirs(other, labels, expected))
    same = miner(rows, labels)
    torch.testing.assert_close(
        loss(rows, labels.clone(), same), theirs(rows, labels.clone(), expected)
    )
    soft = miners.BatchEasyHardMiner(pos_strategy="easy", neg_strategy="semihard")
    torch.testing.assert_close(
        loss(rows, labels, soft(rows, labels)),
        theirs(rows, labels, tuple(soft(rows, labels))),
    )
    for dtype in (torch.float32, torch.float64):
        half = rows.detach().to(dtype)
        found = loss(half, labels, miner(half, labels))
        assert found.dtype == dtype
    with pytest.raises(ValueError, match="Number of embeddings must equal number of labels"):
        loss(rows, labels[:-1], miner(rows, labels))
