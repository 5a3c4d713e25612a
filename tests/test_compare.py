# SPDX-License-Identifier: BSD-3-Clause
"""The assertions fail when they should, and the covering rows cover."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compare import Real, assert_no_worse_than, assert_same_bits, assert_same_choice, exact, ulp
from covering import covering_rows, feasible_pairs, spread_rows

TRUTH = np.array([1.0, -3.0, 0.5], dtype=Real)


def _check(ours, baseline=(1.0, -3.0, 0.5), truth=TRUTH, dtype=torch.float32):
    assert_no_worse_than(
        torch.tensor(ours, dtype=dtype), baseline=torch.tensor(baseline, dtype=dtype), truth=truth
    )


def test_equal_values_pass():
    _check((1.0, -3.0, 0.5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_two_ulps_of_the_largest_truth_are_allowed_and_four_are_not(dtype):
    step = ulp(3.0, dtype)
    _check((1.0 + 2 * step, -3.0, 0.5), dtype=dtype)
    with pytest.raises(AssertionError, match="at flat position 0"):
        _check((1.0 + 4 * step, -3.0, 0.5), dtype=dtype)


def test_twice_the_error_of_plain_torch_is_allowed_and_more_is_not():
    _check((1.0, -3.02, 0.5), baseline=(1.01, -3.0, 0.5))
    with pytest.raises(AssertionError, match="flat position 1"):
        _check((1.0, -3.0201, 0.5), baseline=(1.01, -3.0, 0.5))


def test_truth_wider_than_float64_decides():
    truth = np.array([Real(1) + Real(2) ** -60], dtype=Real)
    one, below = torch.tensor([1.0], dtype=torch.float64), 1.0 - 3 * 2.0**-52
    assert_no_worse_than(one, baseline=one, truth=truth)
    with pytest.raises(AssertionError):
        assert_no_worse_than(torch.tensor([below], dtype=torch.float64), baseline=one, truth=truth)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_not_finite_where_the_truth_is_fails(bad):
    with pytest.raises(AssertionError, match="not finite"):
        _check((bad, -3.0, 0.5))


def test_non_finite_truth_must_be_met():
    truth = np.array([np.nan, np.inf, 1.0], dtype=Real)
    values = (float("nan"), float("inf"), 1.0)
    _check(values, values, truth)
    with pytest.raises(AssertionError, match="non-finite"):
        _check((0.0, float("inf"), 1.0), values, truth)
    with pytest.raises(AssertionError, match="non-finite"):
        _check((float("nan"), -float("inf"), 1.0), values, truth)


def test_dtype_and_shape_must_agree():
    one = torch.ones(3)
    with pytest.raises(AssertionError, match="dtype"):
        assert_no_worse_than(one.double(), baseline=one, truth=exact(one))
    with pytest.raises(AssertionError, match="shapes"):
        assert_no_worse_than(one[:2], baseline=one, truth=exact(one))


def test_a_zero_truth_admits_no_rounding():
    zero = torch.zeros(2)
    assert_no_worse_than(zero, baseline=zero, truth=exact(zero))
    with pytest.raises(AssertionError):
        assert_no_worse_than(zero + 1e-30, baseline=zero, truth=exact(zero))


@pytest.mark.parametrize("magnitude", [1.0, 1.5, 1e-3, 3e8])
def test_ulp_is_the_spacing_of_numpy(magnitude):
    assert ulp(magnitude, torch.float32) == np.spacing(np.float32(magnitude))
    assert ulp(magnitude, torch.float64) == np.spacing(np.float64(magnitude))


def test_choices_must_be_equal():
    chosen = torch.tensor([0, 4, 2])
    assert_same_choice(chosen, np.array([0, 4, 2]))
    with pytest.raises(AssertionError, match="first at row 1: got 4, expected 3"):
        assert_same_choice(chosen, np.array([0, 3, 2]))
    with pytest.raises(AssertionError, match="shape"):
        assert_same_choice(chosen, np.array([0, 4]))
    with pytest.raises(AssertionError, match="dtype"):
        assert_same_choice(chosen.int(), np.array([0, 4, 2]))


def test_bits_tell_the_sign_of_zero_and_accept_nan():
    assert_same_bits(torch.tensor([float("nan"), 1.0]), torch.tensor([float("nan"), 1.0]))
    with pytest.raises(AssertionError, match="bits differ"):
        assert_same_bits(torch.tensor([0.0]), torch.tensor([-0.0]))
    with pytest.raises(AssertionError, match="bits differ"):
        assert_same_bits(torch.tensor([1.0]), torch.tensor([1.0 + 2**-23]))


def test_covering_rows_meet_every_feasible_pair_and_no_forbidden_one():
    factors = {"a": (1, 2, 3), "b": (False, True), "c": "xyz", "d": (0, 1)}
    forbidden = {frozenset((("a", 1), ("b", True)))}
    rows = covering_rows(factors, forbidden)
    for pair in feasible_pairs(factors, forbidden):
        assert any(pair <= row.items() for row in rows), pair
    assert not any({"a": 1, "b": True}.items() <= row.items() for row in rows)
    assert rows == covering_rows(factors, forbidden)
    assert len(rows) < 3 * 2 * 3 * 2


def test_in_spread_rows_the_values_of_a_factor_take_turns():
    factors = {"a": (1, 2, 3), "b": (False, True), "c": range(9)}
    forbidden = {frozenset((("a", 1), ("b", True)))}
    rows = spread_rows(factors, 7, forbidden)
    for name, values in factors.items():
        turns = sorted([row[name] for row in rows].count(value) for value in values)
        assert sum(turns) == 7
        assert turns[-1] - turns[0] <= 1
    assert not any({"a": 1, "b": True}.items() <= row.items() for row in rows)
    assert rows == spread_rows(factors, 7, forbidden)
    with pytest.raises(ValueError, match="no order"):
        spread_rows({"a": (1,), "b": (True,)}, 2, forbidden)
