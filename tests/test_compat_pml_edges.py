# SPDX-License-Identifier: BSD-3-Clause
"""What users do to modules of pytorch-metric-learning that our kernels know nothing of: the peer's
own code runs, and says so; and uses of a mined tuple besides a loss."""

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

from flashmetric.compat.pytorch_metric_learning import losses, miners

MINERS = ["BatchHardMiner", "BatchEasyHardMiner", "TripletMarginMiner"]
LOSSES = ["TripletMarginLoss", "ContrastiveLoss", "MarginLoss"]
BY_THE_PEER = pytest.mark.filterwarnings("ignore:.* runs the code of its peer")


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    rows, labels = class_batch(40, 6, 8, seed=3, dtype=torch.float64)
    return rows.requires_grad_(), labels


def _double_loss(loss: Any, _: Any) -> None:
    usual = loss.compute_loss

    def doubled(*given: Any) -> Any:
        found = usual(*given)
        found["loss"]["losses"] = 2 * found["loss"]["losses"]
        return found

    loss.compute_loss = doubled


def _mine_others(_: Any, miner: Any) -> None:
    usual = miner.mine
    miner.mine = lambda rows, labels, _rows, _labels: usual(
        -rows.abs(), labels, -rows.abs(), labels
    )


TOUCHED = {
    "loss": _double_loss,
    "miner": _mine_others,
    "reducer": lambda loss, _: setattr(loss.reducer, "forward", lambda *_: torch.ones(())),
    "hook": lambda loss, _: loss.distance.register_forward_hook(lambda _m, _i, out: 2 * out),
    "mined hook": lambda _, miner: miner.distance.register_forward_hook(lambda _m, _i, out: -out),
    "inverted": lambda loss, _: setattr(loss.distance, "is_inverted", True),
    "infinite": lambda loss, _: setattr(loss, "margin", float("inf")),
    "0-dim": lambda loss, _: setattr(loss, "margin", torch.tensor(0.2)),
    "swap": lambda loss, _: setattr(loss, "swap", 1),
    "smooth": lambda loss, _: setattr(loss, "smooth_loss", 1),
}


@BY_THE_PEER
@pytest.mark.parametrize("before", [0, 3])
@pytest.mark.parametrize("touch", TOUCHED)
def test_what_is_changed_counts_whenever(touch, before):
    rows, labels = _batch()
    values = []
    for kind, of in ((losses, miners), (their_losses, their_miners)):
        loss, miner = kind.TripletMarginLoss(), of.BatchHardMiner()
        for _ in range(before):
            loss(rows, labels, miner(rows, labels))
        TOUCHED[touch](loss, miner)
        values.append(torch.stack([loss(rows, labels, miner(rows, labels)) for _ in range(4)]))
    torch.testing.assert_close(*values)


def _counting(called: list[int], usual: Any) -> Any:
    def call(*given: Any) -> Any:
        called.append(1)
        return usual(*given)

    return call


@BY_THE_PEER
@pytest.mark.parametrize("method", ["compute_loss", "forward"])
def test_a_class_that_is_changed_counts(method, monkeypatch):
    rows, labels = _batch()
    loss, miner = losses.TripletMarginLoss(), miners.BatchHardMiner()
    for _ in range(3):
        loss(rows, labels, miner(rows, labels))
    called: list[int] = []
    changed = type(loss.reducer) if method == "forward" else type(loss)
    usual = getattr(changed, method)
    monkeypatch.setattr(changed, method, _counting(called, usual))
    loss(rows, labels, miner(rows, labels))
    assert called == [1]


def test_a_hook_on_all_modules_sees_the_reducer():
    rows, labels = _batch()
    loss, miner = losses.TripletMarginLoss(), miners.BatchHardMiner()
    for _ in range(3):
        loss(rows, labels, miner(rows, labels))
    seen = []
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, _given, _found: seen.append(type(module))
    )
    try:
        loss(rows, labels, miner(rows, labels))
    finally:
        hook.remove()
    assert type(loss.reducer) in seen


