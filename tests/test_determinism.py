# SPDX-License-Identifier: BSD-3-Clause
"""Equal inputs give equal bits: on every run and for every number of threads."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from compare import assert_same_bits
from flashmetric import _C
from flashmetric._ops import cpu
from keys_data import hard_rows
from op_db import FUSED, OP, cases
from samples import Sample, class_batch
from test_gradients import gradients
from truths_rules import SETS

THREADS = (1, 2, 3, 4)


def _everything(op, sample):
    """All numbers an op can give for a sample."""
    if not op.differentiable:
        return dict(zip(("anchor", "positive", "negative"), op.run(sample), strict=True))
    value, grads = gradients(op, sample)
    results = {"value": value} | grads
    if op.stats:
        results |= op.run(sample, return_stats=True)[1]._asdict()
    return results


def _assert_equal_results(op, sample, expected):
    for name, value in _everything(op, sample).items():
        assert_same_bits(value, expected[name], what=f"{op.name} {name}")


@pytest.mark.parametrize(("op", "row"), cases())
def test_every_row_for_every_thread_count(op, row):
    sample = op.sample({**row, "shape": "97x24"}, torch.float32)
    torch.set_num_threads(1)
    expected = _everything(op, sample)
    for threads in THREADS:
        torch.set_num_threads(threads)
        _assert_equal_results(op, sample, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("op", "distance"),
    [
        pytest.param(op, distance, id=f"{op.name}-{distance}")
        for op in FUSED
        for distance in op.distances
    ],
)
def test_many_blocks_for_every_thread_count(op, distance, dtype):
    """Enough blocks that threads really share the work, with rows that are chosen many times."""
    every_triplet = op.options.get("mining") in SETS
    rows, labels = class_batch(1100, 21, 550 if every_triplet else 40, dtype=dtype)
    rows[::50] = rows[0]
    options = {"distance": distance} | op.options
    if op.name == "pairwise_distances":
        tensors = {"x": rows[:700], "y": rows[700:]}
    else:
        tensors = {"embeddings": rows}
        generator = torch.Generator().manual_seed(2)
        given = {role: torch.randint(0, 60, (5000,), generator=generator) for role in op.roles}
        options |= given or {"labels": labels}
    sample = Sample(op.name, tensors, options)
    torch.set_num_threads(1)
    expected = _everything(op, sample)
    for threads in THREADS[1:]:
        torch.set_num_threads(threads)
        _assert_equal_results(op, sample, expected)


# What torch does on a GPU in the order in which threads arrive (use_deterministic_algorithms).
IN_ANY_ORDER = {
    *("index_add", "scatter_add", "scatter_reduce", "index_reduce", "put", "cumsum", "histc"),
    *("bincount", "embedding_dense_backward"),
}


class _Called(TorchDispatchMode):
    """The names of the operators of torch."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__.rstrip("_"))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("op", "row"), [case for case in cases() if "paired" in case.values[0].kernels.dispatched]
)
def test_no_sum_is_left_to_the_order_of_threads_of_a_gpu(op, row):
    """Of losses that torch adds up, out of distances that kernels measured."""
    sample = op.sample(row, torch.float64)
    with _Called() as called:
        _everything(op, sample)
    assert not called.names & IN_ANY_ORDER


@pytest.mark.parametrize("filling", [0, 0x7F, 0xFF])
@pytest.mark.parametrize("op", FUSED, ids=lambda op: op.name)
def test_what_scratch_memory_holds_does_not_matter(op, filling):
    """It is reused from call to call: zeros, NaN or anything else may be in it."""
    for row in op.rows:
        sample = op.sample({**row, "shape": "97x24"}, torch.float32)
        expected = _everything(op, sample)
        cpu._kept.scratch.fill_(filling)
        _assert_equal_results(op, sample, expected)


@pytest.mark.parametrize("kind", ["random", "integers", "duplicates", "tight_classes", "offset"])
def test_choices_are_the_same_bits_on_every_isa(kind):
    rows, labels = hard_rows(kind, 333, 37, 31, torch.float32)
    results = []
    for name, supported in _C.isas():
        if supported:
            _C.force_isa(name)
            results.append(OP["mine_triplets"].function(rows, labels))
    for result in results[1:]:
        for one, other in zip(results[0], result, strict=True):
            assert_same_bits(one, other)
