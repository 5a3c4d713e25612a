# SPDX-License-Identifier: BSD-3-Clause
"""Losses over all triplets or pairs on a GPU, without one: near pairs, rows out of range, lists
that need memory, several chunks (the emulated cache is small), and semi-hard triplets."""

from __future__ import annotations

import pytest
import torch

import emulation
from compare import assert_same_bits
from dense_beside_float64 import (
    CLASSES,
    LOSSES,
    MARGINS,
    assert_beside_float64,
    batch,
    with_references,
)
from op_db import OP
from test_emulated_gpu import module  # noqa: F401  a fixture
from test_gradients import gradients

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")


@pytest.fixture
def run(module):  # noqa: F811
    def on_the_gpu(op, sample, cotangent):
        before = module.counters()["cuda_dense"]
        with emulation.on_the_gpu(module):
            found = gradients(op, sample, cotangent)
        assert module.counters()["cuda_dense"] > before
        return found

    return on_the_gpu


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("n", "dim"), [(1, 3), (2, 1), (63, 17), (65, 16), (130, 33)])
def test_sizes_around_every_edge(run, name, n, dim):
    for classes in ("four_each", "two"):
        assert_beside_float64(name, batch(name, n, dim, classes), run)


@pytest.mark.parametrize("name", LOSSES)
def test_classes(run, name):
    for classes in CLASSES:
        assert_beside_float64(name, batch(name, 70, 9, classes, reduction="none"), run)


@pytest.mark.parametrize("name", [*LOSSES, "online_contrastive_loss"])
def test_words_of_negatives(run, name):
    """Most words of 32 references have no positive, and of no, some or all negatives a term."""
    weights = torch.rand(260, generator=torch.Generator().manual_seed(2))
    for margin, options in (
        (0.2, {"weights": weights}),
        (3.5, {"distance": "cosine", "margin": 0.9}),
        (3.0, {"self_index": None}),
        (9.0, {"reduction": "none"}),
    ):
        sample = batch(name, 260, 12, **({"margin": margin} | options))
        if "self_index" in options:
            sample = with_references(batch(name, 150, 12, margin=margin), 260)
        assert_beside_float64(name, sample, run)


@pytest.mark.parametrize("name", LOSSES)
def test_references(run, name):
    for n, n_ref in ((40, 130), (130, 40)):
        sample = with_references(batch(name, n, 9, "two", reduction="none"), n_ref)
        assert_beside_float64(name, sample, run)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    "kind", ["tight_classes", "duplicates", "integers", "offset", "outliers", "symmetric_pairs"]
)
def test_rows_made_to_mislead(run, name, kind):
    for distance in MARGINS:
        if distance in OP[name].distances or distance == "manhattan":
            sample = batch(name, 60, 9, "two", kind=kind, distance=distance)
            assert_beside_float64(name, sample, run)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("kind", ["one_huge_row", "beyond_tiles", "with_nan", "keys_underflow"])
def test_rows_that_products_do_not_take(run, name, kind):
    for classes in ("four_each", "two"):
        sample = batch(name, 60, 9, classes, kind=kind, reduction="none")
        assert_beside_float64(name, sample, run)


@pytest.mark.parametrize(
    "name",
    ["triplet_loss[all]", "triplet_loss[semihard_all]", "triplet_loss[semihard]"],
)
def test_positives_that_need_memory(run, name):
    """More than shared memory has room for."""
    assert_beside_float64(name, batch(name, 570, 3, "two"), run)


@pytest.mark.parametrize("soft_margin", [False, True])
def test_semihard_options(run, soft_margin):
    name, generator = "triplet_loss[semihard]", torch.Generator().manual_seed(1)
    weights = torch.rand(90, generator=generator) * (torch.arange(90) % 3 > 0)
    for classes, options in (
        ("two", {"fallback": "drop", "weights": weights}),
        ("one", {"invalid": "count", "reduction": "mean_active"}),
        ("four_each", {"distance": "snr", "reduction": "none"}),
        ("two", {"normalize": True, "invalid": "count"}),
    ):
        sample = batch(name, 90, 7, classes, soft_margin=soft_margin, **options)
        assert_beside_float64(name, sample, run)


@pytest.mark.parametrize("name", LOSSES)
def test_equal_inputs_give_equal_bits(run, name):
    sample, cotangent = batch(name, 100, 9, "two"), torch.ones(())
    (value, grads), (again, more) = (run(OP[name], sample, cotangent) for _ in range(2))
    assert_same_bits(value, again)
    assert_same_bits(grads["embeddings"], more["embeddings"])
