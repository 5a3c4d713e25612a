# SPDX-License-Identifier: BSD-3-Clause
"""The architecture, read from the sources: who may import whom, and how long things may be."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from sources import (
    CPP_FILES,
    CSRC,
    PACKAGE,
    PACKAGE_FILES,
    PYTHON_FILES,
    ROOT,
    cpp_function_lengths,
    cpp_includes,
    cpp_reached,
    python_function_lengths,
    python_imports,
)

# One way: a module imports modules of lower layers only. Siblings of one layer never meet.
PYTHON_LAYERS = (
    ("__init__", "__main__"),
    ("cli",),
    ("compat",),
    ("functional", "offline"),
    ("losses", "mining", "distances", "samplers", "schedules", "diagnostics"),
    ("_mining", "_metrics"),
    ("_validate",),
    ("_autograd",),
    ("_ops",),
    ("_labels", "_outputs"),
    ("_compat", "_names", "_progress", "reference", "_C"),
)
RANK = {name: rank for rank, layer in enumerate(PYTHON_LAYERS) for name in layer}
CALLERS = {"_C": {"_ops", "cli"}, "cli": {"__main__"}}
TORCH_ONLY = ("reference", "_compat", "_names")

POLICIES = {
    *("policy.h", "math.h", "random.h"),
    *("distances.h", "losses.h", "mining.h", "list_rules.h", "sides.h"),
    *("key_form.h", "certificate.h", "exact_sum.h", "dense_terms.h", "triplet_range.h"),
}
API = "flashmetric.h"
KNOW_PYTHON = ("bindings.cpp", "arguments.h", "calls.h", "tensors.h")
HOOKS = "test_hooks.h"
# What the top-level files of csrc may include of ours; a folder may also include itself.
CPP_LAYERS = {
    "bindings.cpp": {API, HOOKS, "arguments.h", "cpu/isa.h"},
    "cpu/isa.cpp": {API, HOOKS} | POLICIES,
    "cpu/narrow_kernels.cpp": {API, HOOKS} | POLICIES,
    HOOKS: {API},
    "arguments.h": {API, "calls.h", "cuda.h"},
    "calls.h": {API, "tensors.h"},
    "tensors.h": {API},
    "dispatch.cpp": {
        API,
        "arena.h",
        "cuda.h",
        "names.h",
        "list_rules.h",
        "cpu/isa.h",
        "cpu/kernels.h",
    },
    "names.cpp": {API, "names.h"} | POLICIES,
    "cuda.h": {API, "names.h"},
    "names.h": {API},
    "arena.h": {API, "policy.h"},
    "exact_sum.h": {"policy.h"},
    "key_form.h": {"distances.h", "math.h", "policy.h"},
    "certificate.h": {"key_form.h", "distances.h", "math.h", "policy.h"},
    API: set(),
    "policy.h": set(),
    "math.h": {"policy.h"},
    "distances.h": {"math.h", "policy.h"},
    "losses.h": {"math.h", "policy.h"},
    "mining.h": {"math.h", "policy.h"},
    "random.h": {"math.h", "policy.h"},
    "triplet_range.h": {"policy.h"},
    "dense_terms.h": {"names.h", "exact_sum.h", "triplet_range.h", "policy.h"},
    "list_rules.h": {API, "math.h", "policy.h", "random.h", "sides.h"},
    "sides.h": {"math.h", "policy.h"},
}
SYSTEM_HEADERS = {"omp.h", "pthread.h", "immintrin.h", "cpuid.h", "unistd.h", "sys/syscall.h"}
CUDA_HEADERS = {"cuda_runtime.h", "cuda_bf16.h", "cuda_fp16.h"}
NO_ALGORITHM = {"algorithm", "functional", "map", "numeric", "ranges", "string", "vector"}

FILE_LIMIT, BINDINGS_LIMIT, FUNCTION_LIMIT, TILE_LOOP_LIMIT = 300, 200, 40, 80


def _relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _imports_of_ours(path: Path) -> set[str]:
    """Top-level modules of the package that a file of it imports."""
    package = ("flashmetric", *path.relative_to(PACKAGE).parts[:-1])
    dotted = (name.split(".") for name in python_imports(path.read_text(), package))
    return {below for top, *rest in dotted if top == "flashmetric" for below in rest[:1]} & set(
        RANK
    )


def forbidden_imports(module: str, imported: set[str]) -> list[str]:
    """Those that do not go down, or whose callers are counted."""
    return sorted(
        name
        for name in imported - {module}
        if RANK[name] <= RANK[module] or module not in CALLERS.get(name, {module})
    )


def forbidden_includes(path: str, names: list[str]) -> list[str]:
    """Includes that a file of csrc may not have; `path` and names of ours are relative to csrc."""
    folder = f"{path.split('/')[0]}/" if "/" in path else None
    allowed = CPP_LAYERS.get(path, {API} | POLICIES)
    if folder:
        allowed = allowed | SYSTEM_HEADERS | {"names.h", "arena.h"}
    if folder in ("cuda/", "no_cuda/"):
        allowed = allowed | {"cuda.h"}
    if folder == "cuda/":
        allowed = allowed | CUDA_HEADERS

    def fine(name: str) -> bool:
        if name.startswith(("torch", "ATen", "c10", "pybind11", "Python")):
            return path in ("bindings.cpp", "arguments.h", "tensors.h") and name.startswith(
                "pybind11"
            )
        standard = "/" not in name and "." not in name
        toolkit = folder == "cuda/" and name.startswith(("cub/", "cuda/std/"))
        inside = bool(folder and name.startswith(folder))
        return standard or name in allowed or inside or toolkit

    return [name for name in names if not fine(name)]


@pytest.mark.parametrize("path", PACKAGE_FILES, ids=_relative)
def test_python_imports_go_down(path):
    module = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert module in RANK, f"{module} has no layer: give it one in PYTHON_LAYERS"
    assert forbidden_imports(module, _imports_of_ours(path)) == []


def test_a_forbidden_import_is_found():
    assert forbidden_imports("losses", {"mining"}) == ["mining"]
    assert forbidden_imports("_ops", {"_validate"}) == ["_validate"]
    assert forbidden_imports("_autograd", {"_C", "_ops"}) == ["_C"]
    assert forbidden_imports("reference", {"_labels"}) == ["_labels"]
    assert forbidden_imports("__init__", {"cli", "losses"}) == ["cli"]
    assert forbidden_imports("losses", {"_validate", "_autograd", "reference"}) == []
    source = "from ..x import y\nfrom . import z\nimport a.b"
    expected = {"flashmetric.x.y", "flashmetric.cli.z", "a.b"}
    assert python_imports(source, ("flashmetric", "cli")) == expected


@pytest.mark.parametrize("name", TORCH_ONLY)
def test_the_reference_imports_torch_only(name):
    files = [path for path in PACKAGE_FILES if path.relative_to(PACKAGE).parts[0].startswith(name)]
    assert files
    for path in files:
        package = ("flashmetric", *path.relative_to(PACKAGE).parts[:-1])
        roots = {dotted.split(".")[0] for dotted in python_imports(path.read_text(), package)}
        standard = {"__future__", "collections", "functools", "math", "typing"}
        assert roots <= standard | {"torch", "flashmetric"}


def test_functional_defines_nothing():
    tree = ast.parse((PACKAGE / "functional.py").read_text())
    definitions = ast.FunctionDef | ast.ClassDef | ast.Lambda
    assert not [node for node in ast.walk(tree) if isinstance(node, definitions)]


@pytest.mark.parametrize("path", CPP_FILES, ids=_relative)
def test_includes_go_down(path):
    assert forbidden_includes(str(path.relative_to(CSRC)), cpp_includes(path)) == []


def test_a_forbidden_include_is_found():
    assert forbidden_includes("cpu/tile.h", ["cuda/warp.cuh", "cpu/simd.h"]) == ["cuda/warp.cuh"]
    assert forbidden_includes("cpu/tile.h", ["cuda_bf16.h", "omp.h"]) == ["cuda_bf16.h"]
    assert forbidden_includes("cuda/mine.cuh", ["cpu/simd.h", "cub/cub.cuh"]) == ["cpu/simd.h"]
    assert forbidden_includes("cuda/mine.cuh", ["cuda_bf16.h", "cuda/tile.cuh", "math.h"]) == []
    assert forbidden_includes("losses.h", ["distances.h", "math.h"]) == ["distances.h"]
    assert forbidden_includes("dispatch.cpp", ["pybind11/pybind11.h"]) == ["pybind11/pybind11.h"]
    assert forbidden_includes("cpu/mine.h", ["torch/torch.h", "vector"]) == ["torch/torch.h"]
    assert forbidden_includes("math.h", ["cpu/simd.h", "cmath"]) == ["cpu/simd.h"]
    assert forbidden_includes("bindings.cpp", ["pybind11/stl.h", API, "stdexcept"]) == []


def test_files_compiled_per_isa_call_no_standard_algorithm():
    """An inline compiled with AVX-512 may be the copy that the linker keeps for everyone.

    The C++ API and the registry are shared with baseline files; they declare, and inline nothing.
    """
    reached = cpp_reached(CSRC / "cpu" / "kernels.cpp")
    reached |= cpp_reached(CSRC / "cpu" / "narrow_kernels.cpp")
    reached -= {CSRC / API, CSRC / "policy.h"}
    assert CSRC / "cpu" / "tile.h" in reached
    for path in reached:
        assert not set(cpp_includes(path)) & NO_ALGORITHM, path
        assert not re.search(
            r"std::(sort|stable_sort|fill|copy|vector|function)\b", path.read_text()
        )


def test_the_length_of_a_cpp_function_is_found():
    method = (
        "namespace a {\nint x[] = {1};\nstruct S {\n  int f() const {\n    if (x) {}\n  }\n};\n}"
    )
    assert cpp_function_lengths(method) == [("int f() const", 3)]
    template = "template <class T>\nvoid g(T)\n{ // {\n  auto h = [](int) { return '}'; };\n}\n"
    free = f"{template}int k() {{}}"
    assert [lines for _, lines in cpp_function_lengths(free)] == [5, 1]
    assert sum(len(cpp_function_lengths(path.read_text())) for path in CPP_FILES) > len(CPP_FILES)


@pytest.mark.parametrize("path", CPP_FILES, ids=_relative)
def test_cpp_sizes(path):
    limit = BINDINGS_LIMIT if path.name == "bindings.cpp" else FILE_LIMIT
    assert len(path.read_text().splitlines()) <= limit
    longest = TILE_LOOP_LIMIT if path.parent != CSRC else FUNCTION_LIMIT
    lengths = cpp_function_lengths(path.read_text())
    assert not [f"{lines} lines: {name}" for name, lines in lengths if lines > longest]


@pytest.mark.parametrize("path", PYTHON_FILES, ids=_relative)
def test_python_sizes(path):
    assert len(path.read_text().splitlines()) <= FILE_LIMIT
    lengths = python_function_lengths(path.read_text())
    assert not [f"{lines} lines: {name}" for name, lines in lengths if lines > FUNCTION_LIMIT]


@pytest.mark.parametrize("path", [*CPP_FILES, *PYTHON_FILES], ids=_relative)
def test_every_source_is_ascii_and_names_its_license(path):
    text = path.read_bytes().decode("ascii")
    assert "SPDX-License-Identifier: BSD-3-Clause" in text.splitlines()[0]


@pytest.mark.parametrize("path", [*CPP_FILES, *PACKAGE_FILES], ids=_relative)
def test_unfinished_work_has_an_issue(path):
    assert not re.search(r"TODO(?!\(#\d+\))|FIXME|XXX", path.read_text())
