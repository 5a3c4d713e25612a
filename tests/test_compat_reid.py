# SPDX-License-Identifier: BSD-3-Clause
"""flashmetric.compat.reid against the formulas of torchreid and fast-reid, written out."""

from __future__ import annotations

import copy
import math
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
from flashmetric.compat import reid

MARGINS = [0.3, 1.0, 5.0, 0.0, -1.0]
CLAMP = 1e-12  # of their squared distances


def _distances(rows, norm_feat, clamp=0.0):
    if norm_feat:
        rows = nn.functional.normalize(rows, dim=1)
        return 2 - 2 * rows @ rows.T
    squared = (rows[:, None] - rows).square().sum(2)
    near = squared <= clamp
    return torch.where(near, math.sqrt(clamp), torch.where(near, 1, squared).sqrt())


def _torchreid(rows, labels, margin, clamp=0.0):
    """The farthest of the class, itself included, and the nearest of another."""
    d = _distances(rows, False, clamp)
    terms = [
        (d[i][labels == labels[i]].max() - d[i][labels != labels[i]].min() + margin).relu()
        for i in range(len(rows))
    ]
    return torch.stack(terms).mean()


def _fastreid(rows, labels, margin, norm_feat, hard_mining, extra=0.0):
    """extra: what their sums of weights have beside the weights."""
    d = _distances(rows, norm_feat)
    terms = []
    for i in range(len(rows)):
        same, other = d[i][labels == labels[i]], d[i][labels != labels[i]]
        if hard_mining:
            far, near = same.max(), other.min()
        else:
            by_far, by_near = (same - same.max()).exp(), (-other).exp()
            far = (same * by_far).sum() / (by_far.sum() + extra)
            near = (other * by_near).sum() / (by_near.sum() + extra)
        terms.append((far - near + margin).relu() if margin > 0 else (far - near).exp().log1p())
    return torch.stack(terms).mean()


def _two_classes(labels):
    return len(set(labels.tolist())) > 1


@given(batch=batches(), margin=st.sampled_from(MARGINS))
def test_torchreid(batch, margin):
    rows, labels = batch
    criterion = reid.TripletLoss(margin)
    if _two_classes(labels):
        theirs = partial(_torchreid, labels=labels, margin=margin)
        assert_same(lambda x: criterion(x, labels), theirs, rows)
    else:
        assert_zero(lambda x: criterion(x, labels), rows)


@given(
    batch=batches(),
    margin=st.sampled_from(MARGINS),
    norm_feat=st.booleans(),
    hard_mining=st.booleans(),
)
def test_fastreid(batch, **options):
    rows, labels = batch
    ours = partial(reid.triplet_loss, targets=labels, **options)
    if _two_classes(labels):
        assert_same(ours, partial(_fastreid, labels=labels, **options), rows)
    else:
        assert_zero(ours, rows)


