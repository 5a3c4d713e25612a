# SPDX-License-Identifier: BSD-3-Clause
"""The distances that are sums over features, SNR, and those with parameters: what the table of
op_db.py does not ask of them."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.spatial.distance
import torch

import oracle
from compare import assert_same_bits
from flashmetric import (
    _C,
    Minkowski,
    mine_triplets,
    pairwise_distances,
    reference,
    triplet_loss,
)
from keys_data import KINDS, hard_rows
from op_db import SUMMED
from samples import Sample, class_batch, suited
from test_choices import assert_exact_choice

IMPLS = ("fused", "reference")
# Keys of whole powers are the same everywhere; that of another one is so up to the power.
EXACT = tuple(name for name in SUMMED if name != "minkowski(2.5)")
NUMBERS = sorted(set(KINDS) - {"with_nan", "with_infinity"})


def _sample(kind, distance, normalize, dtype, n=115, dim=19, n_classes=23):
    rows, labels = hard_rows(kind, n, dim, n_classes, dtype)
    options = {"labels": labels, "distance": distance, "normalize": normalize}
    return Sample(f"{kind} {dtype}", {"embeddings": suited(rows, distance)}, options)


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
@pytest.mark.parametrize("distance", EXACT)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_choice(kind, distance, dtype):
    """On rows made to mislead, ties included; within the batch and among references."""
    for normalize in (False, True):
        sample = _sample(kind, distance, normalize, dtype)
        assert_exact_choice(sample)
        rows, labels = sample.tensors["embeddings"], sample.options["labels"]
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(5))
        refs = sample.with_tensors(ref_embeddings=rows[order])
        assert_exact_choice(refs.with_options(ref_labels=labels[order], self_index=order.argsort()))


@pytest.mark.parametrize("distance", [*EXACT, "minkowski(7.0)"])
@pytest.mark.parametrize("kind", ["integers", "offset", "wild_scales", "some_zero"])
def test_every_isa_makes_the_same_choice(forced_isa, kind, distance):
    assert forced_isa
    assert_exact_choice(_sample(kind, distance, False, torch.float32))
    assert_exact_choice(_sample(kind, distance, True, torch.float64))


@pytest.mark.parametrize("p", [1.5, 2.5, 63.5, 300.0, 1e7])
def test_any_exponent_finds_the_nearest_up_to_the_last_bit_of_a_power(forced_isa, p):
    assert forced_isa
    rows, labels = class_batch(120, 9, 12)
    distance = Minkowski(p)
    ours, plain = (mine_triplets(rows, labels, distance=distance, impl=impl) for impl in IMPLS)
    keys = reference.rank_key(rows, distance=distance.name)
    for side in (1, 2):
        chosen, best = (keys[each[0], each[side]] for each in (ours, plain))
        torch.testing.assert_close(chosen, best, rtol=1e-12, atol=0)


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
@pytest.mark.parametrize("distance", EXACT)
@pytest.mark.parametrize("kind", NUMBERS)
def test_rank_key_is_the_documented_number_bit_for_bit(kind, distance):
    for dim, normalize in ((1, False), (8, True), (19, False)):
        rows, _ = hard_rows(kind, 40, dim, 5, torch.float32)
        rows = suited(rows, distance)
        ours = reference.rank_key(rows[:25], rows[25:], distance=distance, normalize=normalize)
        expected = oracle.rank_keys(rows[:25].numpy(), rows[25:].numpy(), distance, normalize)
        np.testing.assert_array_equal(ours.numpy(), expected)


SCIPY = {
    "manhattan": ("cityblock", {}),
    "chebyshev": ("chebyshev", {}),
    Minkowski(3): ("minkowski", {"p": 3}),
    Minkowski(2.5): ("minkowski", {"p": 2.5}),
}


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("distance", SCIPY, ids=str)
def test_scipy_agrees(distance, impl):
    name, options = SCIPY[distance]
    x, y = torch.randn(2, 30, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours = pairwise_distances(x, y, distance=distance, impl=impl)
    expected = torch.from_numpy(scipy.spatial.distance.cdist(x, y, name, **options))
    torch.testing.assert_close(ours, expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
def test_scipy_agrees_on_sets(dtype, impl):
    sets = torch.rand(30, 17, generator=torch.Generator().manual_seed(0)) < 0.3
    ours = pairwise_distances(sets.to(dtype), distance="jaccard", impl=impl)
    expected = scipy.spatial.distance.cdist(sets, sets, "jaccard")
    torch.testing.assert_close(ours.double(), torch.from_numpy(expected), rtol=0, atol=1e-6)
    triplets = mine_triplets(sets.to(dtype), torch.arange(30) % 5, distance="jaccard", impl=impl)
    assert len(triplets.anchor) == 30


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, torch.inf])
def test_torch_agrees_forward_and_backward(p, impl):
    x, y = torch.randn(2, 20, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weights = torch.randn(20, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = []
    for call in (
        lambda a, b: pairwise_distances(a, b, distance=Minkowski(p), impl=impl),
        lambda a, b: torch.cdist(a, b, p=p, compute_mode="donot_use_mm_for_euclid_dist"),
    ):
        leaves = x.clone().requires_grad_(), y.clone().requires_grad_()
        value = call(*leaves)
        found.append((value.detach(), *torch.autograd.grad(value, leaves, weights)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dim", [3, 64, 129])
@pytest.mark.parametrize("distance", SUMMED)
def test_equal_rows_are_at_exactly_zero_with_a_finite_gradient(distance, dim, impl):
    base = torch.rand(9, dim, generator=torch.Generator().manual_seed(dim))
    for normalize in (False, True):
        x = base.clone().requires_grad_()
        options = {"distance": distance, "normalize": normalize, "impl": impl}
        result = pairwise_distances(x, base, **options)
        assert result.diagonal().count_nonzero() == 0
        result.diagonal().sum().backward()
        assert x.grad.isfinite().all()
        assert distance == "jaccard" or x.grad.count_nonzero() == 0


@pytest.mark.parametrize("impl", IMPLS)
def test_ties_share_the_gradient_by_hand(impl):
    x = torch.tensor([[0.0, 3.0, 3.0]], requires_grad=True)
    pairwise_distances(x, torch.zeros(1, 3), distance="chebyshev", impl=impl).sum().backward()
    assert x.grad.tolist() == [[0.0, 0.5, 0.5]]
    x = torch.tensor([[1.0, 2.0]], requires_grad=True)  # J = 2 / 4; feature 0 ties
    y = torch.tensor([[1.0, 3.0]])
    result = pairwise_distances(x, y, distance="jaccard", impl=impl)
    result.sum().backward()
    assert result.item() == 0.25
    assert x.grad.tolist() == [[(0.75 - 1) / 2 / 4, -1 / 4]]


@pytest.mark.parametrize("impl", IMPLS)
def test_a_constant_query_has_no_signal(impl):
    x = torch.full((1, 4), 3.0, requires_grad=True)
    y = torch.tensor([[3.0, 3.0, 3.0, 3.0], [1.0, 3.0, 1.0, 3.0]], requires_grad=True)
    result = pairwise_distances(x, y, distance="snr", impl=impl)
    assert result[0, 0] == 0
    assert result[0, 1].item() == pytest.approx(4e24)
    result.sum().backward()
    assert x.grad.count_nonzero() == 0
    assert y.grad.count_nonzero() == 0


def test_two_rows_of_zeros_are_equal_sets():
    x = torch.zeros(2, 5, requires_grad=True)
    result = pairwise_distances(x, torch.eye(2, 5) * 0, distance="jaccard")
    assert result.count_nonzero() == 0
    result.sum().backward()
    assert x.grad.count_nonzero() == 0


@pytest.mark.parametrize("distance", SUMMED)
def test_threads_do_not_matter(distance):
    rows, labels = class_batch(400, 40, 30)
    rows = suited(rows, distance)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            for mining in ("hard", "all"):
                leaf = rows.clone().requires_grad_()
                loss = triplet_loss(leaf, labels, mining=mining, distance=distance)
                loss.backward()
                found.append((loss.detach(), leaf.grad))
    finally:
        torch.set_num_threads(before)
    for one, many in zip(found[:2], found[2:], strict=True):
        for left, right in zip(one, many, strict=True):
            assert_same_bits(left, right)


@pytest.mark.parametrize("distance", SUMMED)
def test_tiles_rank_and_keys_only_settle_what_is_near(distance):
    """A bound that let everything through would be right, and as slow as keys for all."""
    rows, labels = class_batch(1024, 32, 256)
    before = _C.counters()
    mine_triplets(suited(rows, distance), labels, distance=distance)
    after = _C.counters()
    assert after["brute_rows"] == before["brute_rows"]
    assert after["rescored"] - before["rescored"] < 1024
