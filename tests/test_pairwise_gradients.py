# SPDX-License-Identifier: BSD-3-Clause
"""The gradient of all distances: of float32 rows and keys of products it is a product of matrices
where rows are apart, and taken by difference where they are near."""

from __future__ import annotations

import pytest
import torch

from compare import assert_no_worse_than
from keys_data import FINITE_KINDS, hard_rows
from op_db import OP
from samples import Sample, cotangent_for
from test_gradients import assert_value_and_gradient, gradients, judge

PAIRWISE = OP["pairwise_distances"]
PRODUCTS = ["euclidean", "sqeuclidean", "cosine", "dot"]


def _sides(kind: str, others: bool) -> dict[str, torch.Tensor]:
    """More than a block of rows, in tiles that are not full."""
    rows, _ = hard_rows(kind, 131, 37, 9, torch.float32)
    return {"x": rows[:70], "y": rows[70:]} if others else {"x": rows[:101]}


@pytest.mark.parametrize("distance", PRODUCTS)
@pytest.mark.parametrize("kind", FINITE_KINDS)
def test_rows_that_are_hard_to_tell_apart(kind, distance):
    for others in (False, True):
        for normalize in (False, True):
            options = {"distance": distance, "normalize": normalize}
            sample = Sample(kind, _sides(kind, others), options)
            _, baseline, truth = judge(PAIRWISE, sample)
            _, ours = gradients(PAIRWISE, sample)
            for name, expected in truth.grads.items():
                assert_no_worse_than(ours[name], baseline=baseline[name], truth=expected, what=name)


@pytest.mark.parametrize("others", [False, True])
@pytest.mark.parametrize("distance", PRODUCTS)
def test_cotangents_of_any_layout(distance, others):
    sample = Sample("layouts", _sides("duplicates", others), {"distance": distance})
    cotangent = cotangent_for(PAIRWISE.run(sample))
    cotangent[::2, 5] = 0
    _, expected = gradients(PAIRWISE, sample, cotangent)
    wide = torch.zeros(cotangent.shape[0], 2 * cotangent.shape[1])
    wide[:, 1::2] = cotangent
    for same in (cotangent.T.contiguous().T, wide[:, 1::2]):
        _, found = gradients(PAIRWISE, sample, same)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    one = torch.ones(()).expand_as(cotangent)
    for name, found in gradients(PAIRWISE, sample, one)[1].items():
        assert torch.equal(found, gradients(PAIRWISE, sample, torch.ones_like(cotangent))[1][name])


@pytest.mark.parametrize("distance", PRODUCTS)
def test_a_cotangent_of_zero_hides_rows_that_are_not_finite(distance):
    tensors = _sides("random", True)
    tensors["y"][3] = float("inf")
    tensors["y"][4, 2] = float("nan")
    sample = Sample("hidden", tensors, {"distance": distance})
    cotangent = torch.ones(70, 61)
    cotangent[:, 3:5] = 0
    _, found = gradients(PAIRWISE, sample, cotangent)
    tensors["y"][3:5] = 1
    _, expected = gradients(PAIRWISE, sample.with_tensors(**tensors), cotangent)
    assert torch.equal(found["x"].isfinite(), expected["x"].isfinite())
    torch.testing.assert_close(found["x"], expected["x"])


def test_one_side_alone():
    sample = Sample("one", _sides("random", True), {"distance": "euclidean"})
    cotangent = cotangent_for(PAIRWISE.run(sample))
    _, both = gradients(PAIRWISE, sample, cotangent)
    x, y = sample.tensors["x"], sample.tensors["y"]
    for name, sides in (
        ("x", (x.clone().requires_grad_(), y)),
        ("y", (x, y.clone().requires_grad_())),
    ):
        value = PAIRWISE.function(*sides, distance="euclidean")
        value.backward(cotangent)
        (leaf,) = [each for each in sides if each.requires_grad]
        assert torch.equal(leaf.grad, both[name])


def test_many_rows():
    """Several blocks, and sums of many terms."""
    rows = torch.randn(700, 20, generator=torch.Generator().manual_seed(4))
    for tensors in ({"x": rows[:400]}, {"x": rows[:300], "y": rows[300:]}):
        for distance in PRODUCTS:
            assert_value_and_gradient(PAIRWISE, Sample("many", tensors, {"distance": distance}))
