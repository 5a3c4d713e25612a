# SPDX-License-Identifier: BSD-3-Clause
"""Calls of usual rows, for which the compat classes leave out the preparations of the peer: what a
user may have added to modules around them still happens, and errors are still the peer's."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from samples import class_batch

pytest.importorskip(
    "pytorch_metric_learning", reason="compares with pytorch-metric-learning 2.9, of `test`"
)

from pytorch_metric_learning import losses as their_losses
from pytorch_metric_learning import miners as their_miners
from pytorch_metric_learning import regularizers

from flashmetric.compat.pytorch_metric_learning import distances, losses, miners, reducers

MINERS = ["BatchHardMiner", "BatchEasyHardMiner", "TripletMarginMiner"]


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    rows, labels = class_batch(40, 6, 8, seed=3)
    return rows.requires_grad_(), labels


def _value_and_gradient(kind: Any, miner: Any, **options: Any) -> list[torch.Tensor]:
    rows, labels = _batch()
    loss = kind.TripletMarginLoss(**options)(rows, labels, miner(rows, labels))
    return [loss.detach(), *torch.autograd.grad(loss, rows)]


@pytest.mark.parametrize("name", MINERS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reducer": reducers.MeanReducer()},
        {"reducer": reducers.AvgNonZeroReducer(collect_stats=True)},
        {"reducer": reducers.ThresholdReducer(low=0.05)},
        {"reducer": reducers.ThresholdReducer(low=0)},
        {"distance": distances.LpDistance(collect_stats=True)},
        {"embedding_regularizer": regularizers.LpRegularizer(), "embedding_reg_weight": 0.3},
        {"smooth_loss": True},
        {"swap": True},
    ],
)
def test_options_count(name, options):
    ours, theirs = (
        _value_and_gradient(kind, getattr(of, name)(), **options)
        for kind, of in ((losses, miners), (their_losses, their_miners))
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("hook", ["register_forward_hook", "register_forward_pre_hook"])
@pytest.mark.parametrize("part", ["loss", "reducer", "miner"])
def test_hooks_are_called(part, hook):
    rows, labels = _batch()
    loss, miner = losses.TripletMarginLoss(), miners.BatchHardMiner()
    called = []
    module = {"loss": loss, "reducer": loss.reducer, "miner": miner}[part]
    getattr(module, hook)(lambda *_: called.append(part))
    loss(rows, labels, miner(rows, labels))
    assert called == [part]


def test_statistics_are_reset_by_every_call():
    rows, labels = _batch()
    loss, miner = losses.TripletMarginLoss(), miners.BatchHardMiner()
    loss(rows, labels, miner(rows, labels))
    assert miner.num_triplets == 40
    miner(rows[:8], torch.arange(8))
    assert miner.num_triplets == 0


def test_what_a_subclass_changes_is_used():
    class Doubled(losses.TripletMarginLoss):
        def compute_loss(self, *given: Any) -> Any:
            found = super().compute_loss(*given)
            found["loss"]["losses"] = 2 * found["loss"]["losses"]
            return found

    class Reversed(miners.BatchHardMiner):
        def mine(self, *asked: Any) -> Any:
            assert not torch.is_grad_enabled(), "the peer mines without"
            return tuple(each.flip(0) for each in super().mine(*asked))

    class Tenfold(reducers.AvgNonZeroReducer):
        def forward(self, *given: Any) -> Any:
            return 10 * super().forward(*given)

    rows, labels = _batch()
    loss, pairs = losses.TripletMarginLoss()(rows, labels), miners.BatchHardMiner()(rows, labels)
    once = losses.TripletMarginLoss()(rows, labels, pairs)
    torch.testing.assert_close(Doubled()(rows, labels, pairs), 2 * once)
    torch.testing.assert_close(
        losses.TripletMarginLoss(reducer=Tenfold())(rows, labels, pairs), 10 * once
    )
    flipped = Reversed()(rows, labels)
    assert torch.equal(flipped[1], pairs[1].flip(0))
    assert loss.requires_grad


@pytest.mark.parametrize("name", MINERS)
def test_the_code_of_the_peer_mines_without_a_graph(name):
    """Of a distance without a kernel."""

    class Other(distances.LpDistance):
        def compute_mat(self, *rows: Any) -> torch.Tensor:
            assert not torch.is_grad_enabled()
            return super().compute_mat(*rows)

    rows, labels = _batch()
    with pytest.warns(RuntimeWarning, match="distance Other has no kernel"):
        ours = getattr(miners, name)(distance=Other())(rows, labels)
    theirs = getattr(their_miners, name)(distance=Other())(rows, labels)
    assert all(torch.equal(*each) for each in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (lambda labels: labels[:-1], "Number of embeddings must equal number of labels"),
        (lambda labels: labels[:, None], "labels must be a 1D tensor"),
    ],
)
def test_errors_are_the_peers(cut, message):
    rows, labels = _batch()
    pairs = miners.BatchHardMiner()(rows, labels)
    for call in (
        lambda: miners.BatchHardMiner()(rows, cut(labels)),
        lambda: losses.TripletMarginLoss()(rows, cut(labels), pairs),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_a_margin_that_is_changed_counts():
    rows, labels = _batch()
    loss, miner = losses.TripletMarginLoss(margin=0.1), miners.BatchHardMiner()
    before = loss(rows, labels, miner(rows, labels))
    loss.margin = 0.5
    expected = their_losses.TripletMarginLoss(margin=0.5)
    pairs = their_miners.BatchHardMiner()(rows, labels)
    after = loss(rows, labels, miner(rows, labels))
    torch.testing.assert_close(after, expected(rows, labels, pairs))
    loss.distance.normalize_embeddings = expected.distance.normalize_embeddings = False
    torch.testing.assert_close(
        loss(rows, labels, miner(rows, labels)), expected(rows, labels, pairs)
    )
    assert before != after
