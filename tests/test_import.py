# SPDX-License-Identifier: BSD-3-Clause
"""Importing opens nothing, prints nothing, and the binary links to nothing that can go missing."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import torch

import flashmetric
from flashmetric import _C
from fresh_python import run_python
from samples import class_batch

# Sanitized builds add their runtimes: that is what they are for.
SYSTEM = {"libstdc++", "libgcc_s", "libc", "libm", "libgomp", "ld-linux-x86-64", "ld-linux-aarch64"}
# The CUDA runtime inside asks for these, which are parts of libc since glibc 2.34.
SYSTEM |= {"libpthread", "libdl", "librt"}
SANITIZERS = {"libasan", "libubsan", "libtsan"}


def test_import_is_silent_without_warnings():
    # Warnings of torch's own import are not ours: it comes first.
    script = "import torch, warnings; warnings.simplefilter('error'); import flashmetric"
    assert run_python(script) == ""


def test_import_opens_no_device_and_no_optional_package():
    script = """
import sys, torch
before = set(sys.modules)
import flashmetric
assert not torch.cuda.is_initialized()
new = {name.split(".")[0] for name in set(sys.modules) - before}
print(sorted(new - set(sys.stdlib_module_names)))
print("flashmetric.cli" in sys.modules)
print(any("libcuda.so" in line for line in open("/proc/self/maps")))
"""
    assert run_python(script).split("\n")[:3] == ["['flashmetric']", "False", "False"]


def test_one_openmp_runtime_in_the_process():
    """A second one would fight with torch's over the cores, and hang a forked child."""
    script = """
import torch, flashmetric
rows = torch.randn(600, 32)
torch.set_num_threads(2)
flashmetric.functional.triplet_loss(rows, torch.arange(600) % 60)
rows @ rows.T
files = {line.split()[-1] for line in open("/proc/self/maps") if "omp" in line.split("/")[-1]}
print(sum(any(f"lib{name}" in file for name in ("gomp", "omp", "iomp5")) for file in files))
"""
    assert run_python(script).strip() == "1"


def test_the_extension_needs_only_system_libraries():
    listing = subprocess.run(
        ["readelf", "-d", _C.__file__], capture_output=True, text=True, check=True
    ).stdout
    needed = set(re.findall(r"\(NEEDED\).*\[([^\].]+)[^\]]*\]", listing))
    assert needed, "readelf printed no NEEDED entry"
    sanitized = "fsanitize" in str(_C.build_info())
    assert needed <= SYSTEM | (SANITIZERS if sanitized else set())


def test_the_extension_exports_nothing_but_its_entry_point():
    """Inlines compiled for one ISA must not replace those of another library, and calls of our own
    CUDA runtime must not end in that of PyTorch, which may be of another version."""
    listing = subprocess.run(
        ["readelf", "--dyn-syms", "--wide", _C.__file__], capture_output=True, text=True, check=True
    ).stdout
    symbols = [line.split() for line in listing.splitlines() if re.match(r"\s+\d+:", line)]
    exported = {
        fields[7]
        for fields in symbols
        if len(fields) > 7 and fields[6] != "UND" and fields[4] in ("GLOBAL", "WEAK")
    }
    assert "PyInit__C" in exported
    leaked = {name for name in exported if "flashmetric" in name or "cuda" in name}
    assert not leaked


def test_build_info_says_how_it_was_built():
    info = _C.build_info()
    assert {"compiler", "openmp", "cuda", "cuda_archs", "cuda_toolkit", "version"} <= set(info)
    assert info["openmp"] is True
    assert isinstance(info["cuda_archs"], list)
    assert info["cuda"] is bool(info["cuda_archs"]) is bool(info["cuda_toolkit"])
    assert info["version"] == flashmetric.__version__


def test_the_package_is_typed():
    folder = Path(flashmetric.__file__).parent
    assert (folder / "py.typed").exists()
    stub = (folder / "_C.pyi").read_text()
    public = {name for name in dir(_C) if not name.startswith("_")}
    assert public == set(re.findall(r"^def (\w+)", stub, re.MULTILINE))


def test_the_thread_count_of_torch_is_respected_and_untouched():
    rows, labels = class_batch(300, 16, 30)
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        flashmetric.functional.triplet_loss(rows, labels)
        assert torch.get_num_threads() == threads
