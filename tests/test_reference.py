# SPDX-License-Identifier: BSD-3-Clause
"""The reference against the specification written a second time (oracle.py), and both by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import oracle
from compare import Real, assert_no_worse_than
from flashmetric import reference
from keys_data import KINDS, hard_rows
from op_db import DISTANCES, OPS, cases
from samples import cotangent_for


@pytest.mark.parametrize(("op", "row"), cases(differentiable=True, ops=OPS))
def test_reference_is_as_good_as_the_oracle_in_float64(op, row):
    sample = op.sample(row, torch.float64).requiring_grad()
    value = op.run(sample, "reference")
    cotangent = cotangent_for(value)
    grads = torch.autograd.grad(value, list(sample.tensors.values()), cotangent)
    narrow, wide = (op.truth(sample, cotangent, real) for real in (np.float64, Real))
    assert_no_worse_than(value, baseline=torch.as_tensor(narrow.value), truth=wide.value)
    for name, grad in zip(sample.tensors, grads, strict=True):
        baseline = torch.as_tensor(narrow.grads[name])
        # The gradient of a single beta is one sum, whose terms cancel and whose order is numpy's.
        ulps = 2.0 if grad.ndim else 8.0
        assert_no_worse_than(grad, baseline=baseline, truth=wide.grads[name], ulps=ulps, what=name)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [1, 8, 19])
def test_rank_key_is_the_documented_sum_bit_for_bit(kind, distance, normalize, dim):
    rows, _ = hard_rows(kind, 40, dim, 5, torch.float32)
    ours = reference.rank_key(rows[:25], rows[25:], distance=distance, normalize=normalize)
    expected = oracle.rank_keys(rows[:25].numpy(), rows[25:].numpy(), distance, normalize)
    np.testing.assert_array_equal(ours.numpy(), expected)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("distance", DISTANCES)
def test_the_gradients_of_the_oracle_are_slopes(distance, normalize):
    """Central differences err by c h^2: halving h must move them by more than what is left."""
    rng, step = np.random.default_rng(0), Real(2) ** -12
    x, r = (rng.standard_normal((4, 5)).astype(Real) for _ in range(2))
    _, grad_x, grad_r = oracle.pair_distances(x, r, distance, normalize)

    def slope(move_x, move_r, h):
        above, below = (
            oracle.pair_distances(x + s * h * move_x, r + s * h * move_r, distance, normalize)[0]
            for s in (1, -1)
        )
        return (above - below) / (2 * h)

    for k in range(5):
        axis = np.eye(5, dtype=Real)[k]
        for grad, moves in ((grad_x, (axis, 0 * axis)), (grad_r, (0 * axis, axis))):
            coarse, fine = slope(*moves, step), slope(*moves, step / 2)
            rounding = 64 * np.finfo(Real).eps / step
            assert (np.abs(fine - grad[:, k]) <= np.abs(coarse - fine) + rounding).all()
