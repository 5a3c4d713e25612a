# SPDX-License-Identifier: BSD-3-Clause
"""What surrounds an op in torch: opcheck, torch.func, export, profiler, autocast, refusals."""

from __future__ import annotations

import re

import pytest
import torch

import flashmetric
from compare import assert_same_bits
from flashmetric.functional import triplet_loss, triplet_margin_loss
from op_db import FUSED, cases
from samples import class_batch, cotangent_for
from test_determinism import _everything

OP_NAMES = {
    "apart",
    "bounds",
    "dense",
    "list_triplets",
    "listed_triplet",
    "mine",
    "mined_triplet",
    "paired",
    "paired_backward",
    "pairwise",
    "pairwise_backward",
    "triplet",
}
OPCHECKS = (
    "test_schema",
    "test_autograd_registration",
    "test_faketensor",
    "test_aot_dispatch_dynamic",
)


class _Recorder(torch.utils._python_dispatch.TorchDispatchMode):
    """Keeps the arguments of every dispatcher op of ours that runs inside."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, _types, args=(), kwargs=None):
        if func.namespace == "flashmetric":
            self.calls.append((func, args, kwargs or {}))
        return func(*args, **(kwargs or {}))


def _calls_of(op, row):
    """The dispatcher calls of the forward and the backward of one row."""
    sample = op.sample({**row, "shape": "6x3"}, torch.float32)
    with _Recorder() as recorder:
        _everything(op, sample)
    for call, args, kwargs in recorder.calls:
        yield call, tuple(a.detach() if isinstance(a, torch.Tensor) else a for a in args), kwargs


@pytest.mark.parametrize("op", FUSED, ids=lambda op: op.name)
def test_opcheck(op):
    """The calls that public functions really make, for rows with every kind of argument."""
    seen = set()
    for row in (op.row_of_every_call, *op.rows[::3]):
        for call, args, kwargs in _calls_of(op, row):
            torch.library.opcheck(call, args, kwargs, test_utils=OPCHECKS)
            seen.add(call.name())
    assert seen == {f"flashmetric::{name}" for name in op.kernels.dispatched}


@pytest.mark.parametrize("op", FUSED, ids=lambda op: op.name)
def test_opcheck_of_odd_layouts(op):
    for call, args, kwargs in _calls_of(op, op.rows[0]):
        strided = [
            torch.stack([a, a], -1)[..., 0] if isinstance(a, torch.Tensor) and a.numel() else a
            for a in args
        ]
        torch.library.opcheck(call, tuple(strided), kwargs, test_utils=OPCHECKS)


@pytest.mark.parametrize(("op", "row"), cases(differentiable=True)[::4])
def test_func_grad(op, row):
    sample = op.sample(row, torch.float32)
    names = list(sample.tensors)
    positions = tuple(range(len(names)))

    def scalar(*tensors):
        value = op.run(sample.with_tensors(**dict(zip(names, tensors, strict=True))), "auto")
        return (value * cotangent_for(value)).sum()

    leaves = [t.clone().requires_grad_() for t in sample.tensors.values()]
    expected = torch.autograd.grad(scalar(*leaves), leaves)
    grads = torch.func.grad(scalar, argnums=positions)(*sample.tensors.values())
    for ours, eager in zip(grads, expected, strict=True):
        assert_same_bits(ours, eager)
    grads, value = torch.func.grad_and_value(scalar, argnums=positions)(*sample.tensors.values())
    assert_same_bits(value, scalar(*leaves).detach())
    _, pullback = torch.func.vjp(scalar, *sample.tensors.values())
    for ours, eager in zip(pullback(torch.ones(())), expected, strict=True):
        assert_same_bits(ours, eager)


def test_func_jacrev_of_a_scalar_loss():
    """jacrev maps the backward over cotangents; the forward stays one comparison of all rows."""
    rows, labels = class_batch(12, 4, 3)
    assert_same_bits(
        torch.func.jacrev(triplet_loss)(rows, labels), torch.func.grad(triplet_loss)(rows, labels)
    )


@pytest.mark.parametrize("op", [op for op in FUSED if op.differentiable], ids=lambda op: op.name)
def test_double_backward_is_refused_by_name(op):
    name = op.function.__name__
    message = (
        f"[{name}] double backward is not supported by the fused kernels; use impl='reference'."
    )
    for row in (op.rows[0], *(row for row in op.rows if row.get("reduction") == "none")):
        sample = op.sample(row, torch.float32).requiring_grad()
        leaves = list(sample.tensors.values())
        value = op.run(sample)
        grads = torch.autograd.grad(value, leaves, cotangent_for(value), create_graph=True)
        with pytest.raises(RuntimeError, match=re.escape(message)):
            sum(grad.sum() for grad in grads).backward()


def test_a_graph_through_a_gradient_that_does_not_need_it_is_fine():
    """create_graph=True alone, as gradient penalties on other terms ask for it."""
    rows, labels = class_batch(20, 5, 5)
    leaf = rows.requires_grad_()
    (grad,) = torch.autograd.grad(triplet_loss(leaf, labels), leaf, create_graph=True)
    (plain,) = torch.autograd.grad(triplet_loss(leaf, labels), leaf)
    assert_same_bits(grad.detach(), plain)


@pytest.mark.parametrize("op", FUSED, ids=lambda op: op.name)
def test_vmap_is_refused(op):
    sample = op.sample(op.rows[0], torch.float32)
    (name, rows), *_ = sample.tensors.items()

    def call(rows):
        return op.run(sample.with_tensors(**{name: rows}))

    with pytest.raises(RuntimeError, match=r"vmap is not supported"):
        torch.func.vmap(call)(torch.stack([rows, rows]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("op", FUSED, ids=lambda op: op.name)
def test_autocast_leaves_values_alone(op, dtype):
    for row in op.rows[:4]:
        sample = op.sample(row, dtype)
        expected = _everything(op, sample)
        with torch.autocast("cpu", torch.bfloat16):
            inside = _everything(op, sample)
        for name, value in expected.items():
            assert_same_bits(inside[name], value, what=name)


@pytest.mark.parametrize("impl", ["fused", "reference"])
@pytest.mark.parametrize("op", FUSED, ids=lambda op: op.name)
def test_default_dtype_and_device_do_not_matter(op, impl):
    """Every tensor is made for the inputs, none for the defaults of the process."""
    for row in op.rows[:8]:
        sample = op.sample(row, torch.float32)
        expected = op.run(sample, impl)
        torch.set_default_dtype(torch.float64)
        try:
            with torch.device("meta"):
                ours = op.run(sample, impl)
        finally:
            torch.set_default_dtype(torch.float32)
        for one, other in zip(_parts(ours), _parts(expected), strict=True):
            assert_same_bits(one, other)


def _parts(result):
    return (result,) if isinstance(result, torch.Tensor) else tuple(result)


def test_a_network_under_autocast_gets_gradients_in_its_own_dtype():
    network = torch.nn.Linear(8, 4)
    rows, labels = class_batch(16, 8, 4)
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = network(rows)
        assert embeddings.dtype == torch.bfloat16
        loss = triplet_loss(embeddings, labels)
    assert loss.dtype == torch.float32
    loss.backward()
    assert network.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("op", FUSED, ids=lambda op: op.name)
def test_the_profiler_shows_our_ops(op):
    sample = op.sample(op.row_of_every_call, torch.float32)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        _everything(op, sample)
    names = {event.key for event in profile.key_averages()}
    assert {f"flashmetric::{name}" for name in op.kernels.dispatched} <= names


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_export(distance):
    module = flashmetric.TripletLoss(margin=0.5, distance=distance)
    rows, labels = class_batch(20, 6, 5)
    batch = torch.export.Dim("batch", min=2)
    shapes = {"embeddings": {0: batch}, "labels": {0: batch}}
    for program in (
        torch.export.export(module, (rows, labels)),
        torch.export.export(module, (rows, labels), dynamic_shapes=shapes),
    ):
        assert_same_bits(program.module()(rows, labels), module(rows, labels))
    more, more_labels = class_batch(37, 6, 9)
    assert_same_bits(program.module()(more, more_labels), module(more, more_labels))


@pytest.mark.parametrize(
    ("op", "row"), cases(differentiable=True, ops=[op for op in FUSED if op.kernels.static])[::5]
)
def test_meta_tensors_have_the_right_shape(op, row):
    sample = op.sample(row, torch.float32)
    meta = {
        name: value.to("meta") if isinstance(value, torch.Tensor) else value
        for name, value in sample.arguments().items()
    }
    result, expected = op.function(**meta), op.run(sample)
    assert (result.shape, result.dtype) == (expected.shape, expected.dtype)


def test_parameters_and_their_views_are_embeddings():
    table = torch.nn.Embedding(20, 6)
    labels = torch.arange(12) % 4
    loss = triplet_loss(table(torch.arange(12)), labels)
    loss.backward()
    assert table.weight.grad[:12].count_nonzero() > 0
    assert table.weight.grad[12:].count_nonzero() == 0
    proxies = torch.nn.Parameter(torch.randn(4, 6, generator=torch.Generator().manual_seed(0)))
    rows, labels = class_batch(12, 6, 4)
    triplet_loss(rows, labels, ref_embeddings=proxies, ref_labels=torch.arange(4)).backward()
    assert proxies.grad.count_nonzero() > 0


def test_checkpointed_forward_gives_the_same_gradient():
    rows, labels = class_batch(24, 6, 6)
    leaf = rows.clone().requires_grad_()
    torch.utils.checkpoint.checkpoint(triplet_loss, leaf, labels, use_reentrant=False).backward()
    plain = rows.clone().requires_grad_()
    triplet_loss(plain, labels).backward()
    assert_same_bits(leaf.grad, plain.grad)


def test_anomaly_mode_and_hooks_see_the_gradient():
    rows, labels = class_batch(24, 6, 6)
    leaf, seen = rows.requires_grad_(), []
    leaf.register_hook(seen.append)
    with pytest.warns(UserWarning, match="Anomaly Detection"):
        anomaly = torch.autograd.detect_anomaly()
    with anomaly:
        triplet_margin_loss(leaf, leaf.roll(1, 0), leaf.roll(2, 0)).backward()
        triplet_loss(leaf, labels).backward()
    assert len(seen) == 2


def test_op_names_are_stable():
    """Selective checkpointing and exported programs find ops by name."""
    names = {name for op in FUSED for name in op.kernels.dispatched}
    assert names == OP_NAMES
    assert all(hasattr(torch.ops.flashmetric, name) for name in names)
