# SPDX-License-Identifier: BSD-3-Clause
"""Streams, graphs, synchronisation and memory of CUDA."""

from __future__ import annotations

import time

import pytest
import torch

from compare import assert_same_bits
from device import DEVICE, GPU, no_waiting, on_cuda, rows_of_ops
from flashmetric.functional import mine_triplets, triplet_loss, triplet_margin_loss
from op_db import DTYPES
from samples import class_batch, cotangent_for

pytestmark = [*GPU, on_cuda]


def _waits(op, row):
    """For how long a list is, or for who has two rows that are left out by their place."""
    two_places = row.get("labels") == "multi_hot" and row.get("refs") == "self"
    return not op.kernels.static or (op.name == "quadruplet_loss" and two_places)


LOSSES = [
    case
    for case in rows_of_ops(differentiable=True, dtypes=(torch.float32,))
    if not _waits(*case.values[:2])
]
OPTIONS = [
    {},
    {"reduction": "none"},
    {"distance": "cosine", "soft_margin": True},
    {"normalize": True, "reduction": "mean_active", "invalid": "count"},
]
SPIN = 100_000_000  # cycles: about 50 ms, in which the host runs ahead


def _batch(seed: int, n: int = 300, dtype=torch.float32, n_classes: int = 70):
    rows, labels = class_batch(n, 96, n_classes, seed=seed, dtype=dtype)
    return rows.to(DEVICE), labels.to(DEVICE)


def _step(rows, labels, cotangent=None, **options):
    """(loss, gradient): leaves the graph of the caller alone."""
    leaf = rows.detach().requires_grad_()
    value = triplet_loss(leaf, labels, impl="fused", **options)
    if cotangent is None:
        cotangent = cotangent_for(value)
    return value.detach(), torch.autograd.grad(value, leaf, cotangent)[0]


def _assert_same(ours, expected, what):
    for one, other in zip(ours, expected, strict=True):
        assert_same_bits(one, other, what=what)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_work_goes_to_the_current_stream(options):
    """The rows are written there, late: elsewhere the kernels would read zeros."""
    rows, labels = _batch(0)
    expected = _step(rows, labels, **options)
    cotangent = cotangent_for(expected[0])
    late, stream = torch.zeros_like(rows), torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(SPIN)
        late.copy_(rows)
        ours = _step(late, labels, cotangent, **options)
        triplets = mine_triplets(late, labels, impl="fused")
    stream.synchronize()
    _assert_same(ours, expected, "another stream")
    _assert_same(triplets, mine_triplets(rows, labels, impl="fused"), "mined on another stream")


def test_streams_at_once():
    """Scratch memory of one is not that of another."""
    batches = [_batch(seed, 2000) for seed in range(4)]
    expected = [_step(*batch) for batch in batches]
    streams, cotangent = [torch.cuda.Stream() for _ in batches], cotangent_for(expected[0][0])
    torch.cuda.synchronize()
    for _ in range(5):
        results = []
        for stream, batch in zip(streams, batches, strict=True):
            with torch.cuda.stream(stream):
                results.append(_step(*batch, cotangent))
        torch.cuda.synchronize()
        for ours, alone in zip(results, expected, strict=True):
            _assert_same(ours, alone, "streams at once")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_graph_replays_on_new_rows_and_labels(options, dtype):
    rows, labels = _batch(0, dtype=dtype)
    cotangent = cotangent_for(_step(rows, labels, **options)[0])
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        _step(rows, labels, cotangent, **options)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = _step(rows, labels, cotangent, **options)
    for seed, n_classes in ((1, 70), (2, 2), (3, 1), (4, 300), (5, 70)):
        others, other_labels = _batch(seed, dtype=dtype, n_classes=n_classes)
        if seed == 5:
            others[:] = others[:1].clone()
        rows.copy_(others)
        labels.copy_(other_labels)
        for _ in range(2):
            graph.replay()
            expected = _step(others, other_labels, cotangent, **options)
            _assert_same(recorded, expected, f"replay {seed}")


def test_a_graph_of_given_triplets():
    rows, _ = _batch(0)
    generator = torch.Generator().manual_seed(0)
    index = [torch.randint(0, 300, (500,), generator=generator).to(DEVICE) for _ in range(3)]

    def step():
        leaf = rows.detach().requires_grad_()
        value = triplet_margin_loss(*index, embeddings=leaf, swap=True, impl="fused")
        return value.detach(), *torch.autograd.grad(value, leaf)

    step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = step()
    rows.copy_(_batch(1)[0])
    for each in index:
        each.copy_(each.flip(0))
    graph.replay()
    _assert_same(recorded, step(), "replay")


