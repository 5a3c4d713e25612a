# SPDX-License-Identifier: BSD-3-Clause
"""Reads sources for test_layers.py: what a file imports or includes, how long its functions are."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python" / "flashmetric"
CSRC = ROOT / "csrc"
CPP_FILES = sorted(p for p in CSRC.rglob("*") if p.suffix in (".h", ".cpp", ".cu", ".cuh"))
PACKAGE_FILES = sorted(PACKAGE.rglob("*.py"))
PYTHON_FILES = [
    p for top in ("python", "tests", "bench") for p in sorted((ROOT / top).rglob("*.py"))
]

_COMMENT_OR_LITERAL = re.compile(
    r"""//[^\n]* | /\*.*?\*/                                # comments
      | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])+'          # text and characters
      | ^[ \t]*\#(?:\\\n|[^\n])*                           # lines of the preprocessor""",
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)
_SCOPE = re.compile(r"^extern\b|\b(?:namespace|struct|class|union|enum)\b[^()]*$")


def python_imports(source: str, package: tuple[str, ...]) -> set[str]:
    """Absolute dotted names imported anywhere in a module that lives in `package`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def python_function_lengths(source: str) -> list[tuple[str, int]]:
    """(name, lines of the body); the signature and the docstring of a function do not count."""
    lengths = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            last = body[-1].end_lineno if body else None
            lengths.append((node.name, last - body[0].lineno + 1 if last else 0))
    return lengths


def cpp_includes(path: Path) -> list[str]:
    """Relative to csrc where the file exists there, as written elsewhere."""
    written = re.findall(r'^\s*#\s*include\s+["<]([^">]+)[">]', path.read_text(), re.MULTILINE)
    names = []
    for name in written:
        places = ((path.parent / name).resolve(), (CSRC / name).resolve())
        ours = next((place for place in places if place.exists()), None)
        names.append(str(ours.relative_to(CSRC)) if ours else name)
    return names


def cpp_reached(path: Path) -> set[Path]:
    """The file and all of ours that it includes, at any depth."""
    seen: set[Path] = set()
    left = [path]
    while left:
        current = left.pop()
        if current not in seen:
            seen.add(current)
            left += [CSRC / name for name in cpp_includes(current) if (CSRC / name).exists()]
    return seen


def cpp_function_lengths(source: str) -> list[tuple[str, int]]:
    """(signature, lines) of every function at namespace or class scope, from signature to brace.

    A brace opens a scope, a function or (inside a function, or after "=") something else, which the
    text since the last ";", "{" or "}" tells.
    """
    blanked = _COMMENT_OR_LITERAL.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), source)
    lengths: list[Any] = []
    open_braces: list[Any] = []
    head_start = 0
    for match in re.finditer(r"[{};]", blanked):
        head = blanked[head_start : match.start()]
        in_function = any(kind == "function" for kind, _, _ in open_braces)
        if match.group() == "{":
            kind = "other"
            if not in_function and _SCOPE.search(head.strip()):
                kind = "scope"
            elif not in_function and ")" in head:
                kind = "function"
            begin = match.start() - len(head.lstrip())
            open_braces.append((kind, begin, " ".join(head.split())))
        elif match.group() == "}" and open_braces:
            kind, begin, signature = open_braces.pop()
            if kind == "function":
                lengths.append((signature, blanked.count("\n", begin, match.start()) + 1))
        head_start = match.end()
    return lengths
