# SPDX-License-Identifier: BSD-3-Clause
"""The CUDA kernels without a GPU: compiled for the host, a fiber for each thread, they must compute
what they are held to on a GPU (test_gpu_table.py). What ranks by tiles is left to a GPU, and so is,
for the time it takes, either half precision of each row."""

from __future__ import annotations

import pytest
import torch

import emulation
from compare import assert_same_choice
from device import gpu_counters
from flashmetric import Triplets, _ops
from less_lucky import judge_in_two_orders
from op_db import DTYPES, OPS
from samples import row_name
from test_forward import assert_statistics
from test_gradients import (
    assert_asking_twice_accumulates,
    assert_each_gradient_alone,
    assert_value_and_gradient,
    test_references_that_many_anchors_choose,  # noqa: F401  here by these kernels
)

HALVES = (torch.bfloat16, torch.float16)


def _cases(*, differentiable: bool, dtypes=DTYPES):
    return [
        pytest.param(op, row, dtype, id=f"{op.name}-{str(dtype)[6:]}-{row_name(row)}")
        for op in OPS
        if op.kernels
        and op.differentiable == differentiable
        and set(op.kernels.dispatched) <= set(_ops._ON_CUDA)
        for number, row in enumerate(op.rows)
        for dtype in dtypes
        if dtype != HALVES[number % 2]
    ]


ROWS = ("op", "row", "dtype")


@pytest.fixture(scope="session")
def module(tmp_path_factory):
    return emulation.built_once(tmp_path_factory, "emulated_gpu", emulation.build)


@pytest.fixture(scope="session", params=emulation.GPUS)
def main_loop(request, module, tmp_path_factory):
    """A module, and the environment in which it ranks by that main loop."""
    folder = tmp_path_factory.mktemp(request.param)
    return emulation.copied(module, folder), emulation.GPUS[request.param]


@pytest.fixture(autouse=True)
def emulated(module, monkeypatch):
    yield from emulation.in_place_of_the_cpu(module, monkeypatch)


@pytest.mark.parametrize(ROWS, _cases(differentiable=True))
def test_value_and_gradient(op, row, dtype, emulated):
    before, sample = emulated.counters(), op.sample(row, dtype)
    assert_value_and_gradient(op, sample, judge_in_two_orders(op, sample))
    moved = {name for name, count in emulated.counters().items() if count > before[name]}
    assert gpu_counters(op, sample) <= moved


@pytest.mark.parametrize(ROWS, _cases(differentiable=False))
def test_choice(op, row, dtype):
    sample = op.sample(row, dtype)
    ours, truth = op.run(sample), op.truth(sample).value
    for field, one, expected in zip(Triplets._fields, ours, truth, strict=True):
        assert_same_choice(one, expected, what=field)


@pytest.mark.parametrize(
    ROWS,
    [case for case in _cases(differentiable=True, dtypes=DTYPES[:2]) if case.values[0].stats],
)
def test_statistics(op, row, dtype):
    assert_statistics(op, op.sample(row, dtype))


@pytest.mark.parametrize(ROWS, _cases(differentiable=True, dtypes=(torch.float32,)))
def test_gradients_as_autograd_asks_for_them(op, row, dtype):
    sample = op.sample(row, dtype)
    assert_asking_twice_accumulates(op, sample)
    assert_each_gradient_alone(op, sample)
