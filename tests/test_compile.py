# SPDX-License-Identifier: BSD-3-Clause
"""torch.compile: no graph break, the bits of eager mode, no needless recompiles."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import flashmetric
from compare import assert_same_bits
from flashmetric.functional import triplet_loss
from op_db import FUSED, cases
from samples import class_batch, cotangent_for
from samples_rules import SEEDED

# Dynamo is slow and its work depends on which options are tensors, not on their values: one row of
# five has every kind of them. It takes no generator into a graph.
COMPILED_CASES = [
    case for case in cases(differentiable=True) if case.values[1].get("mining") not in SEEDED
][::5]


@pytest.fixture(autouse=True)
def _fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def _compiled(function, backend="aot_eager", **options):
    return torch.compile(function, fullgraph=True, backend=backend, **options)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize(("op", "row"), COMPILED_CASES)
def test_value_and_gradient_of_a_full_graph(op, row, dynamic):
    sample = op.sample(row, torch.float32).requiring_grad()
    names = list(sample.tensors)

    def call(*tensors):
        return op.run(sample.with_tensors(**dict(zip(names, tensors, strict=True))), "auto")

    leaves = tuple(sample.tensors.values())
    expected = call(*leaves)
    cotangent = cotangent_for(expected)
    value = _compiled(call, dynamic=dynamic)(*leaves)
    assert_same_bits(value, expected)
    grads = torch.autograd.grad(value, leaves, cotangent)
    for ours, eager in zip(grads, torch.autograd.grad(expected, leaves, cotangent), strict=True):
        assert_same_bits(ours, eager, what="gradient")


def test_mining_in_a_full_graph():
    """How many triplets there are depends on the data: a size of its own, not a graph break."""
    rows, labels = class_batch(30, 5, 12)

    def total(rows, labels):
        anchor, positive, negative = flashmetric.mine_triplets(rows, labels)
        return anchor.sum() + 2 * positive.sum() + 3 * negative.sum()

    assert _compiled(total)(rows, labels) == total(rows, labels)


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_statistics_in_a_full_graph(distance):
    rows, labels = class_batch(30, 5, 6)

    def call(rows, labels):
        return triplet_loss(rows, labels, distance=distance, return_stats=True)

    loss, stats = _compiled(call)(rows, labels)
    expected_loss, expected = call(rows, labels)
    assert_same_bits(loss, expected_loss)
    for ours, eager in zip(stats, expected, strict=True):
        assert_same_bits(ours, eager)


@pytest.mark.parametrize(
    "module",
    [
        flashmetric.TripletLoss(margin=0.2),
        flashmetric.TripletLoss(soft_margin=True, distance="cosine", reduction="none"),
        flashmetric.BatchHardTripletLoss(normalize=True, ignore_label=-1),
    ],
    ids=["hinge", "soft", "batch_hard"],
)
def test_a_module_in_a_full_graph(module):
    rows, labels = class_batch(24, 6, 6)
    assert_same_bits(_compiled(module)(rows, labels), module(rows, labels))


def _frames_for_sizes(sizes, **options):
    counter = CompileCounterWithBackend("aot_eager")

    def step(rows, labels):
        return triplet_loss(rows * 2.0, labels)

    compiled = _compiled(step, counter, **options)
    for n in sizes:
        rows, labels = class_batch(n, 6, max(1, n // 3))
        leaf = rows.requires_grad_()
        value = compiled(leaf, labels)
        (grad,) = torch.autograd.grad(value, leaf)
        eager = step(leaf, labels)
        assert_same_bits(value, eager)
        assert_same_bits(grad, torch.autograd.grad(eager, leaf)[0])
    return counter.frame_count


def test_dynamic_shapes_never_recompile():
    assert _frames_for_sizes((8, 2, 33, 3, 200), dynamic=True) == 1


def test_static_shapes_recompile_at_most_once():
    """The second batch size makes the dimension dynamic; the third finds it so."""
    assert _frames_for_sizes((8, 12, 33, 96)) <= 2


def test_a_margin_tensor_never_recompiles():
    counter = CompileCounterWithBackend("aot_eager")
    compiled = _compiled(lambda rows, labels, m: triplet_loss(rows, labels, margin=m), counter)
    rows, labels = class_batch(24, 6, 6)
    values = [compiled(rows, labels, torch.tensor(m)).item() for m in (0.25, 0.5, 8.0)]
    assert values == [triplet_loss(rows, labels, margin=m).item() for m in (0.25, 0.5, 8.0)]
    assert counter.frame_count == 1


def test_a_training_step_in_a_full_graph():
    """Loss inside a larger graph, with the weights of a network as leaves."""
    network = torch.nn.Linear(12, 6)
    rows, labels = class_batch(32, 12, 8)

    def step(rows, labels):
        return triplet_loss(torch.relu(network(rows)), labels, normalize=True)

    _compiled(step)(rows, labels).backward()
    grads = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    step(rows, labels).backward()
    for ours, p in zip(grads, network.parameters(), strict=True):
        assert_same_bits(ours, p.grad)


@pytest.mark.slow
@pytest.mark.parametrize(
    "op",
    [op for op in FUSED if op.differentiable and op.rows[0].get("mining") not in SEEDED],
    ids=lambda op: op.name,
)
def test_inductor(op):
    """The default backend; the tests above cover the same graphs without waiting for a compiler."""
    sample = op.sample(op.rows[0], torch.float32).requiring_grad()
    leaves = tuple(sample.tensors.values())

    def call(*tensors):
        given = dict(zip(sample.tensors, tensors, strict=True))
        return op.run(sample.with_tensors(**given), "auto")

    value, expected = torch.compile(call, fullgraph=True)(*leaves), call(*leaves)
    assert_same_bits(value, expected)
    cotangent = cotangent_for(value)
    for ours, eager in zip(
        torch.autograd.grad(value, leaves, cotangent),
        torch.autograd.grad(expected, leaves, cotangent),
        strict=True,
    ):
        assert_same_bits(ours, eager)
