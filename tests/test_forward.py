# SPDX-License-Identifier: BSD-3-Clause
"""Values: the error of the kernels is at most twice that of plain torch in the same dtype."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compare import assert_no_worse_than, assert_same_bits, assert_same_choice
from flashmetric import Stats, Triplets
from op_db import FUSED, OP, OPS, cases_and_dtypes

DISTANCE_FIELDS = ("mean_d_ap", "mean_d_an", "max_d_ap", "min_d_an")


@pytest.mark.parametrize(("op", "row", "dtype"), cases_and_dtypes(differentiable=True))
def test_value(op, row, dtype):
    sample = op.sample(row, dtype)
    ours = op.run(sample)
    assert_no_worse_than(ours, baseline=op.run(sample, "reference"), truth=op.truth(sample).value)


@pytest.mark.parametrize(("op", "row", "dtype"), cases_and_dtypes(differentiable=False, ops=OPS))
def test_choice(op, row, dtype):
    sample = op.sample(row, dtype)
    truth = op.truth(sample).value
    assert len(truth[0]) > 0, "a sample without a triplet tests nothing"
    for impl in op.impls:
        triplets = op.run(sample, impl)
        assert isinstance(triplets, Triplets)
        for field, ours, expected in zip(Triplets._fields, triplets, truth, strict=True):
            assert_same_choice(ours, expected, what=f"{impl} {field}")


@pytest.mark.parametrize(
    ("op", "row", "dtype"), cases_and_dtypes(ops=[op for op in FUSED if op.stats])
)
def test_statistics(op, row, dtype):
    assert_statistics(op, op.sample(row, dtype))


def assert_statistics(op, sample, device="cpu"):
    here = sample.to(device)
    loss, ours = op.run(here, return_stats=True)
    assert_same_bits(loss, op.run(here), what="loss beside statistics")
    assert isinstance(ours, Stats)
    _, plain = op.run(sample, "reference", return_stats=True)
    truth = op.truth(sample).stats
    assert tuple(truth) == Stats._fields
    for value in ours:
        assert (value.shape, value.dtype) == ((), loss.dtype)
        assert not value.requires_grad
    # The distances are one vector: they share a unit, and their rounding errors a size.
    for fields in (("valid_anchors",), ("active_fraction",), ("mean_norm",), DISTANCE_FIELDS):
        assert_no_worse_than(
            torch.stack([getattr(ours, field) for field in fields]),
            baseline=torch.stack([getattr(plain, field) for field in fields]),
            truth=np.array([truth[field] for field in fields]),
            what=str(fields),
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_inputs_are_the_float32_problem_of_their_values(dtype):
    """Half inputs accumulate in fp32: the loss is that of the upcast rows, bit for bit."""
    op = OP["triplet_loss"]
    for row in op.rows:
        sample = op.sample(row, dtype)
        wide = sample.with_tensors(**{name: t.float() for name, t in sample.tensors.items()})
        ours = op.run(sample)
        assert ours.dtype == torch.float32
        assert_same_bits(ours, op.run(wide))
