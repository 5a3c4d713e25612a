# SPDX-License-Identifier: BSD-3-Clause
"""Kernels of a GPU write to as much scratch memory as they ask for, and no byte beyond; and they do
not ask for much."""

from __future__ import annotations

import pytest
import torch

import emulation
from flashmetric import contrastive_loss, triplet_loss
from flashmetric._ops import cuda
from samples import class_batch
from test_emulated_gpu import main_loop, module  # noqa: F401  fixtures

_BEYOND = 2**20  # bytes
_UNTOUCHED = 0xAB


def _run(kernel, _, arguments):
    needed = kernel(0, 0, arguments, None)
    memory = torch.full((needed + _BEYOND,), _UNTOUCHED, dtype=torch.uint8)
    kernel(0, 0, arguments, memory[:needed])
    assert (memory[needed:] == _UNTOUCHED).all(), f"{kernel.__name__} writes beyond its workspace"


def _loss(name, *args, **options):
    if name == "contrastive":
        return contrastive_loss(*args, margin=3.0, **options)
    return triplet_loss(*args, mining=name, **options)


@pytest.mark.parametrize("references", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("name", ["hard", "semihard", "all", "contrastive"])
def test_losses_stay_in_their_workspace(main_loop, monkeypatch, name, reduction, references):  # noqa: F811
    """Of 300 rows, of which one is the negative of many."""
    gpu, environment = main_loop
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    rows, labels = class_batch(300, 16, 75, seed=1)
    rows[7] = 0
    rows.requires_grad_()
    options = {}
    if references:
        refs, ref_labels = class_batch(200, 16, 75, seed=2)
        options = {"ref_embeddings": refs.requires_grad_(), "ref_labels": ref_labels}
    with emulation.on_the_gpu(gpu) as patch:
        patch.setattr(cuda, "_run", _run)
        loss = _loss(name, rows, labels, reduction=reduction, **options)
        loss.sum().backward()
    assert rows.grad.isfinite().all()


@pytest.mark.parametrize("name", ["hard", "semihard", "all", "contrastive"])
@pytest.mark.parametrize("main_loop", emulation.GPUS)
def test_a_large_batch_needs_little(module, monkeypatch, tmp_path, main_loop, name):  # noqa: F811
    """On an H200. The bound is that of test_gpu_dense, less gradients and copies of them."""
    h200 = {"EMULATED_CACHE_BYTES": str(50 * 2**20), "EMULATED_MULTIPROCESSORS": "132"}
    for key, value in (emulation.GPUS[main_loop] | h200).items():
        monkeypatch.setenv(key, value)
    another_gpu = emulation.copied(module, tmp_path)
    needed = []

    def only_ask(kernel, _, arguments):
        needed.append(kernel(0, 0, arguments, None))

    n, dim = 16384, 128
    rows, _ = class_batch(n, dim, 1, seed=1)
    with emulation.on_the_gpu(another_gpu) as patch:
        patch.setattr(cuda, "_run", only_ask)
        _loss(name, rows.requires_grad_(), torch.arange(n) % 2)
    assert 0 < max(needed) <= 2**27 + (16 - 4) * n * dim * 4
