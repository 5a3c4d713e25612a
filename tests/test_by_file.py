# SPDX-License-Identifier: BSD-3-Clause
"""The table of `pytest --by-file`: of reports, and of a run."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

from by_file import lines_of
from sources import ROOT


def _report(nodeid: str, reason: str = "") -> SimpleNamespace:
    return SimpleNamespace(nodeid=nodeid, longrepr=("a.py", 3, f"Skipped: {reason}"))


def test_a_line_for_each_file_and_one_for_each_reason():
    stats = {
        "passed": [_report("b.py::one[x::y]"), _report("b.py::two"), _report("long.py::one")],
        "failed": [_report("b.py::three")],
        "error": [_report("b.py::four")],
        # Skipped as a whole, said by two workers.
        "skipped": [
            *(_report("whole.py", "needs a peer") for _ in range(2)),
            *(_report(f"long.py::{n}", "needs a GPU") for n in range(2)),
            _report("long.py::2", "needs time"),
        ],
        "warnings": [_report("b.py::one")],
    }
    assert list(lines_of(stats)) == [
        "b.py         2 pass     2 fail     0 skip",
        "    1 fail: four",
        "    1 fail: three",
        "long.py      1 pass     0 fail     3 skip",
        "    2 skip: needs a GPU",
        "    1 skip: needs time",
        "whole.py     0 pass     0 fail     1 skip",
        "    1 skip: needs a peer",
    ]
    assert list(lines_of({})) == []


def test_a_run_says_what_became_of_its_files():
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--by-file"]
    found = subprocess.run(
        [*command, "tests/test_by_file.py", "-k", "each_reason"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "tests/test_by_file.py     1 pass     0 fail     0 skip" in found.stdout
