# SPDX-License-Identifier: BSD-3-Clause
"""Facts about this machine and about what is installed on it."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

__all__ = [
    "cpu_name",
    "cuda_facts",
    "extension",
    "git_commit",
    "gpu_path",
    "isa_facts",
    "machine_facts",
    "openmp_runtimes",
    "package_version",
    "slug",
    "usable_cores",
]


def extension() -> tuple[Any, str]:
    """The compiled module and "", or None and why it cannot be loaded."""
    try:
        return importlib.import_module("flashmetric._C"), ""
    except ImportError as error:
        return None, str(error)


def package_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_name() -> str:
    """The model name that the kernel gives, else the architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def cpu_generation() -> str:
    """Family and model numbers: virtual machines often hide them from the name."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    family = re.search(r"^cpu family\s*:\s*(\d+)$", text, re.MULTILINE)
    model = re.search(r"^model\s*:\s*(\d+)$", text, re.MULTILINE)
    return f"family {family[1]}, model {model[1]}" if family and model else ""


def usable_cores() -> int:
    """Logical CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def openmp_runtimes() -> list[str]:
    """Files of OpenMP runtimes mapped into this process; two of them means two thread pools."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return []
    pattern = re.compile(r"/\S*/lib(?:gomp|omp|iomp5)[^/\s]*\.so[^/\s]*")
    return sorted(set(pattern.findall(maps.read_text())))


def isa_facts() -> dict[str, Any]:
    """Instruction sets of the kernels: the one in use, why, and what else was compiled."""
    compiled_module, why_not = extension()
    if compiled_module is None:
        return {
            "in_use": None,
            "why": f"no compiled kernels: {why_not}",
            "refused": "",
            "compiled": {},
        }
    forced = os.environ.get("FLASHMETRIC_ISA", "")
    refused = compiled_module.environment_error()
    best = "the best one that was compiled and that this CPU runs"
    return {
        "in_use": compiled_module.isa(),
        "why": f"FLASHMETRIC_ISA={forced} forces it" if forced and not refused else best,
        "refused": refused,
        "compiled": dict(compiled_module.isas()),
    }


def cuda_facts() -> dict[str, Any]:
    """CUDA in our binary, in torch, and on the machine."""
    compiled_module, _ = extension()
    build = compiled_module.build_info() if compiled_module is not None else {}
    seen = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    return {
        "in_binary": bool(build.get("cuda", False)),
        "toolkit": build.get("cuda_toolkit") or None,
        "binary_archs": list(build.get("cuda_archs", [])),
        "torch_cuda": torch.version.cuda,
        "devices": [
            {
                "name": torch.cuda.get_device_name(index),
                "capability": "{}.{}".format(*torch.cuda.get_device_capability(index)),
                **gpu_path(compiled_module, torch.cuda.get_device_capability(index)),
            }
            for index in seen
        ],
    }


def gpu_path(kernels: Any, capability: tuple[int, int]) -> dict[str, str | None]:
    """Which of our kernels a GPU of that capability runs, why, and what was refused."""
    if kernels is None or not kernels.build_info().get("cuda"):
        return {"path": None, "why": "no CUDA kernels in this build", "refused": ""}
    if not hasattr(kernels, "cuda_path"):
        return {"path": None, "why": "this build does not choose between kernels", "refused": ""}
    forced = os.environ.get("FLASHMETRIC_CUDA_PATH", "")
    try:
        path = kernels.cuda_path(*capability)
    except ValueError as error:
        return {"path": None, "why": "nothing runs", "refused": str(error)}
    why = f"FLASHMETRIC_CUDA_PATH={forced} forces it" if forced else "the capability"
    return {"path": path, "why": why, "refused": ""}


def git_commit() -> str | None:
    """Short commit of our source tree, "-dirty" if it has changes; None when not run from it."""
    if not Path("csrc/flashmetric.h").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def machine_facts() -> dict[str, Any]:
    """What a timing depends on, in the form that result files keep."""
    return {
        "cpu": cpu_name(),
        "cpu_generation": cpu_generation(),
        "cores": usable_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
    }


def slug(*parts: object) -> str:
    """A file name of these parts: lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", " ".join(str(part) for part in parts).lower()).strip("-")
