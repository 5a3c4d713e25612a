# SPDX-License-Identifier: BSD-3-Clause
"""flashmetric.compat.tfa against the formulas of TensorFlow Addons, written out with loops."""

from __future__ import annotations

import copy
import math
import pickle

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
from flashmetric.compat import tfa

METRICS = ("L2", "squared-L2", "angular")
MARGINS = st.sampled_from([0.1, 1.0, 5.0])


def _distances(rows, metric):
    """(B, B) in plain torch, float32 at least; a distance of 0 has gradient 0."""
    rows = rows.float() if rows.itemsize == 2 else rows
    if metric == "angular":
        rows = nn.functional.normalize(rows, dim=1)
        return (1 - rows @ rows.T).relu()
    squared = (rows[:, None] - rows).square().sum(2)
    zero = squared == 0
    return squared if metric == "squared-L2" else torch.where(zero, 1, squared).sqrt() * ~zero


def _semihard(rows, labels, margin, metric):
    """Each (anchor, positive): the nearest negative beyond d_ap, else the farthest, else 0."""
    d, terms = _distances(rows, metric), []
    for i in range(len(rows)):
        negatives = d[i][labels != labels[i]]
        for j in range(len(rows)):
            if i != j and labels[i] == labels[j]:
                beyond = negatives[negatives > d[i, j]]
                chosen = beyond.min() if len(beyond) else negatives.max() if len(negatives) else 0
                terms.append((d[i, j] - chosen + margin).relu())
    return torch.stack(terms).mean() if terms else d.sum() * 0


def _hard(rows, labels, margin, metric, soft):
    """Each anchor: farthest positive, else 0; nearest negative, else whatever is farthest."""
    d, terms = _distances(rows, metric), []
    for i in range(len(rows)):
        positives = d[i][(labels == labels[i]) & (torch.arange(len(rows)) != i)]
        negatives = d[i][labels != labels[i]]
        far = positives.max() if len(positives) else d[i, i]
        near = negatives.min() if len(negatives) else d[i].max()
        terms.append((far - near).exp().log1p() if soft else (far - near + margin).relu())
    return torch.stack(terms).mean()


def _semihard_losses(labels, margin, metric):
    return (
        lambda rows: tfa.triplet_semihard_loss(labels, rows, margin, metric),
        lambda rows: _semihard(rows, labels.flatten(), margin, metric).to(rows.dtype),
    )


def _hard_losses(labels, margin, metric, soft):
    return (
        lambda rows: tfa.triplet_hard_loss(labels, rows, margin, soft, metric),
        lambda rows: _hard(rows, labels.flatten(), margin, metric, soft).to(rows.dtype),
    )


@given(batch=batches(), margin=MARGINS, metric=st.sampled_from(METRICS))
def test_semihard(batch, margin, metric):
    rows, labels = batch
    assert_same(*_semihard_losses(labels, margin, metric), rows)


@given(batch=batches(), margin=MARGINS, metric=st.sampled_from(METRICS), soft=st.booleans())
def test_hard(batch, margin, metric, soft):
    rows, labels = batch
    assert_same(*_hard_losses(labels, margin, metric, soft), rows)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("metric", METRICS)
def test_layouts_of_labels(metric, layout):
    rows = rows_of(LAYOUTS[layout])
    labels = torch.tensor(LAYOUTS[layout])
    for given_labels in (labels, labels[:, None], labels.int(), labels.float()):
        for losses in (
            _semihard_losses(given_labels, 1.0, metric),
            _hard_losses(given_labels, 1.0, metric, False),
            _hard_losses(given_labels, 1.0, metric, True),
        ):
            assert_same(*losses, rows)
            for dtype in NARROW:
                assert_as_precise(*losses, rows, dtype)


def test_values_of_their_documentation():
    """Of one class: 1 + sqrt(2), and the margin; and one of its examples, with two classes."""
    labels, rows = torch.zeros(2), torch.eye(2)
    assert tfa.triplet_semihard_loss(labels, rows).item() == pytest.approx(1 + math.sqrt(2))
    value, grad = value_and_gradients(lambda x: tfa.triplet_hard_loss(labels, x), [rows])
    assert value == 1
    assert not grad.any()
    soft = tfa.triplet_hard_loss(labels, rows, soft=True)
    assert soft.item() == pytest.approx(math.log(2))


