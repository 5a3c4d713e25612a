# SPDX-License-Identifier: BSD-3-Clause
"""Layouts, compilers, modes and devices: what surrounds a call on a GPU changes no bit of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from compare import assert_same_bits
from device import DEVICE, GPU, rows_of_ops
from error_inputs import BASE
from flashmetric import functional
from flashmetric.functional import triplet_loss
from op_db import DTYPES, OP
from op_errors import ERRORS
from samples import class_batch, cotangent_for, layouts
from test_gradients import gradients
from test_layouts import assert_any_layout

pytestmark = GPU
ROWS, LOSS = ("op", "row", "dtype"), OP["triplet_loss"]
# Each option of the table is in some of these.
SOME = rows_of_ops(differentiable=True, dtypes=(torch.float32,))[::4]
OTHER = "cpu" if DEVICE.type == "cuda" else "meta"
ELSEWHERE = [error for error in ERRORS if "got meta" in error.message]


def _everything(op, sample) -> list[Tensor]:
    value, grads = gradients(op, sample)
    return [value, *grads.values(), *(op.run(sample, return_stats=True)[1] if op.stats else ())]


def _assert_same(ours, expected, what: str) -> None:
    for one, other in zip(ours, expected, strict=True):
        assert_same_bits(one, other, what=what)


@pytest.mark.parametrize(ROWS, SOME)
def test_rows_in_any_layout(op, row, dtype):
    assert_any_layout(op, op.sample(row, dtype).to(DEVICE))


@pytest.mark.parametrize(ROWS, SOME)
def test_options_in_any_layout(op, row, dtype):
    """Labels, masks, indices, margins and weights; 1 in 3 elements of a larger tensor each."""
    sample = op.sample(row, dtype).to(DEVICE)
    strided = {
        name: torch.stack([value] * 3, -1)[..., 1]
        for name, value in sample.options.items()
        if isinstance(value, Tensor) and value.ndim
    }
    ours = _everything(op, sample.with_options(**strided))
    _assert_same(ours, _everything(op, sample), f"strided {list(strided)}")


@pytest.mark.parametrize(ROWS, SOME)
def test_cotangents_in_any_layout(op, row, dtype):
    sample = op.sample({**row, "reduction": "none"}, dtype).to(DEVICE)
    value = op.run(sample)
    spread = torch.stack([cotangent_for(value)] * 3, -1)[..., 1]
    for cotangent in (spread, spread[:1].expand_as(value)):
        _, ours = gradients(op, sample, cotangent)
        _, expected = gradients(op, sample, cotangent.contiguous())
        _assert_same(ours.values(), expected.values(), "strided cotangent")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [64, 129])
def test_wide_rows_in_any_layout(dim, dtype):
    """Enough features and rows for whole tiles and vectors, as queries and as references."""
    rows, labels = (each.to(DEVICE) for each in class_batch(257, dim, 60, dtype=dtype))
    expanded = [("expanded", rows[:1].expand_as(rows)), ("one_feature", rows[:, :1].expand(-1, 70))]
    for name, view in (*layouts(rows), *expanded):
        for refs in ({}, {"ref_embeddings": view, "ref_labels": labels.flip(0)}):
            plain = {key: value.contiguous() for key, value in refs.items()}
            results = []
            for leaf, others in ((view.detach(), refs), (view.detach().contiguous(), plain)):
                value = triplet_loss(leaf.requires_grad_(), labels, impl="fused", **others)
                results.append((value, *torch.autograd.grad(value, leaf)))
            _assert_same(*results, what=f"{name} {list(refs)}")


@pytest.mark.parametrize(ROWS, SOME)
def test_deterministic_algorithms_change_nothing(op, row, dtype):
    """They fill what torch.empty gives with NaN, too: nothing that is read was left unwritten."""
    sample = op.sample(row, dtype).to(DEVICE)
    expected = _everything(op, sample)
    torch.use_deterministic_algorithms(True)
    try:
        ours = _everything(op, sample)
    finally:
        torch.use_deterministic_algorithms(False)
    _assert_same(ours, expected, "deterministic algorithms")


@pytest.mark.filterwarnings("ignore")  # those of the compilers are not ours
@pytest.mark.parametrize("mode", [None, "reduce-overhead"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_compiled_training_step(reduction, mode):
    """Run often enough that a graph of CUDA is recorded and replayed, on new rows each time."""
    torch._dynamo.reset()

    def step(rows, labels):
        return triplet_loss(rows * 2.0, labels, reduction=reduction, impl="fused")

    compiled = torch.compile(step, fullgraph=True, mode=mode)
    for seed in range(4):
        rows, labels = (each.to(DEVICE) for each in class_batch(129, 40, 30, seed=seed))
        results = []
        for function in (compiled, step):
            torch.compiler.cudagraph_mark_step_begin()
            value = function(rows.requires_grad_(), labels)
            (grad,) = torch.autograd.grad(value, rows, cotangent_for(value))
            results.append((value.detach().clone(), grad.clone()))
        _assert_same(*results, what=f"step {seed}")


@pytest.mark.parametrize("error", ELSEWHERE, ids=[error.message for error in ELSEWHERE])
@pytest.mark.parametrize("other", sorted({OTHER, "meta"}))
def test_two_devices_in_one_call_are_refused(error, other):
    name, options = BASE[error.base]
    message = error.message.replace("cpu; got meta", f"{DEVICE}; got {other}")
    change = {key: torch.ones_like(value, device=other) for key, value in error.change.items()}
    options = {
        key: value.to(DEVICE) if isinstance(value, Tensor) else value
        for key, value in options.items()
    }
    for impl in ("auto", "reference"):
        with pytest.raises(ValueError, match="device") as caught:
            getattr(functional, name)(**options | change | {"impl": impl})
        assert str(caught.value) == f"[{name}] {message}"


def test_a_number_for_each_anchor_must_be_where_the_rows_are():
    sample = LOSS.sample(LOSS.rows[0], torch.float32).to(DEVICE)
    for option in ("margin", "weights"):
        value = torch.ones(len(sample.tensors["embeddings"]), device=OTHER)
        message = f"{option} must be on the device of the embeddings, {DEVICE}; got {OTHER}."
        with pytest.raises(ValueError, match=f"^.triplet_loss. {message}$"):
            LOSS.run(replace(sample, options=sample.options | {option: value}))
