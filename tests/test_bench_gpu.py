# SPDX-License-Identifier: BSD-3-Clause
"""bench/gpu.py as far as it goes without a GPU: its result, its table, its errors.

The clock is a fake: every call takes a millisecond.
"""

from __future__ import annotations

import importlib
import json

import pytest
import torch

from sources import ROOT

SIZES = ["--device", "cpu", "--quick", "--seconds", "600", "--sizes", "64", "96"]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    gpu, clock = importlib.import_module("gpu"), importlib.import_module("gpu_clock")

    def a_millisecond(_host, step, _calls):
        step()
        return 1e-3

    torch.set_num_threads(1)
    monkeypatch.setattr(clock.Host, "clock", a_millisecond)
    monkeypatch.setattr(gpu, "EACH", (0.01, 0.01))
    return gpu


def _run(script, folder, *more):
    status = script.main([*SIZES, "--output", str(folder), *more])
    (path,) = folder.glob("*.json")
    return status, json.loads(path.read_text())


def test_a_result_has_every_problem_and_its_floors(script, tmp_path, capsys):
    status, result = _run(script, tmp_path, "--contenders", "eager", "mm_out", "matmul_tf32")
    assert status == 0
    assert {"date", "commit", "machine", "gpu", "torch", "rates", "agreement"} <= set(result)
    names = {f"{n}x128-{kind}" for n in (64, 96) for kind in ("float32", "bfloat16")}
    assert set(result["problems"]) == names
    rate = result["rates"]["bfloat16_flops_per_second"]
    for name, problem in result["problems"].items():
        rows = problem["contenders"]
        assert rows["flashmetric"]["seconds"]["median"] == 1e-3
        # A graph runs all four sets of inputs.
        assert rows["flashmetric/graph"]["seconds"]["median"] == pytest.approx(0.25e-3)
        assert ("skipped" in rows["matmul_tf32"]) == ("bfloat16" in name)
        assert problem["floors"]["arithmetic"] == problem["batch"] ** 2 * 128 / rate
    table = capsys.readouterr().out
    assert all(name in table for name in names)
    assert "250 us" in table


def test_a_contender_that_fails_is_named(script, tmp_path, capsys, monkeypatch):
    steps = importlib.import_module("gpu_steps")

    def no_memory():
        msg = "tried to allocate too much"
        raise torch.OutOfMemoryError(msg)

    monkeypatch.setitem(steps.LOSSES, "eager", no_memory)
    status, result = _run(script, tmp_path, "--contenders", "eager")
    assert status == 0
    reason = "OutOfMemoryError: tried to allocate too much"
    for problem in result["problems"].values():
        assert problem["contenders"]["eager"] == {"skipped": reason}
        assert "seconds" in problem["contenders"]["flashmetric"]
    assert f"skipped eager: {reason} (4: " in capsys.readouterr().out


def test_a_loss_that_is_wrong_is_an_error(script, tmp_path, capsys, monkeypatch):
    steps = importlib.import_module("gpu_steps")
    monkeypatch.setitem(steps.LOSSES, "flashmetric", lambda: lambda x, _: x.square().mean())
    assert _run(script, tmp_path, "--contenders", "matmul")[0] == 1
    assert "DISAGREES" in capsys.readouterr().out


def test_what_the_time_does_not_suffice_for_is_named(script, tmp_path, capsys):
    _, result = _run(script, tmp_path, "--contenders", "matmul", "--seconds", "1e-9")
    assert {"skipped": "the time was up"} in result["problems"].values()
    assert "the time was up" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_without_a_gpu_it_says_so(script, capsys):
    assert script.main([]) == 2
    assert "no CUDA device answers" in capsys.readouterr().err
