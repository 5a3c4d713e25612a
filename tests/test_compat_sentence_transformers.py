# SPDX-License-Identifier: BSD-3-Clause
"""flashmetric.compat.sentence_transformers against sentence-transformers itself."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from compat_data import (
    BATCH,
    LAYOUTS,
    NARROW,
    SIDES,
    assert_as_precise,
    assert_same,
    assert_zero,
    batches,
    rows_of,
    value_and_gradients,
)

pytestmark = pytest.mark.slow  # the import alone

PAIRS = ("ContrastiveLoss", "OnlineContrastiveLoss")
METRICS = ("euclidean", "squared", "not squared", "cosine")
GIVEN_METRICS = tuple(
    f"{owner}.{name}"
    for owner, names in (
        ("TripletDistanceMetric", ("COSINE", "EUCLIDEAN", "MANHATTAN")),
        ("SiameseDistanceMetric", ("COSINE_DISTANCE", "EUCLIDEAN", "MANHATTAN")),
    )
    for name in names
)


@pytest.fixture(scope="module")
def theirs():
    return pytest.importorskip(
        "sentence_transformers.sentence_transformer.losses",
        reason="compares with sentence-transformers 6.2",
    )


@pytest.fixture(scope="module")
def both(theirs):
    from flashmetric.compat import sentence_transformers as ours

    return ours, theirs


@pytest.fixture
def _unsaid(monkeypatch):
    """What is said once is said again."""
    monkeypatch.setattr("flashmetric.compat._peer._said", set())


def _options(theirs, name: str, metric: str, margin: float) -> dict[str, Any]:
    if name in SIDES:
        owner, member = metric.split(".")
        word = "triplet_margin" if name == "TripletLoss" else "margin"
        return {"distance_metric": getattr(getattr(theirs, owner), member), word: margin}
    functions = theirs.BatchHardTripletLossDistanceFunction
    euclidean = functions.euclidean_distance
    function = {
        "euclidean": euclidean,
        "squared": functools.partial(euclidean, squared=True),
        "not squared": functools.partial(euclidean, squared=False),
        "cosine": functions.cosine_distance,
    }[metric]
    soft = name == "BatchHardSoftMarginTripletLoss"
    return {"distance_metric": function} | ({} if soft else {"margin": margin})


def _both_losses(both, name: str, metric: str, margin: float, labels, **more: Any) -> list[Any]:
    """Functions of the sides, ours first."""

    def of(module):
        criterion = getattr(module, name)(nn.Identity(), **options)
        return lambda *sides: criterion.compute_loss_from_embeddings(list(sides), labels)

    options = _options(both[1], name, metric, margin) | more
    return [of(module) for module in both]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", BATCH)
@given(batch=batches(), margin=st.sampled_from([0.1, 1.0, 5.0, 40.0]))
def test_losses_of_a_batch(both, name, metric, batch, margin):
    rows, labels = batch
    assert_same(*_both_losses(both, name, metric, margin, labels), rows)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", BATCH)
def test_layouts_of_labels(both, name, metric, layout):
    labels = torch.tensor(LAYOUTS[layout])
    rows = rows_of(LAYOUTS[layout])
    for given_labels in (labels, labels[:, None], labels.int(), labels.double()):
        assert_same(*_both_losses(both, name, metric, 2.0, given_labels), rows)
    for dtype in NARROW:
        assert_as_precise(*_both_losses(both, name, metric, 2.0, labels), rows, dtype)


@pytest.mark.parametrize("name", BATCH)
def test_a_batch_of_one_class_counts_as_there(both, name):
    rows, labels = rows_of([1] * 6), torch.ones(6, dtype=torch.int64)
    ours = _both_losses(both, name, "euclidean", 2.0, labels)[0]
    value, grad = value_and_gradients(ours, rows)
    if name == "BatchAllTripletLoss":
        assert_zero(ours, rows)
    elif name == "BatchSemiHardTripletLoss":
        assert value > 2.0  # d_ap + margin
    else:
        assert value == (2.0 if name == "BatchHardTripletLoss" else pytest.approx(math.log(2)))
        assert not grad.any()


@pytest.mark.parametrize("metric", GIVEN_METRICS)
@pytest.mark.parametrize("name", SIDES)
@given(data=st.data())
def test_losses_of_given_rows(both, name, metric, data):
    sides, labels = data.draw(batches(SIDES[name]))
    margin = data.draw(st.sampled_from([0.1, 0.5, 1.0, 5.0]))
    more = {"size_average": data.draw(st.booleans())} if name == "ContrastiveLoss" else {}
    assert_same(*_both_losses(both, name, metric, margin, labels % 2, **more), sides)


@pytest.mark.parametrize("metric", GIVEN_METRICS)
@pytest.mark.parametrize("name", SIDES)
@pytest.mark.parametrize("labels", [[0, 1, 0, 1, 1, 0], [1] * 5, [0] * 5, [1], [0]], ids=str)
def test_layouts_of_given_rows(both, name, metric, labels):
    sides = rows_of(labels, SIDES[name])
    labels = torch.tensor(labels)
    assert_same(*_both_losses(both, name, metric, 0.7, labels[:, None]), sides)
    for dtype in NARROW:
        assert_as_precise(*_both_losses(both, name, metric, 0.7, labels), sides, dtype)


def test_other_labels_than_0_and_1(both):
    """Weights of the two terms, or ignored; said once by each loss, as there."""
    sides, labels = rows_of([0] * 6, 2), torch.tensor([0.0, 0.25, 1.0, 0.5, 0.0, 1.0])
    metric = "SiameseDistanceMetric.EUCLIDEAN"
    for name in PAIRS:
        ours, theirs = _both_losses(both, name, metric, 4.0, labels)
        with pytest.warns(UserWarning, match=rf"\[{name}\] labels must be 0 or 1"):
            ours(*sides)
        with pytest.warns(UserWarning, match="expects binary labels"):
            theirs(*sides)
        assert_same(ours, theirs, sides)


def test_an_empty_batch_is_zero_where_theirs_is_not(both):
    labels = torch.zeros(0, dtype=torch.int64)
    for name in (*BATCH, *SIDES):
        metric = GIVEN_METRICS[1] if name in SIDES else "euclidean"
        assert_zero(
            _both_losses(both, name, metric, 1.0, labels)[0], rows_of([], SIDES.get(name, 1))
        )


def test_a_row_of_zeros_has_no_cosine_and_no_gradient(both):
    for name, n_sides in (("TripletLoss", 3), ("ContrastiveLoss", 2), (BATCH[0], 1)):
        sides = rows_of([0] * 4, n_sides)
        sides[0][0] = 0
        metric = "cosine" if n_sides == 1 else "TripletDistanceMetric.COSINE"
        losses = _both_losses(both, name, metric, 2.0, torch.tensor([1, 1, 0, 0]))
        mine, theirs = (value_and_gradients(loss, sides) for loss in losses)
        torch.testing.assert_close(mine[0], theirs[0])
        assert not mine[1][0].any()
        assert theirs[1][0].abs().max() > 1e6


def test_their_error_for_another_number_of_labels(both):
    for name in (*BATCH, *PAIRS):
        metric = GIVEN_METRICS[1] if name in SIDES else "euclidean"
        ours = _both_losses(both, name, metric, 1.0, torch.arange(4))[0]
        with pytest.raises(ValueError, match=rf"{name} expects 3 labels.*but got 4 labels"):
            ours(*rows_of([0] * 3, SIDES.get(name, 1)))


@pytest.mark.usefixtures("_unsaid")
def test_a_device_without_kernels_runs_their_code(both, monkeypatch):
    monkeypatch.setattr("flashmetric._ops.why_not_fused", lambda *_: "no such kernel")
    labels = torch.arange(6) % 2
    for name in (*BATCH, *SIDES):
        metric = GIVEN_METRICS[0] if name in SIDES else "euclidean"
        ours, theirs = _both_losses(both, name, metric, 1.0, labels)
        rows = rows_of([0] * 6, SIDES.get(name, 1))
        with pytest.warns(RuntimeWarning, match=rf"\[{name}\] runs the code of its peer: no such"):
            found = ours(*rows)
        assert torch.equal(found, theirs(*rows))


@pytest.mark.usefixtures("_unsaid")
def test_a_function_of_the_user_runs_their_code(both):
    def maximum(embeddings):
        return (embeddings[:, None] - embeddings).abs().amax(2)

    def largest(x, y):
        return (x - y).abs().amax(1)

    labels = torch.arange(6) % 2
    for name in (*BATCH, *SIDES):
        function = largest if name in SIDES else maximum
        metric = GIVEN_METRICS[0] if name in SIDES else "euclidean"
        losses = _both_losses(both, name, metric, 1.0, labels, distance_metric=function)
        rows = rows_of([0] * 6, SIDES.get(name, 1))
        with pytest.warns(RuntimeWarning, match=rf"\[{name}\] runs the code of its peer: dist"):
            losses[0](*rows)
        assert_same(*losses, rows)  # without another warning