def test_nothing_to_average_is_0_where_theirs_is_nan():
    rows = rows_of(range(4))
    assert_zero(lambda x: tfa.triplet_semihard_loss(torch.arange(4), x), rows)
    empty, none = rows_of([]), torch.zeros(0)
    assert_zero(lambda x: tfa.triplet_semihard_loss(none, x), empty)
    assert_zero(lambda x: tfa.triplet_hard_loss(none, x), empty)


def test_a_soft_margin_of_far_rows_is_finite():
    rows = [torch.tensor([[0.0], [500.0], [1.0]])]
    labels = torch.tensor([0, 0, 1])
    value, grad = value_and_gradients(lambda x: tfa.triplet_hard_loss(labels, x, soft=True), rows)
    assert value.isfinite()
    assert grad.isfinite().all()


def test_modules_remember_their_options():
    (rows,), labels = rows_of([0] * 6), torch.tensor([0, 0, 1, 1, 2, 2])
    for criterion, expected in (
        (
            tfa.TripletSemiHardLoss(0.5, "angular"),
            tfa.triplet_semihard_loss(labels, rows, 0.5, "angular"),
        ),
        (tfa.TripletHardLoss(soft=True), tfa.triplet_hard_loss(labels, rows, soft=True)),
        (tfa.TripletHardLoss(2.0), tfa.triplet_hard_loss(labels, rows, 2.0)),
    ):
        assert criterion.state_dict() == {}
        for module in (criterion, copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion))):
            assert torch.equal(module(labels, rows), expected)
            assert repr(module) == repr(criterion)


@pytest.mark.parametrize("criterion", [tfa.TripletSemiHardLoss(), tfa.TripletHardLoss(soft=True)])
def test_a_full_graph(criterion):
    torch._dynamo.reset()
    rows = rows_of([0] * 6)[0].float().requires_grad_()
    labels = torch.tensor([[0], [0], [1], [1], [2], [2]])
    expected = criterion(labels, rows)
    found = torch.compile(criterion, fullgraph=True, backend="aot_eager")(labels, rows)
    assert torch.equal(found, expected)
    assert torch.equal(*(torch.autograd.grad(value, rows)[0] for value in (found, expected)))


def test_autocast():
    labels = torch.tensor([0, 0, 1, 1])
    network = nn.Linear(5, 3)
    with torch.autocast("cpu", torch.bfloat16):
        loss = tfa.triplet_hard_loss(labels, network(rows_of(labels)[0].float()))
    assert loss.dtype == torch.float32
    loss.backward()
    assert network.weight.grad.isfinite().all()


def test_errors_name_the_argument():
    rows, labels = torch.ones(4, 2), torch.zeros(4)
    with pytest.raises(
        ValueError, match=r"\[triplet_hard_loss\] distance_metric must be one of 'L2'"
    ):
        tfa.triplet_hard_loss(labels, rows, distance_metric="L1")
    with pytest.raises(ValueError, match=r"\[TripletHardLoss\] distance_metric must be one of"):
        tfa.TripletHardLoss(distance_metric=torch.cdist)
    with pytest.raises(
        ValueError, match=r"y_pred must be \(B, D\) and y_true have B elements; got"
    ):
        tfa.triplet_semihard_loss(labels[:3], rows)
    with pytest.raises(TypeError, match=r"\[triplet_semihard_loss\] y_pred must be of a floating"):
        tfa.triplet_semihard_loss(rows, labels.long())
    with pytest.raises(TypeError, match=r"\[triplet_hard_loss\] y_true must be a tensor; got list"):
        tfa.triplet_hard_loss([0, 1], rows)
    with pytest.raises(TypeError, match=r"soft must be True or False; got 0.5"):
        tfa.triplet_hard_loss(labels, rows, soft=0.5)
