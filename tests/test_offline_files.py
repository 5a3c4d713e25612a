# SPDX-License-Identifier: BSD-3-Clause
"""Offline mining to disk: files are whole, and a run goes on where it stopped."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import pytest
import torch

from flashmetric import Triplets, load_mined, mine_offline, mine_triplets
from flashmetric.offline import triplets as triplets_module
from offline_data import N, assert_equal, data_set
from samples import class_batch


@pytest.fixture(params=["folder", "file.npz"])
def out(request, tmp_path):
    return tmp_path / request.param


class _Stop(Exception):
    pass


@pytest.fixture
def calls(monkeypatch):
    """How many queries each call of mine_triplets got; it fails when `calls.left` is used up."""

    class Calls(list):
        left = sys.maxsize

    calls = Calls()

    def counted(embeddings, *args, **options):
        if len(embeddings):  # the options are tried on no rows
            if calls.left == 0:
                raise _Stop
            calls.left -= 1
            calls.append(len(embeddings))
        return mine_triplets(embeddings, *args, **options)

    monkeypatch.setattr(triplets_module, "mine_triplets", counted)
    return calls


def test_results_on_disk(out, calls):
    rows, labels = data_set()
    expected = mine_triplets(rows, labels)
    options = {"queries_per_chunk": 64, "out": out}
    assert_equal(mine_offline(rows, labels, **options), expected)
    assert calls == [64, 64, 64, 18]
    assert_equal(mine_offline(rows, labels, **options), expected)
    assert len(calls) == 4, "a complete run is not run again"
    assert_equal(load_mined(str(out)), expected)
    if out.suffix == ".npz":
        assert [path.name for path in out.parent.iterdir()] == [out.name]
        assert np.array_equal(np.load(out)["negative"], expected.negative.numpy())
    else:
        names = sorted(path.name for path in out.iterdir())
        assert names == ["anchor.npy", "negative.npy", "positive.npy", "request.json"]
        assert np.array_equal(np.load(out / "negative.npy"), expected.negative.numpy())
    assert_equal(mine_offline(rows, labels, resume=False, **options), expected)
    assert len(calls) == 8


def test_an_interrupted_run_goes_on(out, calls):
    rows, labels = data_set()
    options = {"queries_per_chunk": 50, "out": out}
    calls.left = 2
    with pytest.raises(_Stop):
        mine_offline(rows, labels, **options)
    with pytest.raises(ValueError, match=r"\[load_mined\] out must hold a complete result"):
        load_mined(out)
    calls.left = 1
    with pytest.raises(_Stop):
        mine_offline(rows, labels, **options)
    calls.left = sys.maxsize
    assert_equal(mine_offline(rows, labels, **options), mine_triplets(rows, labels))
    assert calls == [50, 50, 50, 50, 10]


def test_what_stopped_while_writing_is_written_again(out, calls, monkeypatch):
    rows, labels = data_set()
    options = {"queries_per_chunk": 50, "out": out}
    fsync, writes = os.fsync, []

    def fails(descriptor):
        writes.append(descriptor)
        if len(writes) == 4:  # the request, two chunks, and now
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(OSError, match="No space"):
        mine_offline(rows, labels, **options)
    assert_equal(mine_offline(rows, labels, **options), mine_triplets(rows, labels))
    assert calls == [50, 50, 50, 50, 50, 10]
    assert not list(out.parent.rglob("*.tmp"))


def _changed(rows, labels):
    other = rows.clone()
    other[N // 2] += 1
    yield "embeddings.values", {"embeddings": other}
    yield "embeddings.dtype", {"embeddings": rows.double()}
    yield "labels.values", {"labels": labels.flip(0)}
    yield "mining", {"mining": "semihard"}
    yield "distance", {"distance": "cosine"}
    yield "normalize", {"normalize": True}
    yield "queries_per_chunk", {"queries_per_chunk": 51}
    yield "ignore_label", {"ignore_label": 1}


@pytest.mark.parametrize("complete", [False, True])
def test_another_request_is_refused(out, calls, complete):
    rows, labels = data_set()
    request = {"embeddings": rows, "labels": labels, "queries_per_chunk": 50, "out": out}
    calls.left = sys.maxsize if complete else 2
    if complete:
        mine_offline(**request)
    else:
        with pytest.raises(_Stop):
            mine_offline(**request)
    before = len(calls)
    for name, change in _changed(rows, labels):
        with pytest.raises(ValueError, match=r"^\[mine_offline\] out must be new") as caught:
            mine_offline(**(request | change))
        assert name in str(caught.value).split("differs in")[1]
    assert len(calls) == before
    calls.left = sys.maxsize
    expected = mine_triplets(rows, labels, distance="cosine")
    assert_equal(mine_offline(**request, distance="cosine", resume=False), expected)


def test_a_folder_keeps_what_is_not_ours(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    rows, labels = data_set()
    for resume in (True, False):
        mine_offline(rows, labels, out=tmp_path, resume=resume)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("chunk", [None, 3])
def test_nothing_to_mine(out, chunk):
    rows, labels = class_batch(8, 3, 8)
    for n in (8, 0):
        found = mine_offline(rows[:n], labels[:n], queries_per_chunk=chunk)
        assert [len(column) for column in found] == [0, 0, 0]
    mined = mine_offline(rows, labels, queries_per_chunk=chunk, out=out)
    assert isinstance(mined, Triplets)
    assert [column.dtype for column in load_mined(out)] == [torch.int64] * 3


def test_the_request_can_be_read(tmp_path):
    rows, labels = data_set()
    mine_offline(rows, labels, mining="semihard", out=tmp_path / "out")
    request = json.loads((tmp_path / "out" / "request.json").read_text())
    assert request["mining"] == "semihard"
    assert request["embeddings"]["shape"] == [N, 12]
