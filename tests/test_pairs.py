# SPDX-License-Identifier: BSD-3-Clause
"""Losses that are sums over measured pairs: nothing to sum, numbers that are none, long sums."""

from __future__ import annotations

import pytest
import torch

from compare import assert_same_bits
from flashmetric import Stats
from flashmetric.functional import (
    contrastive_pairs_loss,
    margin_loss,
    quadruplet_loss,
    quadruplet_margin_loss,
)
from op_db import REDUCTIONS
from samples import class_batch

IMPLS = ("auto", "reference")
LIST_RULES = ("hard", "semihard", "all", "easy_hard", "distance_weighted", "random")


def _leaf(*shape, value=None):
    generator = torch.Generator().manual_seed(sum(shape))
    rows = torch.randn(shape, generator=generator) if value is None else torch.tensor(value)
    return rows.requires_grad_()


def _assert_zero(loss, *leaves):
    if isinstance(loss, tuple):
        loss, stats = loss
        assert isinstance(stats, Stats)
        assert all(number == 0 for number in stats[:-1])
        assert stats.mean_norm.isfinite()
    assert loss.count_nonzero() == 0
    assert loss.requires_grad
    loss.sum().backward()
    for leaf in leaves:
        assert leaf.grad.shape == leaf.shape
        assert leaf.grad.count_nonzero() == 0


WITHOUT_TRIPLETS = {
    "empty": torch.zeros(0, dtype=torch.int64),
    "one_row": torch.zeros(1, dtype=torch.int64),
    "one_class": torch.zeros(7, dtype=torch.int64),
    "all_distinct": torch.arange(7),
}


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", WITHOUT_TRIPLETS)
def test_a_batch_without_triplets_is_zero(name, reduction, impl):
    labels = WITHOUT_TRIPLETS[name]
    options = {"reduction": reduction, "return_stats": True, "impl": impl}
    rows = _leaf(len(labels), 3)
    _assert_zero(quadruplet_loss(rows, labels, **options), rows)
    for mining in LIST_RULES:
        for shape in ((), (len(labels),)):
            rows, beta = _leaf(len(labels), 3), _leaf(*shape)
            _assert_zero(margin_loss(rows, labels, beta=beta, mining=mining, **options), rows, beta)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_no_references_are_zero(reduction, impl):
    options = {"reduction": reduction, "return_stats": True, "impl": impl}
    labels = torch.arange(5) % 2
    for loss in (quadruplet_loss, margin_loss):
        rows, refs = _leaf(5, 3), _leaf(0, 3)
        _assert_zero(
            loss(rows, labels, ref_embeddings=refs, ref_labels=labels[:0], **options), rows, refs
        )


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("form", ["rows", "index"])
def test_no_given_pairs_are_zero(form, reduction, impl):
    options = {"reduction": reduction, "impl": impl}
    if form == "index":
        rows, nothing = _leaf(4, 3), torch.zeros(0, dtype=torch.int64)
        options["embeddings"] = rows
        sides, leaves = [nothing] * 4, [rows]
    else:
        sides = leaves = [_leaf(0, 3) for _ in range(4)]
    similar = torch.zeros(0, dtype=torch.bool)
    _assert_zero(contrastive_pairs_loss(*sides[:2], similar, **options), *leaves[:2])
    for leaf in leaves:
        leaf.grad = None
    _assert_zero(quadruplet_margin_loss(*sides, **options), *leaves)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("reduction", ["mean", "mean_active", "sum", "none"])
def test_no_weight_is_zero(reduction, impl):
    base, labels = class_batch(12, 3, 4)
    options = {"reduction": reduction, "weights": torch.zeros(12), "impl": impl}
    for loss in (quadruplet_loss, margin_loss):
        rows = base.clone().requires_grad_()
        _assert_zero(loss(rows, labels, **options), rows)
    sides = [base.roll(n, 0).requires_grad_() for n in range(4)]
    _assert_zero(quadruplet_margin_loss(*sides, **options), *sides)
    sides = [base.roll(n, 0).requires_grad_() for n in range(2)]
    _assert_zero(contrastive_pairs_loss(*sides, labels % 2, **options), *sides)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("power", [1, 2])
