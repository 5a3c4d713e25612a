# SPDX-License-Identifier: BSD-3-Clause
"""What fused classes of pytorch-metric-learning refuse, check, or do not notice: the rows of
docs/migration.md about it."""

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

NAMES = ["TripletMarginLoss", "ContrastiveLoss", "MarginLoss"]


def _batch(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    return class_batch(24, 6, 6, seed=1, dtype=dtype)


@pytest.mark.parametrize("mined", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_double_backward_is_refused(name, mined):
    rows, labels = _batch()
    rows.requires_grad_()
    pairs = miners.BatchHardMiner()(rows, labels) if mined else None
    loss = getattr(losses, name)()(rows, labels, pairs)
    (grad,) = torch.autograd.grad(loss, rows, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward is not supported"):
        grad.sum().backward()


def test_functional_transforms():
    """`torch.func.grad` goes through; several batches at once, and forward mode, do not."""
    rows, labels = _batch()

    def loss(x: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = losses.TripletMarginLoss()(x, labels)
        return value

    leaf = rows.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf), leaf)
    torch.testing.assert_close(torch.func.grad(loss)(rows), expected)
    with pytest.raises(RuntimeError, match=r"torch.vmap is not supported"):
        torch.func.vmap(loss)(torch.stack([rows, rows]))
    with pytest.raises(NotImplementedError, match="forward mode AD"):
        torch.func.jvp(loss, (rows,), (rows,))


@pytest.mark.filterwarnings("ignore:.*runs the code of its peer:RuntimeWarning")
@pytest.mark.parametrize("learns", [False, True])
def test_a_margin_for_each_triplet(learns):
    """The code of the peer: without a tuple, of all triplets; with one, of its own."""
    rows, labels = _batch()
    hard = their_miners.BatchHardMiner()(rows, labels)
    every = their_miners.TripletMarginMiner(margin=9.0)(rows, labels)
    for given, count in ((None, len(every[0])), (hard, len(hard[0]))):
        found = []
        for kind in (losses, their_losses):
            leaf = rows.clone().requires_grad_()
            loss = kind.TripletMarginLoss()
            loss.margin = torch.linspace(0.1, 0.9, count, dtype=rows.dtype, requires_grad=learns)
            value = loss(leaf, labels, given)
            leaves = (leaf, loss.margin) if learns else (leaf,)
            found.append((value.detach(), *torch.autograd.grad(value, leaves)))
        torch.testing.assert_close(*found)


@pytest.mark.parametrize("mined", [False, True])
def test_a_beta_learns(mined):
    rows, labels = _batch()
    grads = []
    for kind, mining in ((losses, miners), (their_losses, their_miners)):
        pairs = mining.BatchHardMiner()(rows, labels) if mined else None
        learned = kind.MarginLoss(beta=1.7, learn_beta=True)
        learned(rows, labels, pairs).backward()
        grads.append(learned.beta.grad)
    torch.testing.assert_close(*grads)
    assert grads[0].abs().item() > 0


@pytest.mark.parametrize("name", NAMES)
def test_labels_that_are_not_numbers_are_refused(name):
    rows, labels = _batch()
    labels = labels.double()
    labels[3] = torch.nan
    with pytest.raises(ValueError, match="labels must not be NaN"):
        getattr(losses, name)()(rows, labels)
    for miner in ("BatchHardMiner", "TripletMarginMiner"):
        with pytest.raises(ValueError, match="labels must not be NaN"):
            torch.stack(getattr(miners, miner)()(rows, labels))


@pytest.mark.parametrize("name", NAMES)
def test_negative_indices_are_refused(name):
    """In the peer they count from the end."""
    rows, labels = _batch()
    given = tuple(torch.tensor(each) for each in ([0, -1], [4, 5], [7, 8]))
    assert getattr(their_losses, name)()(rows, labels, given) >= 0
    with pytest.raises(ValueError, match=r"must lie in \[0, 24\); got \[-1, "):
        getattr(losses, name)()(rows, labels, given)


@pytest.mark.parametrize("autocast", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dtypes_under_autocast(dtype, autocast):
    """One pass of triplets is float32; all else in the dtype of the rows, as there. The peer has
    float32 where torch.cdist lacks the dtype, and its triplets show it."""
    rows, labels = _batch(dtype)
    for kind, mining in ((losses, miners), (their_losses, their_miners)):
        for name in NAMES:
            for mined in (False, True):
                with torch.autocast("cpu", dtype=autocast):
                    pairs = mining.BatchHardMiner()(rows, labels) if mined else None
                    found = getattr(kind, name)()(rows, labels, pairs).dtype
                shows = dtype is torch.bfloat16 or kind is losses
                wide = name == "TripletMarginLoss" and shows
                assert found == (torch.float32 if wide else dtype), (kind, name, mined)
    with torch.autocast("cpu", dtype=autocast):
        assert losses.TripletMarginLoss(swap=True)(rows, labels).dtype == dtype


WRITES: dict[str, Any] = {
    "numpy": lambda rows: rows.numpy().__imul__(-2),
    ".data": lambda rows: rows.data.mul_(-2),
}


@pytest.mark.parametrize("write", WRITES)
def test_writes_that_no_version_counts_are_not_noticed(write):
    """Unread indices are then those of the rows as they are; those read before stay."""
    rows, labels = _batch()
    rows[0] *= 3
    miner, loss = miners.BatchHardMiner(), losses.TripletMarginLoss()
    pairs, read = miner(rows, labels), miner(rows, labels)
    expected = [index.tolist() for index in read]
    WRITES[write](rows[:1])
    torch.testing.assert_close(
        loss(rows, labels, pairs), loss(rows, labels, miner(rows.clone(), labels))
    )
    assert [index.tolist() for index in read] == expected
    assert [index.tolist() for index in pairs] != expected
