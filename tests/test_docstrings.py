# SPDX-License-Identifier: BSD-3-Clause
"""The examples in docstrings run and print what they say."""

from __future__ import annotations

import doctest
import importlib

import pytest
import torch

from sources import PACKAGE, PACKAGE_FILES

MODULES = [
    ".".join(("flashmetric", *path.relative_to(PACKAGE).with_suffix("").parts))
    for path in PACKAGE_FILES
    if path.stem not in ("__init__", "__main__") and ">>>" in path.read_text()
]
LARGE = {"sentence_transformers"}  # peers whose import alone takes seconds


def _peers(name):
    return LARGE.intersection(name.split("."))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * len(_peers(name))) for name in MODULES]
)
def test_examples(name):
    torch.manual_seed(0)
    for peer in _peers(name):
        pytest.importorskip(peer, reason=f"examples of {name}")
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
