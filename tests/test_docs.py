# SPDX-License-Identifier: BSD-3-Clause
"""The documents do not rot: snippets run, links lead somewhere, promises name tests that exist."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from flashmetric import functional
from flashmetric._names import NAMES
from flashmetric.cli import COMMANDS
from sources import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
VERBATIM = re.compile(r"^<!-- verbatim: (\S+) -->\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
MAX_LINES = 300


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """(line above the code, code) of the fenced blocks of a language."""
    text = page.read_text()
    return [
        (text.count("\n", 0, found.start(2)), found[2])
        for found in FENCE.finditer(text)
        if found[1] == language
    ]


def _anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [page for page in PAGES if _blocks(page, "python")], ids=_name)
def test_snippets_run(page):
    """In order, in one namespace, as a reader would type them; tracebacks name the line."""
    torch.manual_seed(0)
    namespace = {"__name__": page.stem}
    for line, code in _blocks(page, "python"):
        exec(compile("\n" * line + code, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page):
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        if target.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{_name(page)}: {target} does not exist"
        assert not anchor or anchor in _anchors(linked), f"{_name(page)}: no heading {target}"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_quoted_code_is_the_code(page):
    for path, code in VERBATIM.findall(page.read_text()):
        assert code in (ROOT / path).read_text(), f"{_name(page)}: {path} has changed"


def test_promises_name_tests_that_exist():
    text = (ROOT / "docs" / "guarantees.md").read_text()
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", text)
    assert len(named) > 50
    tests = {
        path.name: {
            node.name
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.FunctionDef)
        }
        for path in (ROOT / "tests").glob("test_*.py")
    }
    assert not [f"{file}::{test}" for file, test in named if test not in tests.get(file, ())]


def test_every_promise_names_a_test():
    text = (ROOT / "docs" / "guarantees.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "kept by" not in line]
    assert rows
    assert not [row for row in rows if "::test_" not in row]


def test_every_option_is_documented():
    text = "\n".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    code = "\n".join(re.findall(r"`[^`\n]+`", FENCE.sub("", text)))
    code += "\n".join(found[2] for found in FENCE.finditer(text))
    options = {
        name
        for function in functional.__all__
        for name in inspect.signature(getattr(functional, function)).parameters
    }
    words = options.union(*NAMES.values(), functional.__all__, COMMANDS)
    assert not [word for word in sorted(words) if not re.search(rf"\b{word}\b", code)]


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_commands_exist(page):
    text = page.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = {
        word
        for _, block in [*_blocks(page, "sh"), *_blocks(page, "")]
        for words in re.findall(r"^make ((?:[a-z-]+ ?)+)", block, re.MULTILINE)
        for word in words.split()
    }
    assert asked <= targets
    assert set(re.findall(r"python -m flashmetric ([a-z]+)", text)) <= set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_pages_are_short(page):
    assert len(page.read_text().splitlines()) <= MAX_LINES


def test_tables_are_those_of_the_newest_results():
    if not list((ROOT / "bench" / "results").glob("*.json")):
        pytest.skip("no results in bench/results yet")
    command = [sys.executable, str(ROOT / "bench" / "tables.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"run make tables\n{done.stdout}{done.stderr}"
