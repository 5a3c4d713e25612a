# SPDX-License-Identifier: BSD-3-Clause
"""Losses over all pairs whose tiles mark what may have a term, on a GPU, without one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import emulation
from compare import assert_no_worse_than, exact
from dense_beside_float64 import (
    CLASSES,
    MARGINS,
    assert_beside_float64,
    batch,
    with_nan,
    with_references,
)
from flashmetric import contrastive_loss, online_contrastive_loss
from op_db import OP
from test_emulated_gpu import main_loop, module  # noqa: F401  fixtures
from test_emulated_semihard import on_the_gpu, run  # noqa: F401  fixtures
from test_gradients import gradients

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
NAME = "contrastive_loss"
ONLINE = "online_contrastive_loss"
REDUCTIONS = ("none", "mean", "sum", "mean_active", "mean_pairs")


def near_margin(n: int, dim: int, part: float, classes: str = "four_each", **options):
    """A batch that this part of its pairs is within the margin of."""
    sample = batch(NAME, n, dim, classes, **options)
    rows = sample.tensors["embeddings"]
    margin = float(torch.pdist(rows).quantile(part))
    return sample.with_options(margin=margin)


@pytest.mark.parametrize(
    ("n", "dim"), [(1, 3), (2, 1), (63, 17), (129, 64), (257, 130), (130, 260), (70, 512)]
)
def test_sizes_around_every_edge(run, n, dim):  # noqa: F811
    assert_beside_float64(NAME, batch(NAME, n, dim), run)


@pytest.mark.parametrize("part", [0.02, 0.5, 1.0])
def test_parts_of_the_pairs(run, part):  # noqa: F811
    """In several launches, each of some queries; groups of pairs are full, or not."""
    assert_beside_float64(NAME, near_margin(600, 40, part, reduction="mean_active"), run)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_classes_and_reductions(run, classes, reduction):  # noqa: F811
    options = {"pos_margin": 0.4, "reduction": reduction}
    assert_beside_float64(NAME, near_margin(70, 9, 0.4, classes, **options), run)


@pytest.mark.parametrize("distance", ["euclidean", "sqeuclidean", "cosine"])
@pytest.mark.parametrize("normalize", [False, True])
def test_distances(run, distance, normalize):  # noqa: F811
    for power in (1, 2):
        options = {"distance": distance, "normalize": normalize, "power": power}
        sample = batch(NAME, 90, 20, reduction="mean_active", **options)
        assert_beside_float64(NAME, sample, run)
        assert_beside_float64(NAME, sample.with_options(margin=0.5 * MARGINS[distance]), run)


@pytest.mark.parametrize(
    "kind",
    [
        *("random", "tight_classes", "duplicates", "integers", "offset", "outliers", "all_equal"),
        *("some_zero", "keys_underflow", "one_huge_row"),
    ],
)
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_rows_that_are_hard_to_judge(run, kind, distance):  # noqa: F811
    options = {"kind": kind, "distance": distance, "reduction": "mean_active"}
    assert_beside_float64(NAME, batch(NAME, 140, 24, **options), run)


def test_rows_that_hardly_have_a_direction(run):  # noqa: F811
    """Shorter than what normalising divides by at least."""
    sample = batch(NAME, 80, 24, distance="cosine", reduction="mean_active")
    rows = sample.tensors["embeddings"].clone()
    rows[::3] *= 1e-14
    assert_beside_float64(NAME, sample.with_tensors(embeddings=rows), run)


@pytest.mark.parametrize("power", [1, 2])
def test_positives_that_cosine_hardly_tells_apart(on_the_gpu, power):  # noqa: F811
    """To 2^-14 of their terms, whose distances are 1e-5."""
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(20, 24, generator=generator).repeat_interleave(4, 0)
    rows = centres + 3e-3 * torch.randn(80, 24, generator=generator)
    options = {"labels": torch.arange(80) // 4, "distance": "cosine", "margin": 0.0}
    rows.requires_grad_()
    truth = contrastive_loss(rows.detach().double(), power=power, **options)
    with on_the_gpu():
        ours = contrastive_loss(rows, power=power, **options)
    torch.testing.assert_close(ours.double(), truth, rtol=2.0**-14, atol=0)


@pytest.mark.parametrize("margin", [-1.0, 0.0, 1e30])
def test_margins_that_none_or_all_are_within(run, margin):  # noqa: F811
    sample = batch(NAME, 80, 12, reduction="none").with_options(margin=margin)
    assert_beside_float64(NAME, sample, run)


@pytest.mark.parametrize(
    ("dim", "options"),
    [
        (9, {"weights": torch.arange(70) / 70}),
        (9, {"return_stats": True}),
        (9, {"ignore_label": 3}),
        (600, {}),
    ],
)
def test_what_tiles_do_not_mark(main_loop, monkeypatch, dim, options):  # noqa: F811
    gpu, environment = main_loop
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    sample = batch(NAME, 70, dim)
    before = gpu.counters()["cuda_tiles"]
    with emulation.on_the_gpu(gpu):
        contrastive_loss(sample.tensors["embeddings"], **(sample.options | options))
    assert gpu.counters()["cuda_tiles"] == before


@pytest.mark.parametrize("count", [1, 31, 33])
def test_rows_that_tiles_cannot_rank(run, count):  # noqa: F811
    """Few are marked for everybody; more, and everybody is judged."""
    sample = near_margin(90, 8, 0.1, reduction="none")
    rows = sample.tensors["embeddings"].clone()
    rows[:count] *= 1e37
    assert_beside_float64(NAME, sample.with_tensors(embeddings=rows), run)


def test_rows_without_a_number(on_the_gpu):  # noqa: F811
    sample = with_nan(near_margin(90, 8, 0.1, reduction="none"))
    with on_the_gpu():
        ours = OP[NAME].run(sample)
    torch.testing.assert_close(ours, OP[NAME].run(sample), equal_nan=True)


@pytest.mark.parametrize("classes", ["four_each", "two", "all_distinct"])
def test_online(run, classes):  # noqa: F811
    assert_beside_float64(ONLINE, batch(ONLINE, 120, 12, classes), run)


def test_online_with_references_without_a_gradient(on_the_gpu):  # noqa: F811
    sample = with_references(batch(ONLINE, 90, 12), 150)
    rows = sample.tensors["embeddings"]
    options = sample.options | {"ref_embeddings": sample.tensors["ref_embeddings"]}
    truth = online_contrastive_loss(rows, **options)
    with on_the_gpu():
        ours = online_contrastive_loss(rows, **options)
    torch.testing.assert_close(ours, truth)


@pytest.mark.parametrize(("n", "n_ref"), [(90, 200), (300, 70)])
def test_references_without_a_gradient(on_the_gpu, n, n_ref):  # noqa: F811
    """Some of which are the query itself. On a CPU they are proven with a gradient."""
    sample = with_references(near_margin(n, 20, 0.1, reduction="mean_active"), n_ref)
    refs = sample.tensors["ref_embeddings"]

    def run_of(rows):
        rows = rows.clone().requires_grad_()
        options = sample.options | {"ref_embeddings": refs.to(rows.dtype)}
        value = contrastive_loss(rows, **options)
        (grad,) = torch.autograd.grad(value, rows)
        return value.detach(), grad

    rows = sample.tensors["embeddings"]
    truth, plain = run_of(rows.double()), run_of(rows)
    with on_the_gpu():
        ours = run_of(rows)
    for one, baseline, exactly in zip(ours, plain, truth, strict=True):
        assert_no_worse_than(one, baseline=baseline, truth=exact(exactly))


@pytest.fixture(scope="module")
def with_small_windows(module, tmp_path_factory):  # noqa: F811
    """A GPU whose warps enter 64 rows at a time."""
    built = Path(module.__file__).parent
    text = (built / "marked_columns.cuh").read_text()
    window = re.compile(r"constexpr int kWindow = \d+;")
    assert window.search(text)
    text = window.sub("constexpr int kWindow = 64;", text)
    folder = tmp_path_factory.mktemp("windows")
    return emulation.rebuilt(folder, built, "marked", "marked_columns.cuh", text)


def test_more_rows_than_a_window_has(with_small_windows, monkeypatch):
    for name, value in emulation.GPUS["mma"].items():
        monkeypatch.setenv(name, value)

    def run_there(op, sample, cotangent):
        with emulation.on_the_gpu(with_small_windows):
            return gradients(op, sample, cotangent)

    for classes in ("four_each", "two"):
        sample = near_margin(200, 20, 0.1, classes, reduction="mean_active")
        assert_beside_float64(NAME, sample, run_there)
    assert with_small_windows.counters()["cuda_tiles"] > 0
