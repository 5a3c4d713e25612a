# SPDX-License-Identifier: BSD-3-Clause
"""Contrastive losses whose pairs tiles mark, on a GPU, beside the CPU kernels in float64."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from compare import assert_no_worse_than, exact
from dense_beside_float64 import CLASSES, assert_beside_float64, batch, with_references
from device import DEVICE, GPU
from flashmetric import _C, contrastive_loss
from test_gpu_dense import run_twice

pytestmark = [*GPU, pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")]
NAME, ONLINE = "contrastive_loss", "online_contrastive_loss"
KINDS = ("tight_classes", "duplicates", "integers", "offset", "outliers", "one_huge_row")


@contextmanager
def _by_tiles():
    before = _C.counters()["cuda_tiles"]
    yield
    assert _C.counters()["cuda_tiles"] > before or DEVICE.type != "cuda"


def _run(op, sample, cotangent):
    with _by_tiles():
        return run_twice(op, sample, cotangent)


def _near_margin(n, dim, part, classes="four_each", **options):
    """A batch that this part of its pairs is within the margin of, by a sample of them."""
    sample = batch(NAME, n, dim, classes, **options)
    margin = float(torch.pdist(sample.tensors["embeddings"][:600]).quantile(part))
    return sample.with_options(margin=margin)


@pytest.mark.parametrize("part", [0.02, 0.5, 1.0])
@pytest.mark.parametrize(("n", "dim"), [(513, 129), (1000, 512), (3100, 20)])
def test_parts_of_the_pairs(n, dim, part):
    assert_beside_float64(NAME, _near_margin(n, dim, part, reduction="mean_active"), _run)


def test_more_rows_than_a_window_has():
    assert_beside_float64(NAME, _near_margin(17000, 8, 0.005, reduction="mean_active"), _run)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("reduction", ["none", "mean", "mean_active"])
def test_classes(classes, reduction):
    options = {"pos_margin": 0.4, "reduction": reduction}
    assert_beside_float64(NAME, _near_margin(700, 40, 0.1, classes, **options), _run)


@pytest.mark.sanitize
@pytest.mark.parametrize("distance", ["euclidean", "sqeuclidean", "cosine"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_made_to_mislead(kind, distance):
    options = {"kind": kind, "distance": distance, "reduction": "mean_active"}
    assert_beside_float64(NAME, batch(NAME, 520, 19, **options), _run)


@pytest.mark.parametrize("classes", ["four_each", "two"])
def test_online(classes):
    assert_beside_float64(ONLINE, batch(ONLINE, 700, 24, classes), _run)


@pytest.mark.parametrize(("n", "n_ref"), [(1000, 333), (300, 4100)])
def test_references_without_a_gradient(n, n_ref):
    sample = with_references(_near_margin(n, 24, 0.1, reduction="mean_active"), n_ref)

    def run_of(device, dtype):
        moved = sample.to(device)
        rows = moved.tensors["embeddings"].to(dtype).requires_grad_()
        refs = moved.tensors["ref_embeddings"].to(dtype)
        value = contrastive_loss(rows, ref_embeddings=refs, **moved.options)
        (grad,) = torch.autograd.grad(value, rows)
        return value.detach().cpu(), grad.cpu()

    with _by_tiles():
        ours = run_of(DEVICE, torch.float32)
    truth, plain = run_of("cpu", torch.float64), run_of("cpu", torch.float32)
    for one, baseline, exactly in zip(ours, plain, truth, strict=True):
        assert_no_worse_than(one, baseline=baseline, truth=exact(exactly))
