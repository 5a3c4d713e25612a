# SPDX-License-Identifier: BSD-3-Clause
"""Memory: nothing of size B x B is ever allocated, and nothing is kept."""

from __future__ import annotations

import gc
import textwrap

import pytest
import torch

from fresh_python import run_python
from op_db import OP
from samples import class_batch

# Peak resident set since start, of a process that has done everything once at a small size.
_PRELUDE = """
import sys, torch
from flashmetric.functional import mine_triplets, triplet_loss, triplet_margin_loss
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
def batch(n, dim):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(n, dim, generator=generator).requires_grad_()
    return rows, torch.arange(n) % (n // 4)
"""


def _growth(script: str) -> int:
    return int(run_python(_PRELUDE + textwrap.dedent(script)))


def _budget(n: int, dim: int) -> int:
    """What the library promises for forward and backward, in bytes."""
    return 8 * n * dim * 4 + 64 * 2**20


@pytest.mark.parametrize("relation", ["labels", "references"])
def test_peak_memory_of_forward_and_backward(relation):
    n, dim = 16384, 16
    growth = _growth(
        f"""
        def step(n):
            rows, labels = batch(n, {dim})
            refs = {{}} if {relation == "labels"} else dict(
                ref_embeddings=rows.detach().flip(0), ref_labels=labels.flip(0))
            triplet_loss(rows, labels, **refs).backward()
            mine_triplets(rows, labels, **refs)
        step(256)
        start = peak()
        step({n})
        print(peak() - start)
        """
    )
    assert growth < _budget(n, dim)
    assert _budget(n, dim) < n * n * 4 / 8, "the budget must tell O(B) from O(B^2)"


def test_peak_memory_of_multi_hot_labels():
    n, dim = 16384, 16
    growth = _growth(
        f"""
        def step(n):
            rows, labels = batch(n, {dim})
            hot = torch.nn.functional.one_hot(labels % 40)
            hot = (hot + hot.roll(1, 1)).bool()
            triplet_loss(rows, hot).backward()
        step(256)
        start = peak()
        step({n})
        print(peak() - start)
        """
    )
    # The labels themselves: 40 int64 twice and their sum, then bool, then uint8.
    assert growth < _budget(n, dim) + 4 * 40 * 8 * n


@pytest.mark.slow
def test_peak_memory_at_65536_rows():
    n, dim = 65536, 128
    growth = _growth(
        f"""
        def step(n):
            rows, labels = batch(n, {dim})
            triplet_loss(rows, labels).backward()
        step(256)
        start = peak()
        step({n})
        print(peak() - start)
        """
    )
    # The rows and their gradient belong to the caller.
    assert growth < _budget(n, dim) + 2 * n * dim * 4


def test_nothing_is_kept():
    """The resident set of many steps grows by less than a quarter of what they put out."""
    growth = _growth(
        """
        def step():
            rows, labels = batch(256, 64)
            triplet_loss(rows, labels, reduction="none").sum().backward()
            triplet_margin_loss(rows, rows.flip(0), rows.roll(1, 0)).backward()
        torch.set_num_threads(1)
        for _ in range(50):
            step()
        start = peak()
        for _ in range(300):
            step()
        print(peak() - start)
        """
    )
    assert growth < 300 * 256 * 64 * 4 / 4


def test_the_graph_frees_what_it_holds():
    """No cycle keeps the embeddings alive after backward: reference counts alone free them."""
    import weakref

    rows, labels = class_batch(32, 8, 8)
    gc.collect()
    gc.disable()
    try:
        for reduction in ("mean", "none"):
            leaf = rows.clone().requires_grad_()
            loss = OP["triplet_loss"].function(leaf, labels, reduction=reduction)
            loss.sum().backward()
            watch = weakref.ref(leaf)
            del loss, leaf
            assert watch() is None, reduction
    finally:
        gc.enable()


def test_an_input_changed_after_the_forward_is_noticed():
    """As everywhere in torch: rows needed for backward must not be modified in place."""
    rows, labels = class_batch(16, 4, 4)
    leaf = rows.requires_grad_()
    hidden = leaf * 1.0
    loss = OP["triplet_loss"].function(hidden, labels, reduction="none")
    with torch.no_grad():
        hidden.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.sum().backward()
