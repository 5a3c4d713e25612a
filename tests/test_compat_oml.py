# SPDX-License-Identifier: BSD-3-Clause
"""flashmetric.compat.oml against the formulas of open-metric-learning, written out with loops."""

from __future__ import annotations

import copy
import pickle
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from compat_data import (
    LAYOUTS,
    NARROW,
    assert_as_precise,
    assert_same,
    assert_zero,
    batches,
    rows_of,
    value_and_gradients,
)
from flashmetric.compat.oml import AllTripletsMiner, HardTripletsMiner, TripletLossWithMiner

MARGINS = [0.2, 1.0, 5.0, None]
REDUCTIONS = ["mean", "sum", "none"]
MINERS = [AllTripletsMiner, HardTripletsMiner]


def _wide(rows):
    """Half precision as float32, in which its distances are measured."""
    return rows.float() if rows.itemsize == 2 else rows


def _apart(rows, i, j):
    return torch.linalg.vector_norm(rows[i] - rows[j])


def _all_triplets(rows, labels):
    del rows
    every = range(len(labels))
    return [
        (a, p, n)
        for a in every
        for p in every
        for n in every
        if a != p and labels[a] == labels[p] and labels[n] != labels[a]
    ]


def _hard_triplets(rows, labels):
    found = []
    for a in range(len(labels)):
        of_a = [(p, n) for b, p, n in _all_triplets(rows, labels) if b == a]
        if of_a:
            far = max((p for p, _ in of_a), key=lambda p: _apart(rows, a, p).item())
            near = min((n for _, n in of_a), key=lambda n: _apart(rows, a, n).item())
            found.append((a, far, near))
    return found


CHOSEN = {AllTripletsMiner: _all_triplets, HardTripletsMiner: _hard_triplets}


def _theirs(rows, labels, margin, miner, reduction="mean"):
    """OML's value; 0 where it has no triplet, which it refuses."""
    terms = []
    for a, p, n in CHOSEN[miner](rows, labels.tolist()):
        violation = _apart(rows, a, p) - _apart(rows, a, n)
        terms.append(violation.exp().log1p() if margin is None else (violation + margin).relu())
    values = torch.stack([rows[:0].sum(), *terms])[1:]
    return {"mean": values.sum() / max(1, len(terms)), "sum": values.sum(), "none": values}[
        reduction
    ]


def _losses(labels, margin, miner, reduction="mean"):
    criterion = TripletLossWithMiner(margin, miner(), reduction)
    return (
        lambda rows: criterion(rows, labels),
        partial(_theirs, labels=labels, margin=margin, miner=miner, reduction=reduction),
    )


@given(
    batch=batches(),
    margin=st.sampled_from(MARGINS),
    miner=st.sampled_from(MINERS),
    reduction=st.sampled_from(REDUCTIONS),
)
def test_values_and_gradients(batch, margin, miner, reduction):
    rows, labels = batch
    assert_same(*_losses(labels, margin, miner, reduction), rows)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("miner", MINERS)
def test_layouts_of_labels(miner, layout):
    rows, labels = rows_of(LAYOUTS[layout]), torch.tensor(LAYOUTS[layout])
    for margin in (1.0, None):
        ours, theirs = _losses(labels, margin, miner)
        assert_same(ours, theirs, rows)
        criterion = TripletLossWithMiner(margin, miner())
        for given_labels in (labels.tolist(), labels.int(), labels.float(), labels[:, None]):
            assert torch.equal(criterion(rows[0], given_labels), ours(rows[0]))
        for dtype in NARROW:
            assert_as_precise(ours, lambda x, f=theirs: f(_wide(x)), rows, dtype)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("miner", MINERS)
def test_without_a_triplet_it_is_0(miner, reduction):
    """OML asserts two classes and two rows of each."""
    for labels in ([0, 0, 0], [0, 1, 2], [0], []):
        criterion = TripletLossWithMiner(1.0, miner(), reduction, need_logs=True)
        assert_zero(lambda x, c=criterion, y=labels: c(x, y), rows_of(labels))
        assert criterion.last_logs == {"active_tri": 0.0, "pos_dist": 0.0, "neg_dist": 0.0}


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("miner", MINERS)
def test_logs(miner, reduction):
    (rows,), labels = rows_of(LAYOUTS["shuffled"]), LAYOUTS["shuffled"]
    criterion = TripletLossWithMiner(0.5, miner(), reduction, need_logs=True)
    criterion(rows, labels)
    triplets = CHOSEN[miner](rows, labels)
    far, near = (torch.stack([_apart(rows, t[0], t[k]) for t in triplets]).double() for k in (1, 2))
    expected = {
        "active_tri": (far - near + 0.5 > 0).double().mean().item(),
        "pos_dist": far.mean().item(),
        "neg_dist": near.mean().item(),
    }
    assert criterion.last_logs == pytest.approx(expected, rel=1e-6)
    silent = TripletLossWithMiner(0.5, miner(), reduction)
    silent(rows, labels)
    assert silent.last_logs == {}


