# SPDX-License-Identifier: BSD-3-Clause
"""The semi-hard loss by tiles on a GPU, without one: the instructions of either main loop are
written out for the host (emulated_gpu/ptx.cuh, ptx_sm90.cuh). The gradient shows the choices: a
negative in another one's place moves rows by a whole slope."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

import emulation
from compare import assert_same_bits
from dense_beside_float64 import (
    CLASSES,
    assert_beside_float64,
    assert_near_the_truth,
    batch,
    with_nan,
    with_references,
)
from op_db import OP
from samples import class_batch
from test_emulated_gpu import main_loop, module  # noqa: F401  fixtures
from test_gradients import gradients

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
NAME = "triplet_loss[semihard]"


@pytest.fixture
def on_the_gpu(main_loop, monkeypatch):  # noqa: F811
    gpu, environment = main_loop
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    @contextmanager
    def on() -> Iterator[None]:
        before = gpu.counters()["cuda_tiles"]
        with emulation.on_the_gpu(gpu):
            yield
        assert gpu.counters()["cuda_tiles"] > before

    return on


@pytest.fixture
def run(on_the_gpu):
    def gradients_there(op, sample, cotangent):
        with on_the_gpu():
            return gradients(op, sample, cotangent)

    return gradients_there


@pytest.mark.parametrize(
    ("n", "dim"), [(1, 3), (2, 1), (63, 17), (129, 64), (257, 65), (300, 128), (130, 512)]
)
def test_sizes_around_every_edge(run, n, dim):
    assert_beside_float64(NAME, batch(NAME, n, dim), run)


@pytest.mark.parametrize("n", [448, 480])
def test_tiles_behind_the_rows(run, n):
    """Whose last columns no row has: few enough that a thread would keep them all."""
    assert_beside_float64(NAME, batch(NAME, n, 40, reduction="none"), run)


@pytest.mark.parametrize("classes", CLASSES)
def test_classes(run, classes):
    """Those that are too large go another way."""
    for options in ({"reduction": "none"}, {"invalid": "count"}):
        assert_beside_float64(NAME, batch(NAME, 70, 9, classes, **options), run)


@pytest.mark.parametrize("distance", ["euclidean", "cosine", "dot", "snr"])
def test_large_classes(run, distance):
    """They go on with what tiles have measured, and blocks have several tiles. Rows of distances
    relative to the query are not packed there."""
    options = {"distance": distance, "reduction": "none"}
    assert_beside_float64(NAME, batch(NAME, 260, 65, "two", **options), run)
    for n, n_ref in ((30, 270), (270, 30)):
        sample = with_references(batch(NAME, n, 5, "two", **options), n_ref)
        assert_beside_float64(NAME, sample, run)


def test_classes_of_all_sizes_up_to_the_largest(run):
    """Nine rows are eight positives; one more, and all go another way."""
    for sizes in ((1, 2, 5, 9, 9, 3, 8, 1, 7), (10, 2, 30)):
        labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
        sample = batch(NAME, len(labels), 20, labels=labels[order], reduction="none")
        assert_beside_float64(NAME, sample, run)


@pytest.mark.parametrize(
    "kind",
    ["random", "tight_classes", "duplicates", "integers", "offset", "outliers", "all_equal"],
)
def test_rows_made_to_mislead(run, kind):
    for distance in ("euclidean", "sqeuclidean", "cosine", "dot"):
        sample = batch(NAME, 140, 24, kind=kind, distance=distance)
        assert_beside_float64(NAME, sample, run)
    assert_beside_float64(NAME, batch(NAME, 140, 24, kind=kind, normalize=True), run)


@pytest.mark.parametrize(
    "kind", ["one_ulp_neighbours", "with_nan", "beyond_tiles", "keys_underflow", "all_zero"]
)
def test_rows_that_tiles_hardly_rank(run, kind):
    assert_beside_float64(NAME, batch(NAME, 60, 9, kind=kind, reduction="none"), run)


def test_anchors_that_tiles_cannot_rank(run):
    """Too long, or all too short: their positives are those of any other row."""
    sample = batch(NAME, 60, 9, reduction="none")
    rows = sample.tensors["embeddings"]
    one, other = (sample.options["labels"] == 0).nonzero()[:2, 0].tolist()
    long = rows.clone()
    long[one] *= 1e37
    long[other] = -long[one]
    assert_beside_float64(NAME, sample.with_tensors(embeddings=long), run)
    short = sample.with_tensors(embeddings=rows * 1e-33)
    assert_beside_float64(NAME, short, run)
    assert_beside_float64(NAME, with_references(short, 90), run)


@pytest.mark.parametrize("classes", ["four_each", "two"])
@pytest.mark.parametrize("distance", ["euclidean", "sqeuclidean", "dot"])
def test_rows_that_are_all_too_short(run, distance, classes):
    """Whatever the classes: floats are too coarse for half a square of theirs."""
    sample = batch(NAME, 60, 9, classes, distance=distance, reduction="none")
    short = sample.with_tensors(embeddings=sample.tensors["embeddings"] * 1e-33)
    assert_near_the_truth(NAME, short, run)


def test_anchors_without_a_number(on_the_gpu):
    sample = with_nan(batch(NAME, 60, 9, reduction="none"))
    with on_the_gpu():
        ours = OP[NAME].run(sample)
    torch.testing.assert_close(ours, OP[NAME].run(sample), equal_nan=True)


def test_more_anchors_by_keys_than_blocks(run):
    """One reference that tiles cannot rank leaves all anchors to the keys."""
    labels = torch.arange(540) // 4
    labels[7] = -1
    sample = batch(NAME, 540, 5, labels=labels, reduction="none")
    rows = sample.tensors["embeddings"].clone()
    rows[7] *= 1e37
    assert_beside_float64(NAME, sample.with_tensors(embeddings=rows), run)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(run, dtype):
    """Rows of bfloat16 need no second half, unless a centre moves them."""
    for kind in ("random", "offset_per_feature"):
        sample = batch(NAME, 130, 70, kind=kind, reduction="none")
        rows = sample.tensors["embeddings"].clamp(-6e4, 6e4).to(dtype)
        expected = gradients(OP[NAME], sample.with_tensors(embeddings=rows.float()))
        value, grads = run(OP[NAME], sample.with_tensors(embeddings=rows), None)
        torch.testing.assert_close(value, expected[0], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(
            grads["embeddings"].float(), expected[1]["embeddings"], rtol=2**-7, atol=1e-6
        )


def test_references(run):
    for n, n_ref in ((40, 300), (130, 40)):
        sample = with_references(batch(NAME, n, 9, reduction="none"), n_ref)
        assert_beside_float64(NAME, sample, run)
        # A query may also stand for a reference of another class, or for none.
        generator = torch.Generator().manual_seed(n)
        anyone = torch.randint(-1, n_ref, (n,), generator=generator)
        assert_beside_float64(NAME, sample.with_options(self_index=anyone), run)


def test_splits_that_tell_each_other(run):
    """Of many references in small classes, what they know of the windows in between."""
    n, n_ref = 60, 2500
    refs, _ = class_batch(n_ref, 7, 1, seed=1)
    sample = batch(NAME, n, 7, labels=10 * torch.arange(n), reduction="none")
    sample = sample.with_tensors(ref_embeddings=refs)
    sample = sample.with_options(ref_labels=torch.arange(n_ref) // 4)
    assert_beside_float64(NAME, sample, run)


@pytest.mark.parametrize("soft_margin", [False, True])
def test_options(run, soft_margin):
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(90, generator=generator) * (torch.arange(90) % 3 > 0)
    for options in (
        {"fallback": "drop", "weights": weights},
        {"invalid": "count", "reduction": "mean_active"},
        {"distance": "snr", "reduction": "none"},
        {"ignore_label": 3, "reduction": "sum"},
        {"margin": 2 * torch.rand(90, generator=generator)},
    ):
        sample = batch(NAME, 90, 7, soft_margin=soft_margin, **options)
        assert_beside_float64(NAME, sample, run)


def test_statistics(on_the_gpu):
    for options in ({}, {"fallback": "drop"}, {"margin": -0.2}, {"labels": torch.arange(90) // 12}):
        sample = batch(NAME, 90, 7, **options)
        _, expected = OP[NAME].run(sample, "reference", return_stats=True)
        with on_the_gpu():
            _, ours = OP[NAME].run(sample, return_stats=True)
        torch.testing.assert_close(tuple(ours), tuple(expected), rtol=1e-6, atol=0)


def test_equal_inputs_give_equal_bits(run):
    sample, cotangent = batch(NAME, 100, 9), torch.ones(())
    (value, grads), (again, more) = (run(OP[NAME], sample, cotangent) for _ in range(2))
    assert_same_bits(value, again)
    assert_same_bits(grads["embeddings"], more["embeddings"])


def test_products_that_are_too_far_off_are_noticed(run, main_loop):  # noqa: F811
    """By the gradient of some choices: the bound is what makes them those of the keys."""
    sample = batch(NAME, 130, 64, reduction="none")
    gpu, _ = main_loop
    gpu.set_product_error(2.0**-7)
    try:
        with pytest.raises(AssertionError):
            assert_beside_float64(NAME, sample, run)
    finally:
        gpu.set_product_error(0)
    assert_beside_float64(NAME, sample, run)