@pytest.mark.parametrize(("op", "row", "dtype"), LOSSES)
def test_the_host_waits_for_nothing(op, row, dtype):
    sample = op.sample(row, dtype).to(DEVICE).requiring_grad()
    leaves = list(sample.tensors.values())
    value = op.run(sample)
    cotangent = cotangent_for(value)
    torch.autograd.grad(value, leaves, cotangent)
    with no_waiting():
        value, _ = op.run(sample, return_stats=True) if op.stats else (op.run(sample), None)
        torch.autograd.grad(value, leaves, cotangent)


def test_the_host_runs_ahead():
    """Unlike the debug mode, this notices a wait inside the kernels' launch as well."""
    rows, labels = _batch(0)
    cotangent = cotangent_for(_step(rows, labels)[0])
    _step(rows, labels, cotangent)
    torch.cuda.synchronize()
    torch.cuda._sleep(10 * SPIN)
    done = torch.cuda.Event()
    done.record()
    _step(rows, labels, cotangent)
    assert not done.query(), "the loss has waited for the work before it"
    torch.cuda.synchronize()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n_classes", [1, 2, 4096])
@pytest.mark.parametrize("n_ref", [None, 16384])
@pytest.mark.parametrize("collapsed", [False, True])
def test_peak_memory(dtype, n_classes, n_ref, collapsed):
    """The matrix of distances would take 1 GiB."""
    n, dim = 16384, 128
    rows, labels = (each.to(DEVICE) for each in class_batch(n, dim, n_classes, dtype=dtype))
    if collapsed:
        rows[:] = rows[:1].clone()
    refs = {} if n_ref is None else {"ref_embeddings": rows.flip(0), "ref_labels": labels.flip(0)}
    for reduction in ("mean", "none"):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        _step(rows, labels, None, reduction=reduction, **refs)
        torch.cuda.synchronize()
        extra = torch.cuda.max_memory_allocated() - before
        assert extra <= 2**26 + 16 * n * dim * rows.element_size()
    assert _comes_back_to(before), "something is kept"


def _comes_back_to(allocated: int) -> bool:
    """Autograd's thread of the device holds the inputs of the node it ran last until after it has
    woken who waits for the gradient, and drops the last reference only when it gets the GIL: a
    gradient that we are done with may outlive us by a moment. What a cycle keeps stays here."""
    deadline = time.monotonic() + 5
    while torch.cuda.memory_allocated() > allocated and time.monotonic() < deadline:
        time.sleep(1e-3)
    return torch.cuda.memory_allocated() <= allocated


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two devices")
def test_the_second_device():
    """Its own stream and its own kernels, whatever the current device is."""
    rows, labels = _batch(0)
    ours = _step(rows.to("cuda:1"), labels.to("cuda:1"))
    assert ours[0].device == ours[1].device == torch.device("cuda", 1)
    assert torch.cuda.current_device() == 0
    _assert_same(ours, _step(rows, labels), "the second device")


@pytest.mark.parametrize("wrong", [700, 10**9])
def test_an_index_that_no_row_has_names_nobody(wrong):
    """Values on a GPU are not checked: kernels must not follow them out of memory."""
    rows, labels = _batch(1, 700)
    refs = {"ref_embeddings": rows, "ref_labels": labels, "impl": "fused"}
    nobody = torch.full((700,), -1, device=DEVICE)
    far = torch.full_like(nobody, wrong)
    ours = triplet_loss(rows, labels, self_index=far, **refs)
    assert_same_bits(ours, triplet_loss(rows, labels, self_index=nobody, **refs))
    index = torch.arange(700, device=DEVICE)
    given = {"embeddings": rows, "impl": "fused", "reduction": "none"}
    assert triplet_margin_loss(index, index, far, **given).isnan().all()


def test_a_path_that_the_gpu_lacks_is_refused(monkeypatch):
    monkeypatch.setenv("FLASHMETRIC_CUDA_PATH", "fastest")
    with pytest.raises(ValueError, match=r"FLASHMETRIC_CUDA_PATH.* runs fma.*; got 'fastest'\."):
        mine_triplets(*_batch(1), impl="fused")
