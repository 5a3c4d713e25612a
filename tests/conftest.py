# SPDX-License-Identifier: BSD-3-Clause
"""Profiles of hypothesis, a report by file, and fixtures that put the process back as it was."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import settings

from by_file import lines_of
from flashmetric import _C

settings.register_profile("ci", deadline=None, derandomize=True, max_examples=40, database=None)
settings.register_profile("nightly", deadline=None, max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

ISAS = dict(_C.isas())


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "at the end, how many tests of each file passed, failed and were skipped, and why"
    parser.addoption("--by-file", action="store_true", help=text)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if config.getoption("--by-file"):
        terminalreporter.section("tests by file")
        for line in lines_of(terminalreporter.stats):
            terminalreporter.line(line)


@pytest.fixture(autouse=True)
def _restore_runtime() -> Iterator[None]:
    """A test may change the thread count and force an ISA; the next one must not notice."""
    threads, isa = torch.get_num_threads(), _C.isa()
    yield
    torch.set_num_threads(threads)
    _C.force_isa(isa)


@pytest.fixture(params=list(ISAS))
def forced_isa(request: pytest.FixtureRequest) -> str:
    """Every ISA compiled in, forced; what this machine cannot run is a visible skip."""
    if not ISAS[request.param]:
        pytest.skip(f"this machine does not run the {request.param} kernels")
    _C.force_isa(request.param)
    return request.param
