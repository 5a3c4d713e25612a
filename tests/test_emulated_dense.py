# SPDX-License-Identifier: BSD-3-Clause
"""Losses over all triplets or pairs on a GPU, without one: near pairs, rows out of range, lists
that need memory, several chunks (the emulated cache is small), and semi-hard triplets."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import emulation
from compare import assert_same_bits
from dense_beside_float64 import (
    CLASSES,
    LOSSES,
    MARGINS,
    assert_beside_float64,
    assert_near_the_truth,
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


def _times(scale, huge=1.0):
    """All rows, and one of them once more."""

    def change(rows):
        rows = rows * scale
        rows[3] *= huge
        return rows

    return change


def _alike_but_for_little(rows):
    """Two rows too long for products, nearer than floats tell, and short ones in between."""
    rows = rows * 1e-30
    rows[3:5, 0] = 1e37
    return rows


SHORT = {
    "short": _times(1e-33),
    "whose_squares_vanish": _times(1e-28),
    "beside_a_usual_one": _times(1e-30, 1e30),
    "whose_products_are_subnormal": _times(1e-22, 1e22),
}
LONG = {
    "long": _times(1e30),
    "one_long": _times(1.0, 1e37),
    "alike_but_for_little": _alike_but_for_little,
}
WITHOUT_WEIGHTS = sorted({*LOSSES, "online_contrastive_loss"} - {"triplet_loss[soft]"})
HARDLY_MEASURED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("four_each", {}),
    ("two", {}),
    ("two", {"distance": "sqeuclidean"}),
    ("two", {"distance": "dot"}),
    ("two", {"margin": 0.0}),
)


def _assert_near_the_truth(run, name, change, cases):
    for classes, options in cases:
        if options.get("distance", "euclidean") in OP[name].distances:
            sample = batch(name, 60, 9, classes, reduction="none", **options)
            rows = change(sample.tensors["embeddings"])
            assert_near_the_truth(name, sample.with_tensors(embeddings=rows), run)


@pytest.mark.parametrize("name", [*LOSSES, "online_contrastive_loss"])
@pytest.mark.parametrize("change", SHORT.values(), ids=SHORT)
def test_short_rows(run, name, change):
    """Of a long row beside them means of equal distances differ by rounding: not without margin."""
    soft = name == "triplet_loss[soft]"
    _assert_near_the_truth(run, name, change, HARDLY_MEASURED[:-1] if soft else HARDLY_MEASURED)


@pytest.mark.parametrize("name", WITHOUT_WEIGHTS)
@pytest.mark.parametrize("change", LONG.values(), ids=LONG)
def test_long_rows(run, name, change):
    """Float64 does not hold what soft weights make of such distances, floats not their squares."""
    squares = "contrastive" in name
    _assert_near_the_truth(run, name, change, HARDLY_MEASURED[: 2 if squares else None])


@pytest.mark.parametrize(
    "name",
    ["triplet_loss[all]", "triplet_loss[semihard_all]", "triplet_loss[semihard]"],
)
def test_positives_that_need_memory(run, name):
    """More than shared memory has room for."""
    assert_beside_float64(name, batch(name, 570, 3, "two"), run)


@pytest.mark.parametrize("name", WITHOUT_WEIGHTS)
def test_statistics_of_rows_that_floats_hardly_measure(module, name):  # noqa: F811
    for change in (SHORT["short"], SHORT["whose_squares_vanish"], LONG["one_long"]):
        sample = batch(name, 60, 9, "two")
        sample = sample.with_tensors(embeddings=change(sample.tensors["embeddings"]))
        with emulation.on_the_gpu(module):
            _, ours = OP[name].run(sample, return_stats=True)
        for field, expected in OP[name].truth(sample).stats.items():
            found = float(getattr(ours, field))
            assert found == pytest.approx(float(expected), rel=1e-6, abs=0, nan_ok=True), field


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
