# SPDX-License-Identifier: BSD-3-Clause
"""Losses over all triplets or pairs on a GPU, beside the CPU kernels in float64."""

from __future__ import annotations

import pytest
import torch

from compare import assert_same_bits
from dense_beside_float64 import (
    CLASSES,
    LOSSES,
    MARGINS,
    assert_beside_float64,
    batch,
    with_references,
)
from device import DEVICE, GPU, has_kernels, no_waiting, on_cuda
from flashmetric import _C
from keys_data import hard_rows
from op_db import OP
from samples import Sample
from test_gradients import gradients

pytestmark = [*GPU, pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")]
FUSED = [name for name in LOSSES if has_kernels(OP[name])]


def run_twice(op, sample, cotangent):
    """Twice: equal inputs give equal bits."""
    here = sample.to(DEVICE)
    value, grads = gradients(op, here, cotangent.to(DEVICE))
    again, more = gradients(op, here, cotangent.to(DEVICE))
    assert_same_bits(value, again, what=f"value of {sample.name} again")
    for name, grad in grads.items():
        assert_same_bits(grad, more[name], what=f"gradient of {sample.name} again")
    return value.cpu(), {name: grad.cpu() for name, grad in grads.items()}


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("dim", [1, 15, 64, 129])
@pytest.mark.parametrize("n", [1, 3, 64, 129, 257, 1000])
def test_sizes(name, n, dim):
    assert_beside_float64(name, batch(name, n, dim), run_twice)


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("n", [3100, 6000])
def test_several_chunks(name, n):
    """6000 x 6000 numbers are more than a chunk holds, be they float or double."""
    assert_beside_float64(name, batch(name, n, 20), run_twice)


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("classes", CLASSES)
def test_classes(name, classes):
    for n in (60, 1100):  # lists of positives in shared memory and elsewhere
        for reduction in ("none", "mean"):
            sample = batch(name, n, 24, classes, reduction=reduction)
            assert_beside_float64(name, sample, run_twice)


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize(("n", "n_ref"), [(1, 513), (1000, 333), (300, 4100)])
def test_references(name, n, n_ref):
    for classes in ("four_each", "two"):
        sample = with_references(batch(name, n, 24, classes, reduction="none"), n_ref)
        assert_beside_float64(name, sample, run_twice)


@pytest.mark.sanitize
@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize(
    "kind",
    ["tight_classes", "duplicates", "integers", "offset", "outliers", "one_huge_row", "with_nan"],
)
def test_rows_made_to_mislead(name, kind):
    for distance in MARGINS:
        if distance in OP[name].distances or distance == "manhattan":
            sample = batch(name, 150, 19, "two", kind=kind, distance=distance, reduction="none")
            assert_beside_float64(name, sample, run_twice)


@on_cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["random", "duplicates", "offset_per_feature", "few_rows"])
def test_semihard_by_tiles(kind, dtype):
    """Classes of up to nine rows; the CPU takes the same rows as float32."""
    n = 3000
    generator = torch.Generator().manual_seed(4)
    sizes = torch.randint(1, 10, (n,), generator=generator)
    labels = torch.repeat_interleave(torch.arange(n), sizes)[:n]
    labels = labels[torch.randperm(n, generator=generator)]
    rows, _ = hard_rows(kind, n, 130, 5, torch.float32)
    rows = rows.clamp(-6e4, 6e4).to(dtype)
    op = OP["triplet_loss[semihard]"]
    for distance in ("euclidean", "cosine"):
        options = {"labels": labels, "mining": "semihard", "distance": distance, "margin": 0.2}
        sample = Sample(kind, {"embeddings": rows}, options | {"reduction": "none"})
        cotangent = torch.ones(n)
        expected = gradients(op, sample.with_tensors(embeddings=rows.float()), cotangent)
        before = _C.counters()["cuda_tiles"]
        value, grads = run_twice(op, sample, cotangent)
        assert _C.counters()["cuda_tiles"] > before
        torch.testing.assert_close(value, expected[0], rtol=1e-5, atol=1e-5)
        found, known = grads["embeddings"].float(), expected[1]["embeddings"]
        torch.testing.assert_close(found, known, rtol=2**-7, atol=1e-5)


@on_cuda
def test_semihard_of_large_classes_among_small_ones():
    """Ten rows are one too many for tiles."""
    for largest in (9, 10, 700):
        labels = torch.cat((torch.zeros(largest, dtype=torch.int64), 1 + torch.arange(2000) // 3))
        sample = batch("triplet_loss[semihard]", len(labels), 64, labels=labels)
        assert_beside_float64("triplet_loss[semihard]", sample, run_twice)


@on_cuda
@pytest.mark.parametrize("name", FUSED)
def test_peak_memory(name):
    """The matrix of distances would take 1 GiB in float, 2 in double."""
    n, dim = 16384, 128
    sample, cotangent = batch(name, n, dim, "two").to(DEVICE), torch.ones((), device=DEVICE)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    gradients(OP[name], sample, cotangent)
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - before <= 2**27 + 16 * n * dim * 4


@on_cuda
@pytest.mark.parametrize("name", FUSED)
def test_a_forward_and_backward_never_wait(name):
    for n, classes in ((500, "two"), (600, "two"), (600, "four_each")):
        sample = batch(name, n, 32, classes).to(DEVICE)
        cotangent = torch.ones((), device=DEVICE)
        gradients(OP[name], sample, cotangent)
        with no_waiting():
            gradients(OP[name], sample, cotangent)