@pytest.mark.parametrize("dtype", NARROW, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_and_dtypes(layout, dtype):
    rows, labels = rows_of(LAYOUTS[layout]), torch.tensor(LAYOUTS[layout])
    if not _two_classes(labels):
        assert_zero(lambda x: reid.TripletLoss()(x.to(dtype), labels), rows)
        return

    def torchreid(x):
        return _torchreid(x, labels, 0.3)

    assert_as_precise(lambda x: reid.TripletLoss()(x, labels), torchreid, rows, dtype)
    assert_same(lambda x: reid.TripletLoss()(x, labels.float()[:, None]), torchreid, rows)
    for hard_mining in (False, True):
        for margin in (0.3, 0.0):
            options = {"margin": margin, "norm_feat": False, "hard_mining": hard_mining}
            ours, theirs = (
                lambda x, options=options, f=f: f(x, labels, **options)
                for f in (reid.triplet_loss, _fastreid)
            )
            assert_as_precise(ours, theirs, rows, dtype)


def test_their_clamp_and_their_weights_differ_by_a_millionth():
    """A row alone in its class is at 1e-6 from itself there; weights there add up to a bit less."""
    (rows,), labels = rows_of(LAYOUTS["one alone"]), torch.tensor(LAYOUTS["one alone"])
    theirs = _torchreid(rows, labels, 5.0, CLAMP)
    torch.testing.assert_close(reid.TripletLoss(5.0)(rows, labels), theirs, rtol=0, atol=1e-6)
    options = {"margin": 1.0, "norm_feat": True, "hard_mining": False}
    theirs = _fastreid(rows, labels, **options, extra=1e-6)
    torch.testing.assert_close(
        reid.triplet_loss(rows, labels, **options), theirs, rtol=2e-5, atol=0
    )


def test_weights_of_far_rows_add_up_to_1():
    """There the nearest negative at distance 30 seems to be at distance 0."""
    rows, labels = torch.tensor([[0.0], [1.0], [31.0], [32.0]]).double(), torch.tensor([0, 0, 1, 1])
    theirs = _fastreid(rows, labels, 0.3, False, False, extra=1e-6)
    assert reid.triplet_loss(rows, labels).item() == 0
    assert theirs > 1


def test_one_class_is_0_where_torchreid_raises():
    rows, labels = rows_of([0] * 5), torch.zeros(5, dtype=torch.int64)
    with pytest.raises((RuntimeError, IndexError)):
        _torchreid(rows[0], labels, 0.3)
    assert_zero(lambda x: reid.TripletLoss()(x, labels), rows)
    for hard_mining in (False, True):
        for margin in (0.3, 0.0):
            ours = partial(
                reid.triplet_loss, targets=labels, margin=margin, hard_mining=hard_mining
            )
            assert_zero(ours, rows)
            assert_zero(partial(ours, targets=labels[:0]), rows_of([]))


def test_equal_rows_and_far_rows_are_finite():
    labels = torch.tensor([0, 0, 1, 1])
    for rows in (torch.ones(4, 3), 500 * torch.eye(4)):
        for hard_mining in (False, True):
            ours = partial(reid.triplet_loss, targets=labels, margin=0.0, hard_mining=hard_mining)
            for found in value_and_gradients(ours, [rows]):
                assert found.isfinite().all()


def test_the_module_remembers_its_margin():
    (rows,), labels = rows_of([0] * 6), torch.arange(6) % 3
    criterion = reid.TripletLoss(margin=0.7)
    assert repr(criterion) == "TripletLoss(margin=0.7)"
    assert criterion.state_dict() == {}
    for twin in (copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion))):
        assert torch.equal(twin(rows, labels), criterion(rows, labels))


@pytest.mark.parametrize("hard_mining", [False, True])
def test_a_full_graph_and_autocast(hard_mining):
    torch._dynamo.reset()
    rows = rows_of([0] * 6)[0].float().requires_grad_()
    labels = torch.arange(6) % 3

    def loss(rows):
        return reid.triplet_loss(rows, labels, hard_mining=hard_mining) + reid.TripletLoss()(
            rows, labels
        )

    expected, found = loss(rows), torch.compile(loss, fullgraph=True, backend="aot_eager")(rows)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(value, rows)[0] for value in (found, expected))
    )
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(rows.bfloat16()).dtype == torch.float32


def test_errors_name_the_argument():
    rows, labels = torch.ones(4, 2), torch.zeros(4)
    with pytest.raises(
        ValueError, match=r"\[TripletLoss\] inputs must be \(B, D\) and targets have"
    ):
        reid.TripletLoss()(rows, labels[:3])
    with pytest.raises(
        ValueError, match=r"\[triplet_loss\] embedding must be \(B, D\) and targets"
    ):
        reid.triplet_loss(rows[0], labels)
    with pytest.raises(TypeError, match=r"\[TripletLoss\] margin must be a number; got str"):
        reid.TripletLoss(margin="soft")
    with pytest.raises(TypeError, match=r"norm_feat must be True or False; got 1"):
        reid.triplet_loss(rows, labels, norm_feat=1)
