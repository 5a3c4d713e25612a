# SPDX-License-Identifier: BSD-3-Clause
"""gradcheck of the float64 kernels, and both derivatives of the reference, over every row."""

from __future__ import annotations

import pytest
import torch

from op_db import OPS, cases


def _small(op, row):
    """The row at a size where numerical differentiation over every input is instant."""
    sample = op.sample({**row, "shape": "6x3"}, torch.float64).requiring_grad()
    names = list(sample.tensors)

    def call(impl):
        def function(*tensors):
            return op.run(sample.with_tensors(**dict(zip(names, tensors, strict=True))), impl)

        return function

    return call, tuple(sample.tensors.values())


def smooth(parameters):
    """Without the rows whose gradient is no derivative: of weights that are held fast, and of pairs
    that are selected by a comparison with their own mirror image."""
    return [
        each
        for each in parameters
        if not each.values[1].get("detach_weights")
        and (each.values[0].name, each.values[1].get("refs")) != ("online_contrastive_loss", "self")
    ]


@pytest.mark.parametrize(("op", "row"), smooth(cases(differentiable=True)))
def test_fused_gradient(op, row):
    call, inputs = _small(op, row)
    assert torch.autograd.gradcheck(call("fused"), inputs)


@pytest.mark.parametrize(("op", "row"), smooth(cases(differentiable=True, ops=OPS)))
def test_reference_gradient_and_second_derivative(op, row):
    """Along random directions: test_reference.py compares every entry of the gradient."""
    call, inputs = _small(op, row)
    assert torch.autograd.gradcheck(call("reference"), inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(call("reference"), inputs, fast_mode=True)
