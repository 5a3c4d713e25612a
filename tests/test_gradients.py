# SPDX-License-Identifier: BSD-3-Clause
"""Gradients: the 2x rule under random cotangents, and the ways autograd asks for them."""

from __future__ import annotations

import pytest
import torch

from compare import assert_no_worse_than, assert_same_bits
from keys_data import hard_rows
from op_db import DISTANCES, OP, cases, cases_and_dtypes
from samples import Sample, cotangent_for


def gradients(op, sample, cotangent=None, impl="fused"):
    """(value, gradients by tensor name) under `cotangent`, random if not given."""
    leaves = sample.requiring_grad()
    value = op.run(leaves, impl)
    cotangent = cotangent_for(value) if cotangent is None else cotangent
    grads = torch.autograd.grad(value, list(leaves.tensors.values()), cotangent)
    return value, dict(zip(leaves.tensors, grads, strict=True))


def assert_value_and_gradient(op, sample, judged=None, device="cpu"):
    """The 2x rule for one sample; `judged` is what `judge` said of it before."""
    plain, baseline, truth = judged or judge(op, sample)
    value, ours = gradients(op, sample.to(device))
    assert_no_worse_than(value, baseline=plain, truth=truth.value)
    assert set(truth.grads) == set(ours)
    for name, expected in truth.grads.items():
        assert ours[name].dtype == sample.tensors[name].dtype
        what = f"gradient of {name}"
        assert_no_worse_than(ours[name], baseline=baseline[name], truth=expected, what=what)


def judge(op, sample):
    """Value and gradients of plain torch in the same dtype, and the truth."""
    plain, baseline = gradients(op, sample, impl="reference")
    return plain, baseline, op.truth(sample, cotangent_for(plain))


@pytest.mark.parametrize(("op", "row", "dtype"), cases_and_dtypes(differentiable=True))
def test_value_and_gradient(op, row, dtype):
    assert_value_and_gradient(op, op.sample(row, dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("distance", DISTANCES)
def test_rows_around_the_floor_of_a_norm(distance, dtype):
    """From 1e-12 down a normalised row gets shorter instead of random, and its gradient is 0."""
    rows, labels = hard_rows("around_the_floor", 60, 7, 9, dtype)
    options = {"distance": distance, "normalize": True}
    loss = Sample("loss", {"embeddings": rows}, options | {"labels": labels, "reduction": "none"})
    assert_value_and_gradient(OP["triplet_loss"], loss)
    assert_value_and_gradient(OP["pairwise_distances"], Sample("pairs", {"x": rows}, options))


def test_references_that_many_anchors_choose():
    """What they get points their own way mostly, and the norm takes that away again."""
    generator = torch.Generator().manual_seed(13)
    rows, refs = (torch.randn(n, 24, generator=generator, dtype=torch.float64) for n in (97, 120))
    labels, ref_labels = (
        torch.randint(0, 40, (n,), generator=generator) ** 2 // 60 for n in (97, 120)
    )
    options = {"labels": labels, "ref_labels": ref_labels, "normalize": True}
    sample = Sample("crowded", {"embeddings": rows, "ref_embeddings": refs}, options)
    assert_value_and_gradient(OP["triplet_loss"], sample)


@pytest.mark.parametrize(("op", "row"), cases(differentiable=True))
def test_asking_twice_gives_the_same_bits_and_accumulates(op, row):
    assert_asking_twice_accumulates(op, op.sample(row, torch.float32))


def assert_asking_twice_accumulates(op, sample):
    sample = sample.requiring_grad()
    leaves = list(sample.tensors.values())
    value = op.run(sample)
    cotangent = cotangent_for(value)
    first = torch.autograd.grad(value, leaves, cotangent, retain_graph=True)
    second = torch.autograd.grad(value, leaves, cotangent, retain_graph=True)
    other = torch.autograd.grad(value, leaves, cotangent_for(value, seed=1), retain_graph=True)
    value.backward(cotangent)
    for once, again, elsewhere, leaf in zip(first, second, other, leaves, strict=True):
        assert_same_bits(once, again)
        assert_same_bits(once, leaf.grad)
        assert once.count_nonzero() == 0 or not torch.equal(once, elsewhere)


@pytest.mark.parametrize("name", ["triplet_loss", "triplet_loss[all]", "contrastive_loss"])
def test_a_gradient_belongs_to_who_asked_for_it(name):
    """Overwriting it changes neither what the graph gives next nor what others were given."""
    op = OP[name]
    row = next(row for row in op.rows if row["reduction"] != "none")
    sample = op.sample(row, torch.float32).requiring_grad()
    leaf = sample.tensors["embeddings"]
    expected = torch.autograd.grad(op.run(sample), leaf)[0].clone()
    assert expected.count_nonzero()
    value = op.run(sample)
    for keep in (True, True, False):
        (grad,) = torch.autograd.grad(value, leaf, retain_graph=keep)
        assert_same_bits(grad, expected)
        grad.fill_(-1.0)
    op.run(sample).backward()
    op.run(sample).backward()
    assert_same_bits(leaf.grad, 2 * expected)


@pytest.mark.parametrize(("op", "row"), cases(differentiable=True))
def test_a_tensor_that_needs_no_gradient_changes_nothing(op, row):
    assert_each_gradient_alone(op, op.sample(row, torch.float32))


def assert_each_gradient_alone(op, sample):
    value, everything = gradients(op, sample)
    plain = op.run(sample)
    assert not plain.requires_grad
    assert_same_bits(plain, value.detach(), what="value without gradients")
    for name in sample.tensors:
        alone = sample.with_tensors(**{name: sample.tensors[name].clone().requires_grad_()})
        result = op.run(alone)
        (grad,) = torch.autograd.grad(result, alone.tensors[name], cotangent_for(result))
        assert_same_bits(grad, everything[name], what=f"gradient of {name} alone")


@pytest.mark.parametrize(("op", "row"), cases(differentiable=True))
def test_no_grad_mode_builds_no_graph(op, row):
    sample = op.sample(row, torch.float32).requiring_grad()
    with torch.no_grad():
        quiet = op.run(sample)
    assert not quiet.requires_grad
    with torch.inference_mode():
        assert_same_bits(op.run(sample), quiet)


def test_gradient_reaches_a_non_leaf():
    op = OP["triplet_loss"]
    sample = op.sample(op.rows[0], torch.float32)
    leaf = sample.tensors["embeddings"].clone().requires_grad_()
    op.run(sample.with_tensors(embeddings=leaf * 2.0)).sum().backward()
    doubled = (leaf.detach() * 2.0).requires_grad_()
    op.run(sample.with_tensors(embeddings=doubled)).sum().backward()
    assert_same_bits(leaf.grad, doubled.grad * 2.0)


def test_one_tensor_as_both_sides_receives_both_gradients():
    """embeddings and ref_embeddings may be the same tensor; its gradient is the sum of two."""
    op = OP["triplet_loss"]
    embeddings = torch.randn(24, 9, generator=torch.Generator().manual_seed(3))
    labels = torch.arange(24) % 6
    call = {"labels": labels, "ref_labels": labels, "self_index": torch.arange(24)}
    both = embeddings.clone().requires_grad_()
    op.function(both, ref_embeddings=both, **call).backward()
    left, right = embeddings.clone().requires_grad_(), embeddings.clone().requires_grad_()
    op.function(left, ref_embeddings=right, **call).backward()
    assert_same_bits(both.grad, left.grad + right.grad)
    symmetric = embeddings.clone().requires_grad_()
    loss = op.function(symmetric, labels)
    assert_same_bits(loss, op.function(both, ref_embeddings=both, **call))
