# SPDX-License-Identifier: BSD-3-Clause
"""Mined tuples that are found when they are read, and what must hold although they are not."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from samples import class_batch

pytest.importorskip(
    "pytorch_metric_learning", reason="compares with pytorch-metric-learning 2.9, of `test`"
)

from pytorch_metric_learning import losses as their_losses
from pytorch_metric_learning import miners as their_miners

from flashmetric import _C
from flashmetric.compat.pytorch_metric_learning import distances, losses, miners


def _batch(n: int = 40, n_classes: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    rows, labels = class_batch(n, 6, n_classes, seed=n, dtype=torch.float64)
    return rows.requires_grad_(), labels


def _moved(call) -> dict[str, int]:
    before = _C.counters()
    call()
    return {name: n - before[name] for name, n in _C.counters().items() if n > before[name]}


@pytest.mark.parametrize("name", ["BatchHardMiner", "BatchEasyHardMiner", "TripletMarginMiner"])
def test_miner_and_loss_find_nothing_twice(name):
    rows, labels = _batch()
    miner, loss = getattr(miners, name)(), losses.TripletMarginLoss()
    moved = _moved(lambda: setattr(miner, "_pairs", miner(rows, labels)))
    assert moved == {}, "mining waits"
    moved = _moved(lambda: loss(rows, labels, miner._pairs).backward())
    assert "mine" not in moved or name == "BatchHardMiner"
    if name == "BatchHardMiner":
        assert moved["mine"] == 1
    assert miner._pairs.recipe._found is None, "nobody has read an index"


def test_another_distance_mines_first_and_evaluates_then():
    rows, labels = _batch()
    pairs = miners.BatchHardMiner(distance=distances.CosineSimilarity())(rows, labels)
    theirs = their_miners.BatchHardMiner(distance=distances.CosineSimilarity())(rows, labels)
    ours = losses.TripletMarginLoss(margin=0.3)(rows, labels, pairs)
    expected = their_losses.TripletMarginLoss(margin=0.3)(rows, labels, theirs)
    torch.testing.assert_close(ours, expected)
    assert pairs.recipe._found is not None


def test_rows_that_are_not_those_that_were_mined():
    """Indices of one tensor, losses of another: a model's two heads, say."""
    rows, labels = _batch()
    other = (rows.detach() * 2 + 1).requires_grad_()
    pairs = miners.BatchHardMiner()(rows, labels)
    theirs = their_miners.BatchHardMiner()(rows, labels)
    ours = losses.TripletMarginLoss(margin=0.3)(other, labels, pairs)
    torch.testing.assert_close(
        ours, their_losses.TripletMarginLoss(margin=0.3)(other, labels, theirs)
    )


def test_a_changed_tensor_is_noticed():
    rows, labels = _batch()
    rows = rows.detach()
    pairs = miners.BatchHardMiner()(rows, labels)
    read = miners.BatchHardMiner()(rows, labels)
    expected = [index.tolist() for index in read]
    rows.mul_(-1)
    with pytest.raises(RuntimeError, match=r"\[BatchHardMiner\] embeddings and labels must stay"):
        losses.TripletMarginLoss()(rows, labels, pairs)
    assert [index.tolist() for index in read] == expected, "what was read before stays"
    losses.TripletMarginLoss()(rows, labels, read)


def test_tuples_behave_as_tuples_of_tensors():
    rows, labels = _batch()
    theirs = their_miners.BatchHardMiner()(rows, labels)

    def fresh():
        return miners.BatchHardMiner()(rows, labels)

    assert isinstance(fresh(), tuple)
    assert len(fresh()) == 3
    anchor, positive, negative = fresh()
    assert torch.is_tensor(anchor)
    assert len(positive) == len(theirs[1])
    assert (negative == theirs[2]).all()
    for read in (
        lambda t: torch.cat(t),
        lambda t: torch.stack(list(t)),
        lambda t: rows[t[0]],
        lambda t: torch.where(t[0].unsqueeze(1) == t[2])[0],
        lambda t: torch.zeros(40, 40).index_put((t[0], t[1]), torch.ones(())),
        lambda t: t[0] + 1,
        lambda t: t[1].to(torch.int32),
        lambda t: t[2].unique(),
        lambda t: torch.as_tensor(t[2].numpy()),
        lambda t: torch.as_tensor(list(t[2])),
        lambda t: torch.nn.functional.embedding(t[1], rows),
        lambda t: copy.deepcopy(t)[1],
        lambda t: pickle.loads(pickle.dumps(t))[1],
        lambda t: pickle.loads(pickle.dumps(t[1])),
    ):
        found = read(fresh())
        assert type(found) is torch.Tensor
        assert torch.equal(found, read(theirs))
    assert repr(fresh()) == repr(theirs)
    assert repr(fresh()[0]) == repr(theirs[0])
    assert anchor.shape == theirs[0].shape
    assert anchor.dtype == torch.int64


def test_tuples_of_a_miner_go_to_any_loss_of_the_peer():
    rows, labels = _batch()
    for loss in (their_losses.NTXentLoss(), their_losses.ArcFaceLoss(8, 6).double()):
        ours = loss(rows, labels, miners.BatchHardMiner()(rows, labels))
        theirs = loss(rows, labels, their_miners.BatchHardMiner()(rows, labels))
        torch.testing.assert_close(ours, theirs)


def test_the_graph_is_not_kept_by_a_tuple():
    rows, labels = _batch()
    hidden = rows * 2
    pairs = miners.BatchHardMiner()(hidden, labels)
    losses.TripletMarginLoss()(hidden, labels, pairs).backward()
    assert pairs.recipe._asked[0].grad_fn is None
    version = pairs.recipe._asked[0]._version
    del hidden
    assert pairs[0].shape[0] == 40, "the rows themselves are kept"
    assert pairs.recipe._asked[0]._version == version


def test_rows_of_inference_mode():
    rows, labels = _batch()
    theirs = their_miners.BatchHardMiner()(rows, labels)
    with torch.inference_mode():
        rows = rows.detach() * 1
        pairs = miners.BatchHardMiner()(rows, labels)
        rows.mul_(-1)  # no version tells: the indices were found at once
        assert pairs[2].tolist() == theirs[2].tolist()


def test_modules_are_copied_and_pickled_between_calls():
    rows, labels = _batch()
    miner, loss = miners.BatchHardMiner(), losses.MarginLoss(learn_beta=True).double()
    pairs = miner(rows, labels)
    loss(rows, labels, pairs)
    for clone in (copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))):
        again, again_loss = clone(miner), clone(loss)
        assert type(again) is miners.BatchHardMiner
        assert type(again_loss) is losses.MarginLoss
        pairs_again = again(rows, labels)
        assert torch.equal(
            again_loss(rows, labels, pairs_again), loss(rows, labels, miner(rows, labels))
        )
    assert list(loss.state_dict()) == ["beta"]
    loss.load_state_dict(their_losses.MarginLoss(learn_beta=True).double().state_dict())
