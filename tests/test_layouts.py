# SPDX-License-Identifier: BSD-3-Clause
"""Strides, offsets and alignments of inputs and cotangents change no bit of any result."""

from __future__ import annotations

import pytest
import torch

from compare import assert_same_bits
from op_db import FUSED, OP, cases
from samples import cotangent_for, layouts, row_name
from test_gradients import gradients


@pytest.mark.parametrize(("op", "row"), cases(differentiable=True))
def test_rows_in_any_layout(op, row):
    dtype = op.dtypes[len(row_name(row)) % len(op.dtypes)]
    assert_any_layout(op, op.sample(row, dtype))


def assert_any_layout(op, sample):
    value = op.run(sample)
    for name, tensor in sample.matrices().items():
        for layout, view in layouts(tensor):
            result = op.run(sample.with_tensors(**{name: view}))
            assert_same_bits(result, value, what=f"{name} {layout}")


@pytest.mark.parametrize(
    "layout", ["transposed", "offset", "row_step", "feature_step", "misaligned"]
)
@pytest.mark.parametrize("op", [op for op in FUSED if op.differentiable], ids=lambda op: op.name)
def test_gradient_through_any_layout(op, layout):
    for row in op.rows[:6]:
        sample = op.sample(row, torch.float32)
        _, expected = gradients(op, sample)
        for name, tensor in sample.matrices().items():
            leaf = dict(layouts(tensor))[layout].detach().requires_grad_()
            result = op.run(sample.with_tensors(**{name: leaf}))
            (grad,) = torch.autograd.grad(result, leaf, cotangent_for(result))
            assert_same_bits(grad, expected[name], what=f"gradient of {name} {layout}")


@pytest.mark.parametrize("op", FUSED, ids=lambda op: op.name)
def test_expanded_rows(op):
    """A stride of 0 in the rows or in the features is the tensor it stands for."""
    for row in op.rows[:6]:
        sample = op.sample(row, torch.float32)
        for name, tensor in sample.matrices().items():
            for view in (tensor[:1].expand_as(tensor), tensor[:, :1].expand_as(tensor)):
                ours = op.run(sample.with_tensors(**{name: view}))
                expected = op.run(sample.with_tensors(**{name: view.contiguous()}))
                for one, other in zip(_flat(ours), _flat(expected), strict=True):
                    assert_same_bits(one, other, what=f"expanded {name}")


def _flat(result):
    return (result,) if isinstance(result, torch.Tensor) else tuple(result)


def _vector_cotangents(cotangent):
    """The values of a (B,) or (M, N) cotangent behind other strides."""
    spread = torch.full((*cotangent.shape, 3), float("nan"), dtype=cotangent.dtype)
    spread[..., 1] = cotangent
    yield spread[..., 1]
    yield torch.cat([cotangent.new_full((1, *cotangent.shape[1:]), float("nan")), cotangent])[1:]
    if cotangent.ndim == 2:
        yield cotangent.t().contiguous().t()


_VECTOR_CASES = [
    case for case in cases(differentiable=True) if case.values[1].get("reduction", "none") == "none"
]


@pytest.mark.parametrize(("op", "row"), _VECTOR_CASES)
def test_cotangent_in_any_layout(op, row):
    sample = op.sample(row, torch.float32)
    value, expected = gradients(op, sample)
    for view in _vector_cotangents(cotangent_for(value)):
        _, ours = gradients(op, sample, cotangent=view)
        for name in expected:
            assert_same_bits(ours[name], expected[name], what=f"gradient of {name}")


@pytest.mark.parametrize(("op", "row"), _VECTOR_CASES)
def test_expanded_cotangent(op, row):
    """`.sum().backward()` hands one number with stride 0 to the backward."""
    sample = op.sample(row, torch.float32)
    leaves = sample.requiring_grad()
    value = op.run(leaves)
    (value.sum() * 3.0).backward()
    _, expected = gradients(op, sample, cotangent=torch.full_like(value, 3.0).contiguous())
    for name, leaf in leaves.tensors.items():
        assert_same_bits(leaf.grad, expected[name], what=f"gradient of {name}")
    if value.ndim == 2:
        one_row = cotangent_for(value)[:1].expand_as(value)
        _, ours = gradients(op, sample, cotangent=one_row)
        _, expected = gradients(op, sample, cotangent=one_row.contiguous())
        for name in expected:
            assert_same_bits(ours[name], expected[name], what=f"gradient of {name}, one row")


def test_options_in_any_layout():
    """Labels, masks, indices, weights and margins may be strided, offset or expanded too."""
    op = OP["triplet_loss"]
    for row in op.rows:
        sample = op.sample(row, torch.float32)
        expected = op.run(sample)
        for name, value in sample.options.items():
            if isinstance(value, torch.Tensor) and value.ndim:
                spread = torch.stack([value, value.flip(0)], dim=value.ndim)[..., 0]
                assert_same_bits(op.run(sample, **{name: spread}), expected, what=name)
        ones = sample.with_options(weights=torch.ones(()).expand(len(sample.tensors["embeddings"])))
        assert_same_bits(op.run(ones), op.run(sample, weights=None), what="expanded weights")
