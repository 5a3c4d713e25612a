# SPDX-License-Identifier: BSD-3-Clause
"""THE TABLE on a GPU: the values, gradients, choices and statistics that the CPU is held to."""

from __future__ import annotations

import warnings

import pytest
import torch

from compare import assert_same_bits, assert_same_choice
from device import DEVICE, FUSED_DISTANCES, GPU, gpu_counters, rows_of_ops
from flashmetric import _C, Stats, Triplets
from less_lucky import judge_in_two_orders
from op_db import OP
from samples import Sample
from test_forward import assert_statistics
from test_gradients import (
    assert_asking_twice_accumulates,
    assert_each_gradient_alone,
    assert_value_and_gradient,
    gradients,
)
from test_nonfinite import assert_like_the_truth, spoiled

pytestmark = GPU
ROWS, FLOAT = ("op", "row", "dtype"), (torch.float32,)


@pytest.mark.parametrize(ROWS, rows_of_ops(differentiable=True))
def test_value_and_gradient(op, row, dtype):
    sample = op.sample(row, dtype)
    assert_value_and_gradient(op, sample, judge_in_two_orders(op, sample), DEVICE)


@pytest.mark.parametrize(ROWS, rows_of_ops(differentiable=False))
def test_choice(op, row, dtype):
    sample = op.sample(row, dtype)
    ours, on_cpu, truth = op.run(sample.to(DEVICE)), op.run(sample), op.truth(sample).value
    for field, one, other, expected in zip(Triplets._fields, ours, on_cpu, truth, strict=True):
        assert one.device == DEVICE
        assert_same_choice(one, expected, what=field)
        assert_same_bits(one, other, what=f"{field} of the CPU")


@pytest.mark.parametrize(
    ROWS, [case for case in rows_of_ops(differentiable=True) if case.values[0].stats]
)
def test_statistics(op, row, dtype):
    assert_statistics(op, op.sample(row, dtype), DEVICE)


# float64 as well: rounding to float32 hides sums in an order that changes.
@pytest.mark.parametrize(
    ROWS, rows_of_ops(differentiable=True, dtypes=(torch.float32, torch.float64))
)
def test_gradients_as_autograd_asks_for_them(op, row, dtype):
    sample = op.sample(row, dtype).to(DEVICE)
    assert_asking_twice_accumulates(op, sample)
    assert_each_gradient_alone(op, sample)


@pytest.mark.parametrize(ROWS, rows_of_ops(dtypes=FLOAT))
def test_auto_runs_the_kernels_of_the_device(op, row, dtype):
    sample, before = op.sample(row, dtype).to(DEVICE), _C.counters()
    op.run(sample, "auto")
    moved = {name for name, count in _C.counters().items() if count > before[name]}
    expected = gpu_counters(op, sample) if DEVICE.type == "cuda" else set(op.kernels.forward)
    assert expected <= moved


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # of the truth
# jaccard takes no such rows.
@pytest.mark.parametrize("distance", [name for name in FUSED_DISTANCES if name != "jaccard"])
@pytest.mark.parametrize("kind", ["with_nan", "with_infinity"])
def test_rows_that_are_not_numbers(kind, distance):
    for normalize in (False, True):
        sample = spoiled(kind, distance, normalize=normalize)
        assert_like_the_truth(OP["triplet_loss"], sample, DEVICE)


@pytest.mark.parametrize(ROWS, rows_of_ops(fused=False, dtypes=(torch.float64,)))
def test_auto_without_kernels_is_plain_torch_on_the_device(op, row, dtype):
    sample = op.sample(row, dtype)
    for ours, plain in zip(_results(op, sample.to(DEVICE)), _results(op, sample), strict=True):
        assert ours.device == DEVICE
        torch.testing.assert_close(ours.cpu(), plain, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(ROWS, rows_of_ops(fused=False, dtypes=FLOAT))
def test_fused_without_kernels_is_refused(op, row, dtype):
    with pytest.raises(RuntimeError, match="impl='fused' is not possible"):
        op.run(op.sample(row, dtype).to(DEVICE), "fused")


def _results(op, sample: Sample) -> list[torch.Tensor]:
    """All that an op gives without kernels: on a GPU it says so, on the CPU it is asked for."""
    impl = "reference" if next(iter(sample.tensors.values())).is_cpu else "auto"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* runs as plain torch", RuntimeWarning)
        if not op.differentiable:
            return list(op.run(sample, impl))
        value, grads = gradients(op, sample, impl=impl)
        statistics = op.run(sample, impl, return_stats=True)[1] if op.stats else ()
    assert not statistics or isinstance(statistics, Stats)
    return [value, *grads.values(), *statistics]
