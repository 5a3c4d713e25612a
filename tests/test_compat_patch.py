# SPDX-License-Identifier: BSD-3-Clause
"""patch, unpatch and fuse: fused classes where the imports or the objects are somebody else's."""

from __future__ import annotations

import pytest
import torch

import flashmetric
from samples import class_batch

pytest.importorskip(
    "pytorch_metric_learning", reason="patches pytorch-metric-learning 2.9, of `test`"
)

import pytorch_metric_learning as pml
from pytorch_metric_learning import losses as their_losses
from pytorch_metric_learning import miners as their_miners

from flashmetric.compat import _peer
from flashmetric.compat.pytorch_metric_learning import losses, miners


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    rows, labels = class_batch(40, 6, 8, seed=40, dtype=torch.float64)
    return rows.requires_grad_(), labels


def test_patch_and_unpatch():
    original = their_losses.TripletMarginLoss
    with flashmetric.patch("pytorch_metric_learning"):
        with flashmetric.patch("pytorch_metric_learning"):
            pass
        assert their_losses.TripletMarginLoss is losses.TripletMarginLoss
        assert their_miners.BatchHardMiner is miners.BatchHardMiner
        rows, labels = _batch()
        pairs = their_miners.BatchHardMiner()(rows, labels)
        their_losses.TripletMarginLoss()(rows, labels, pairs).backward()
    assert their_losses.TripletMarginLoss is original
    flashmetric.unpatch("pytorch_metric_learning")
    with pytest.raises(ValueError, match=r"\[patch\] name must be one of .*; got 'torch'"):
        flashmetric.patch("torch")


@pytest.mark.parametrize(
    "distance", ["LpDistance", "SNRDistance", "CosineSimilarity", "DotProductSimilarity"]
)
@pytest.mark.parametrize("loss", ["TripletMarginLoss", "ContrastiveLoss", "MarginLoss"])
def test_patched_code_computes_what_it_did(loss, distance):
    """Distances are told apart, also while names of the peer are those of our classes."""

    def run() -> torch.Tensor:
        rows, labels = _batch()
        of = {"distance": getattr(pml.distances, distance)()}
        pairs = their_miners.BatchHardMiner(**of)(rows, labels)
        value = getattr(their_losses, loss)(**of)(rows, labels, pairs)
        return torch.cat([value.detach()[None], torch.autograd.grad(value, rows)[0].flatten()])

    before = run()
    with flashmetric.patch("pytorch_metric_learning"):
        torch.testing.assert_close(run(), before)


def test_fuse():
    rows, labels = _batch()
    theirs, miner = their_losses.MarginLoss(learn_beta=True).double(), their_miners.BatchHardMiner()
    both = flashmetric.fuse(theirs, miner)
    assert type(both.loss) is losses.MarginLoss
    assert both.loss.beta is theirs.beta, "an optimiser that has the parameter keeps it"
    assert list(both.state_dict()) == ["loss.beta"]
    torch.testing.assert_close(both(rows, labels), theirs(rows, labels, miner(rows, labels)))
    assert flashmetric.fuse(both.loss) is both.loss
    with pytest.raises(TypeError, match=r"\[fuse\] there is no fused NTXentLoss"):
        flashmetric.fuse(their_losses.NTXentLoss())
    with pytest.raises(TypeError, match=r"\[fuse\] Linear is no loss of"):
        flashmetric.fuse(torch.nn.Linear(1, 1))
    with pytest.raises(TypeError, match=r"\[fuse\] loss and miner must be modules; got int"):
        flashmetric.fuse(theirs, 3)
    distance = pml.distances.LpDistance(power=3)
    with pytest.raises(ValueError, match="cannot be fused: there is no kernel for the power 3"):
        flashmetric.fuse(their_losses.TripletMarginLoss(distance=distance))


def test_a_peer_that_is_missing_or_of_another_version(monkeypatch):
    with pytest.raises(ModuleNotFoundError, match=r"needs no-such: pip install 'flashmetric\[no-"):
        _peer.peer("no_such_module", "no-such", "1.0")
    monkeypatch.setattr(_peer, "version", lambda _: "2.10.1")
    with pytest.warns(RuntimeWarning, match="tested with pytorch-metric-learning 2.9; got 2.10.1"):
        _peer.peer("pytorch_metric_learning", "pytorch-metric-learning", "2.9")
    _peer.peer("pytorch_metric_learning", "pytorch-metric-learning", "2.9")  # said once


def test_a_fused_twin_has_parts_of_its_own():
    loss = their_losses.TripletMarginLoss()
    twin = flashmetric.fuse(loss)
    twin.reducer = pml.reducers.SumReducer()
    twin.register_forward_hook(lambda *_: None)
    assert type(loss.reducer) is pml.reducers.AvgNonZeroReducer
    assert not loss._forward_hooks