def test_an_infinite_row_leaves_the_others_alone(power, impl):
    """A dissimilar pair at distance inf has value 0 and gradient 0, not 0 * inf."""
    x1 = _leaf(3, 2, value=[[0.0, 0.0], [float("inf"), 0.0], [1.0, 1.0]])
    x2 = _leaf(3, 2, value=[[0.0, 0.5], [0.0, 0.0], [2.0, 1.0]])
    loss = contrastive_pairs_loss(x1, x2, torch.tensor([0, 0, 1]), power=power, impl=impl)
    loss.backward()
    assert loss.isfinite()
    assert x1.grad.isfinite().all()
    assert x1.grad[1].count_nonzero() == 0
    assert x1.grad[0].count_nonzero() == 1


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("reduction", ["mean", "mean_active", "sum"])
def test_a_nan_shows(reduction, impl):
    base, labels = class_batch(12, 3, 4)
    base[5, 0] = float("nan")
    options = {"reduction": reduction, "impl": impl}
    sides = [base.roll(n, 0) for n in range(4)]
    assert quadruplet_loss(base, labels, **options).isnan()
    assert quadruplet_margin_loss(*sides, **options).isnan()
    assert contrastive_pairs_loss(*sides[:2], labels % 2, **options).isnan()
    assert margin_loss(base, labels, mining="hard", normalize=False, **options).isnan()


@pytest.mark.parametrize("impl", IMPLS)
def test_a_nan_touches_only_its_own_term(impl):
    base, labels = class_batch(12, 3, 4)
    sides = [base.roll(n, 0) for n in range(4)]
    sides[0][5, 0] = float("nan")
    found = contrastive_pairs_loss(*sides[:2], labels % 2, reduction="none", impl=impl)
    assert found.isnan().nonzero().tolist() == [[5]]
    found = quadruplet_margin_loss(*sides, reduction="none", impl=impl)
    assert found.isnan().nonzero().tolist() == [[5]]


@pytest.mark.parametrize("impl", IMPLS)
def test_hinges_have_no_slope_at_zero(impl):
    x1, x2 = _leaf(2, 1, value=[[0.0], [0.0]]), _leaf(2, 1, value=[[1.0], [0.5]])
    options = {"margin": 1.0, "pos_margin": 0.5, "power": 1, "impl": impl}
    _assert_zero(contrastive_pairs_loss(x1, x2, torch.tensor([0, 1]), **options), x1, x2)
    sides = [_leaf(1, 1, value=[[v]]) for v in (0.0, 1.0, 2.0, 3.5)]
    options = {"margin1": 1.0, "margin2": 0.5, "distance": "euclidean", "impl": impl}
    _assert_zero(quadruplet_margin_loss(*sides, **options), *sides)
    rows, beta = _leaf(3, 1, value=[[0.0], [1.0], [-2.0]]), _leaf(value=1.5)
    options = {"margin": 0.5, "mining": "hard", "normalize": False, "impl": impl}
    labels = torch.tensor([0, 0, 1])
    loss = margin_loss(rows, labels, beta=beta, weights=torch.tensor([1.0, 0, 0]), **options)
    _assert_zero(loss, rows, beta)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_long_sums_do_not_depend_on_the_threads(reduction):
    """torch.sum splits more than 32768 numbers among its threads."""
    generator = torch.Generator().manual_seed(0)
    x1, x2 = torch.randn(2, 100_003, 2, generator=generator)
    similar = torch.rand(100_003, generator=generator) < 0.5
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        leaf = x1.clone().requires_grad_()
        loss = contrastive_pairs_loss(leaf, x2, similar, reduction=reduction)
        loss.backward()
        results.append((loss.detach(), leaf.grad))
    for loss, grad in results[1:]:
        assert_same_bits(loss, results[0][0])
        assert_same_bits(grad, results[0][1])


def test_the_gradient_of_a_boundary_does_not_depend_on_the_threads():
    rows, labels = class_batch(96, 4, 4)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        for shape in ((), (96,)):
            beta = torch.full(shape, 1.0, requires_grad=True)
            margin_loss(rows, labels, beta=beta, mining="all").backward()
            results.append(beta.grad)
    for grad, expected in zip(results[2:], results[:2] * 2, strict=True):
        assert_same_bits(grad, expected)


@pytest.mark.parametrize("n", [12, 150])
def test_a_second_negative_is_no_row_of_the_anchor_whatever_its_labels(n):
    """The query's own reference may share no label with the query, and a negative may have none."""
    generator = torch.Generator().manual_seed(n)
    rows = torch.randint(-3, 4, (n, 2), generator=generator).float()
    labels, ref_labels = (torch.rand(n, 4, generator=generator) < 0.3 for _ in range(2))
    assert (~ref_labels.any(1)).any()
    own = torch.arange(n).where(torch.rand(n, generator=generator) < 0.8, -1)
    found, expected = (
        quadruplet_loss(
            *(rows, labels.long()),
            ref_embeddings=rows + 0.25,
            ref_labels=ref_labels.long(),
            self_index=own,
            reduction="none",
            impl=impl,
        )
        for impl in ("fused", "reference")
    )
    assert expected.count_nonzero()
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
