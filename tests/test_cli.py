# SPDX-License-Identifier: BSD-3-Clause
"""python -m flashmetric: every command runs, says what it promises, and fails with a reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from flashmetric import _C
from flashmetric.cli import info, machine


def _run(*arguments, expect=0, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "flashmetric", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
        timeout=240,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def test_info_names_what_runs_and_why():
    facts = json.loads(_run("info", "--json", FLASHMETRIC_ISA="portable").stdout)
    assert facts["isa"]["in_use"] == "portable"
    assert "FLASHMETRIC_ISA" in facts["isa"]["why"]
    assert facts["isa"]["compiled"] == dict(_C.isas())
    assert len(facts["openmp"]) <= 1


def test_info_tells_that_a_forced_isa_was_refused():
    done = _run("info", FLASHMETRIC_ISA="avx9000", expect=1)
    assert "avx9000" in done.stdout + done.stderr


def _kernels(cuda, **functions):
    return SimpleNamespace(build_info=lambda: {"cuda": cuda}, **functions)


def _refuse(_major, _minor):
    message = "[FLASHMETRIC_CUDA_PATH] unknown 'x'"
    raise ValueError(message)


def test_info_names_the_kernels_of_a_gpu_and_why(monkeypatch):
    monkeypatch.delenv("FLASHMETRIC_CUDA_PATH", raising=False)
    chosen = _kernels(True, cuda_path=lambda major, minor: f"path of {major}.{minor}")
    gpu = machine.gpu_path(chosen, (9, 0))
    assert (gpu["path"], gpu["why"]) == ("path of 9.0", "the capability")
    text = info.gpu_text({"name": "H", "capability": "9.0", **gpu})
    assert text == "H, capability 9.0; path of 9.0 kernels: the capability"
    monkeypatch.setenv("FLASHMETRIC_CUDA_PATH", "mma")
    assert "FLASHMETRIC_CUDA_PATH=mma" in machine.gpu_path(chosen, (9, 0))["why"]
    assert machine.gpu_path(_kernels(True, cuda_path=_refuse), (9, 0))["refused"]
    for kernels in (None, _kernels(False, cuda_path=_refuse), _kernels(True)):
        assert machine.gpu_path(kernels, (9, 0))["path"] is None


@pytest.mark.parametrize("command", ["info", "selftest", "demo", "bench"])
def test_help_explains_each_command(command):
    assert len(_run(command, "--help").stdout.splitlines()) > 5


def test_an_unknown_command_lists_the_known_ones():
    message = _run("inof", expect=2).stderr
    assert all(command in message for command in ("info", "selftest", "demo", "bench"))


def test_the_demo_writes_its_picture_and_numbers(tmp_path):
    numbers = json.loads(_run("demo", "--steps", 5, "--out", tmp_path, "--json").stdout)
    assert json.loads((tmp_path / "demo.json").read_text()) == numbers
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_selftest_passes():  # test_isa.py and test_forward.py judge the same, faster
    assert "pass" in _run("selftest").stdout
