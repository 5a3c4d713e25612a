# SPDX-License-Identifier: BSD-3-Clause
"""Threads of Python at once, forked children, and the workers of a DataLoader."""

from __future__ import annotations

import ctypes
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Barrier

import pytest
import torch

from compare import assert_same_bits
from flashmetric.functional import triplet_loss
from fresh_python import run_python
from op_db import FUSED
from samples import class_batch
from test_determinism import _everything

N_THREADS = 8


def test_eight_threads_at_once():
    """All ops side by side, each thread with its own order: the bits of a quiet run."""
    work = []
    for op in FUSED:
        for row in op.rows[:6]:
            sample = op.sample(row, torch.float32)
            work.append((op, sample, _everything(op, sample)))
    barrier = Barrier(N_THREADS)

    def run(thread):
        barrier.wait(timeout=60)
        for step in range(2 * len(work)):
            op, sample, expected = work[(step * (thread + 1) + thread) % len(work)]
            for name, value in _everything(op, sample).items():
                assert_same_bits(value, expected[name], what=f"{op.name} {name}")

    with ThreadPoolExecutor(N_THREADS) as pool:
        for future in [pool.submit(run, thread) for thread in range(N_THREADS)]:
            future.result(timeout=120)


def _longest_stall(function: Callable[[], object]) -> float:
    """Share of a call in another thread that this one could not run, at the longest stretch."""
    moments = [time.perf_counter()]
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(function)
        while not future.done():
            moments.append(time.perf_counter())
    future.result()
    longest = max(later - sooner for sooner, later in pairwise(moments))
    return longest / (moments[-1] - moments[0])


def test_the_kernels_release_the_interpreter_lock():
    """While one thread computes for some 0.2 s, this one runs; a call that keeps the lock shows.

    Other processes may take the core away for some 10 ms, many times: a sum would tell little.
    """
    torch.set_num_threads(1)
    rows, labels = class_batch(14000, 64, 700)
    assert _longest_stall(lambda: triplet_loss(rows, labels)) < 0.5
    assert _longest_stall(lambda: ctypes.PyDLL(None).usleep(200_000)) > 0.5


_PRELUDE = """
import os, sys, torch
from flashmetric.functional import mine_triplets, triplet_loss, pairwise_distances
def batch():
    generator = torch.Generator().manual_seed(0)
    # Below the size where torch itself goes parallel: only our kernels use threads here.
    return torch.randn(512, 48, generator=generator), torch.arange(512) % 100
def results():
    rows, labels = batch()
    rows.requires_grad_()
    loss = triplet_loss(rows, labels)
    (grad,) = torch.autograd.grad(loss, rows)
    distances = pairwise_distances(rows[:60]).detach()
    return [loss.detach(), grad, *mine_triplets(rows, labels), distances]
def same(left, right):
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))
"""


def _run(script: str, *args: str) -> None:
    assert run_python(_PRELUDE + textwrap.dedent(script), *args) == "same\n"


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_forked_child_computes_the_same(threads):
    """The workers of the parent's OpenMP team do not exist there: waiting for them is for ever."""
    _run(
        """
        torch.set_num_threads(int(sys.argv[1]))
        before = results()
        child = os.fork()
        if child == 0:
            os._exit(0 if same(before, results()) else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0, "the child got other bits"
        assert same(before, results()), "the parent got other bits after the fork"
        print("same")
        """,
        threads,
    )


def test_a_child_forked_while_a_thread_computes():
    """The fork may fall into the middle of a kernel of another thread."""
    _run(
        """
        import threading
        torch.set_num_threads(2)
        before, stop = results(), threading.Event()
        def keep_busy():
            while not stop.is_set():
                mine_triplets(*batch())
        thread = threading.Thread(target=keep_busy)
        thread.start()
        for _ in range(5):
            child = os.fork()
            if child == 0:
                os._exit(0 if same(before[2:5], mine_triplets(*batch())) else 1)
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 0
        stop.set()
        thread.join()
        print("same")
        """
    )


def test_a_grandchild_computes_the_same():
    _run(
        """
        import multiprocessing
        fork = multiprocessing.get_context("fork")
        torch.set_num_threads(2)
        before = results()
        def child(depth, queue):
            if depth:
                process = fork.Process(target=child, args=(depth - 1, queue))
                process.start()
                process.join()
            queue.put(same(before, results()))
        queue = fork.SimpleQueue()
        child(2, queue)
        assert [queue.get() for _ in range(3)] == [True] * 3
        print("same")
        """
    )


def test_the_workers_of_a_data_loader():
    """The op inside `collate_fn`, in workers forked after the parent has used it."""
    _run(
        """
        from torch.utils.data import DataLoader
        def scaled_loss(scale):
            rows, labels = batch()
            return triplet_loss(rows * scale, labels)
        torch.set_num_threads(2)
        expected = torch.stack([scaled_loss(1 + i) for i in range(6)])
        loader = DataLoader(range(6), num_workers=2, collate_fn=lambda i: scaled_loss(1 + i[0]))
        for _ in range(2):
            assert torch.equal(torch.stack(list(loader)), expected)
        print("same")
        """
    )