def test_a_cap_draws_triplets_of_all():
    (rows,), labels = rows_of(LAYOUTS["shuffled"]), torch.tensor(LAYOUTS["shuffled"])
    every = _theirs(rows, labels, 5.0, AllTripletsMiner, "none").tolist()
    criterion = TripletLossWithMiner(5.0, AllTripletsMiner(max_output_triplets=7), "none")
    torch.manual_seed(4)
    terms = criterion(rows, labels)
    torch.manual_seed(4)
    assert torch.equal(criterion(rows, labels), terms)
    assert terms.shape == (7,)
    for term in terms.tolist():
        assert any(term == pytest.approx(other, rel=1e-9) for other in every)
    roomy = TripletLossWithMiner(5.0, AllTripletsMiner(max_output_triplets=len(every)))
    torch.testing.assert_close(roomy(rows, labels), torch.tensor(every).double().mean())


def test_another_miner_is_asked_and_its_rows_are_evaluated():
    class Given:
        def sample(self, features, labels):
            assert labels == [0, 0, 1, 1]
            return features[:2], features[[1, 0]], features[2:], "of a memory"

    criterion = TripletLossWithMiner(3.0, Given(), need_logs=True)
    theirs = nn.TripletMarginLoss(3.0, eps=0.0)
    labels = torch.tensor([0, 0, 1, 1])
    assert_same(
        lambda x: criterion(x, labels), lambda x: theirs(x[:2], x[[1, 0]], x[2:]), rows_of([0] * 4)
    )
    assert criterion.last_logs["pos_dist"] > 0


@pytest.mark.parametrize("miner", MINERS)
def test_miners_sample_rows(miner):
    (rows,), labels = rows_of(LAYOUTS["two classes"]), LAYOUTS["two classes"]
    found = miner().sample(rows, labels)
    triplets = torch.tensor(CHOSEN[miner](rows, labels))
    for side, index in zip(found, triplets.T, strict=True):
        assert torch.equal(side, rows[index])


def test_a_soft_margin_of_far_rows_is_finite():
    rows = [torch.tensor([[0.0], [500.0], [1.0], [900.0]])]
    loss = TripletLossWithMiner(margin=None)
    for found in value_and_gradients(lambda x: loss(x, [0, 0, 1, 1]), rows):
        assert found.isfinite().all()


@pytest.mark.parametrize("miner", MINERS)
def test_modules_and_miners_are_copied(miner):
    (rows,), labels = rows_of([0] * 6), torch.tensor([0, 1, 0, 1, 0, 1]) > 0
    criterion = TripletLossWithMiner(0.4, miner())
    expected = f"TripletLossWithMiner(margin=0.4, miner={miner.__name__}(), reduction='mean')"
    assert repr(criterion) == expected
    assert criterion.state_dict() == {}
    for twin in (copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion))):
        assert torch.equal(twin(rows, labels), criterion(rows, labels))
    assert repr(AllTripletsMiner(9)) == "AllTripletsMiner(max_output_triplets=9)"


@pytest.mark.parametrize("miner", MINERS)
def test_a_full_graph_and_autocast(miner):
    torch._dynamo.reset()
    rows = rows_of([0] * 6)[0].float().requires_grad_()
    labels = torch.arange(6) % 3
    criterion = TripletLossWithMiner(1.0, miner())
    expected = criterion(rows, labels)
    found = torch.compile(criterion, fullgraph=True, backend="aot_eager")(rows, labels)
    assert torch.equal(found, expected)
    assert torch.equal(*(torch.autograd.grad(value, rows)[0] for value in (found, expected)))
    with torch.autocast("cpu", torch.bfloat16):
        assert criterion(rows.bfloat16(), labels).dtype == torch.float32


def test_errors_name_the_argument():
    name = r"\[TripletLossWithMiner\]"
    with pytest.raises(ValueError, match=rf"{name} margin must be above 0, or None; got 0"):
        TripletLossWithMiner(0)
    with pytest.raises(ValueError, match=rf"{name} reduction must be one of 'mean', 'sum', 'none'"):
        TripletLossWithMiner(1.0, reduction="mean_active")
    with pytest.raises(TypeError, match=rf"{name} miner must have a method sample; got str"):
        TripletLossWithMiner(1.0, miner="hard")
    with pytest.raises(TypeError, match=rf"{name} need_logs must be True or False; got None"):
        TripletLossWithMiner(1.0, need_logs=None)
    with pytest.raises(ValueError, match=r"features must be \(B, D\) and labels have B elements"):
        TripletLossWithMiner(1.0)(torch.ones(3, 2), [0, 1])
    with pytest.raises(
        ValueError, match=r"\[AllTripletsMiner\] max_output_triplets must be at lea"
    ):
        AllTripletsMiner(0)
