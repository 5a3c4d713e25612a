# SPDX-License-Identifier: BSD-3-Clause
"""NaN and infinity pass through as in plain torch: never hidden, never spread to other rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compare import assert_no_worse_than
from keys_data import hard_rows
from op_db import DISTANCES, OP
from samples import Sample, cotangent_for
from test_gradients import gradients

pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
BAD = [float("nan"), float("inf"), -float("inf")]


def spoiled(kind, distance, n_classes=12, **options):
    rows, labels = hard_rows(kind, 101, 9, n_classes, torch.float32)
    options |= {"labels": labels, "distance": distance, "reduction": "none"}
    return Sample(kind, {"embeddings": rows}, options)


def assert_like_the_truth(op, sample, device="cpu"):
    """Values match the truth, NaN and infinity included. Rows of a gradient that are finite in
    truth are right; where some are not, some of ours are not either."""
    value, ours = gradients(op, sample.to(device))
    ours = {name: grad.cpu() for name, grad in ours.items()}
    plain, baseline = gradients(op, sample, impl="reference")
    truth = op.truth(sample, cotangent_for(plain))
    assert_no_worse_than(value, baseline=plain, truth=truth.value)
    for name, expected in truth.grads.items():
        clean = np.isfinite(expected).all(1)
        spread = np.flatnonzero(clean & ~ours[name].isfinite().all(1).numpy())
        assert spread.size == 0, f"{name}: not finite in rows {spread[:5]}"
        finite = (ours[name][clean], baseline[name][clean], expected[clean])
        assert_no_worse_than(finite[0], baseline=finite[1], truth=finite[2], what=name)
    shown = any(not grad.isfinite().all() for grad in ours.values())
    assert shown == any(not np.isfinite(grad).all() for grad in truth.grads.values()), "hidden"
    return truth


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("kind", ["with_nan", "with_infinity"])
@pytest.mark.parametrize("soft_margin", [False, True])
def test_rows_that_are_not_numbers(kind, distance, soft_margin):
    for normalize in (False, True):
        sample = spoiled(kind, distance, soft_margin=soft_margin, normalize=normalize)
        assert_like_the_truth(OP["triplet_loss"], sample)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("distance", DISTANCES)
def test_one_bad_reference_touches_only_the_anchors_that_meet_it(distance, bad):
    generator = torch.Generator().manual_seed(7)
    rows, refs = torch.randn(40, 6, generator=generator), torch.randn(50, 6, generator=generator)
    labels, ref_labels = torch.arange(40) % 4, torch.arange(50) % 5
    refs[13, 2] = bad
    options = {"labels": labels, "ref_labels": ref_labels, "distance": distance}
    tensors = {"embeddings": rows, "ref_embeddings": refs}
    sample = Sample("one", tensors, options | {"reduction": "none", "ignore_label": 3})
    truth = assert_like_the_truth(OP["triplet_loss"], sample)
    assert np.isfinite(truth.value).all(), "label 3 is ignored on both sides"
    assert_like_the_truth(OP["triplet_loss"], sample.with_options(ignore_label=None))


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("form", ["rows", "swap", "soft_margin"])
def test_given_triplets_with_one_bad_row(form, distance, bad):
    generator = torch.Generator().manual_seed(8)
    roles = ("anchor", "positive", "negative")
    options = {"distance": distance, "reduction": "none"}
    if form != "rows":
        options[form] = True
    for spoiled in roles:
        tensors = {role: torch.randn(10, 5, generator=generator) for role in roles}
        tensors[spoiled][4, 1] = bad
        assert_like_the_truth(OP["triplet_margin_loss"], Sample(spoiled, tensors, options))


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("distance", DISTANCES)
def test_pairwise_with_one_bad_row(distance, bad):
    generator = torch.Generator().manual_seed(9)
    tensors = {
        "x": torch.randn(11, 5, generator=generator),
        "y": torch.randn(7, 5, generator=generator),
    }
    tensors["x"][3, 1] = bad
    for normalize in (False, True):
        options = {"distance": distance, "normalize": normalize}
        assert_like_the_truth(OP["pairwise_distances"], Sample("bad", tensors, options))


@pytest.mark.parametrize("reduction", ["mean", "mean_active", "sum"])
def test_a_nan_shows_in_every_reduction(reduction):
    sample = spoiled("with_nan", "euclidean").with_options(reduction=reduction)
    assert OP["triplet_loss"].run(sample).isnan()


@pytest.mark.parametrize("distance", ["euclidean", "sqeuclidean"])
def test_overflow_is_infinite_exactly_where_plain_torch_overflows(distance):
    sample = spoiled("squares_overflow", distance)
    op = OP["pairwise_distances"]
    rows = Sample("overflow", {"x": sample.tensors["embeddings"]}, {"distance": distance})
    ours, plain = op.run(rows), op.run(rows, "reference")
    assert ours.isinf().any()
    assert torch.equal(ours.isinf(), plain.isinf())
    assert not ours.isnan().any()


def test_nan_weights_and_cotangents_show():
    sample = spoiled("random", "euclidean")
    weights = torch.ones(101)
    weights[5] = float("nan")
    value = OP["triplet_loss"].run(sample, weights=weights, margin=100.0)
    assert value[5].isnan()
    assert value.isnan().sum() == 1
    cotangent = torch.ones(101)
    cotangent[7] = float("nan")
    _, grads = gradients(OP["triplet_loss"], sample.with_options(margin=100.0), cotangent)
    assert grads["embeddings"][7].isnan().all()