@BY_THE_PEER
@pytest.mark.parametrize(
    ("name", "margin"),
    [
        ("TripletMarginLoss", "margin"),
        ("ContrastiveLoss", "pos_margin"),
        ("ContrastiveLoss", "neg_margin"),
        ("MarginLoss", "margin"),
    ],
)
def test_a_margin_that_learns(name, margin):
    rows, labels = _batch()
    found = []
    for kind, of in ((losses, miners), (their_losses, their_miners)):
        loss, miner = getattr(kind, name)(), of.BatchHardMiner()
        for _ in range(3):
            loss(rows, labels, miner(rows, labels))
        learned = torch.tensor(float(getattr(loss, margin)), dtype=rows.dtype, requires_grad=True)
        setattr(loss, margin, learned)
        value = loss(rows, labels, miner(rows, labels))
        found.append((value.detach(), *torch.autograd.grad(value, (rows, learned))))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", [*LOSSES, *MINERS, "PairMarginMiner"])
def test_references_without_labels_have_those_of_the_batch(name):
    rows, labels = _batch()
    refs = rows.detach().flip(0)
    if name in LOSSES:
        ours, theirs = (
            [getattr(kind, name)()(rows, labels, None, refs)] for kind in (losses, their_losses)
        )
    else:
        ours, theirs = (
            list(getattr(of, name)()(rows, labels, refs)) for of in (miners, their_miners)
        )
    torch.testing.assert_close(ours, theirs)


def test_a_miner_of_all_pairs_lists_them_as_it_was_asked():
    rows, labels = _batch()
    ours, theirs = (of.BatchEasyHardMiner("all", "hard") for of in (miners, their_miners))
    for _ in range(3):
        found, expected = ours(rows[:12], labels[:12]), theirs(rows[:12], labels[:12])
        ours.pos_strategy = ours.neg_strategy = "easy"
        ours.distance.power = 3
        assert all(torch.equal(*each) for each in zip(found, expected, strict=True))
        ours.pos_strategy, ours.neg_strategy, ours.distance.power = "all", "hard", 1


def test_tuples_in_other_hands():
    rows, labels = _batch()
    theirs = their_miners.BatchHardMiner()(rows, labels)

    def fresh() -> Any:
        return miners.BatchHardMiner()(rows, labels)

    found: list[Any] = []
    found += fresh()
    more = [fresh() + theirs, theirs + fresh()]
    assert all(len(each) == 6 for each in more)
    for same in (found, more[0][:3], more[1][3:], [*fresh()], fresh()[:], fresh() * 1):
        assert all(torch.equal(*each) for each in zip(same, theirs, strict=True))
    kept = fresh()
    assert kept[0] in kept
    assert kept.index(kept[0]) == 0
    assert "{} {} {}".format(*fresh()) == "{} {} {}".format(*theirs)


@pytest.mark.parametrize("name", MINERS)
def test_a_miner_compiles_in_one_graph(name):
    rows, labels = _batch()
    compiled = torch.compile(getattr(miners, name)(), fullgraph=True, backend="aot_eager")
    expected = getattr(their_miners, name)()(rows, labels)
    for ours, theirs in zip(compiled(rows, labels), expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("mining", MINERS)
@pytest.mark.parametrize("name", LOSSES)
def test_a_compiled_loss_takes_what_was_mined_before(name, mining):
    rows, labels = _batch()
    miner, loss = getattr(miners, mining)(), getattr(losses, name)()
    compiled = torch.compile(loss, backend="aot_eager")
    for _ in range(2):
        value = compiled(rows, labels, miner(rows, labels))
        expected = getattr(their_losses, name)()(rows, labels, tuple(miner(rows, labels)))
        found, truth = (torch.autograd.grad(each, rows) for each in (value, expected))
        torch.testing.assert_close((value, *found), (expected, *truth))
