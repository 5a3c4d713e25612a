# SPDX-License-Identifier: BSD-3-Clause
"""`python -m flashmetric info`: what is installed, what would run, and why."""

from __future__ import annotations

import argparse
import json
import platform
from typing import Any

import torch

import flashmetric
from flashmetric.cli import machine, ranking

__all__ = ["DESCRIPTION", "add_arguments", "collect", "run"]

DESCRIPTION = """\
Prints what a bug report needs: versions, the instruction set in use and why, threads, the
OpenMP runtimes of this process, CUDA, and which implementation impl="auto" takes.

  FLASHMETRIC_ISA=avx2 python -m flashmetric info         what would another instruction set be?
  FLASHMETRIC_CUDA_PATH=mma python -m flashmetric info    and other kernels of a GPU?
  python -m flashmetric info --json                       the same for a program

The exit status is 1 if something is wrong (no compiled kernels, a second
OpenMP runtime, an instruction set or kernels of a GPU that cannot be had).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def run(args: argparse.Namespace) -> int:
    facts = collect()
    print(json.dumps(facts, indent=2) if args.json else describe(facts))
    return 1 if facts["warnings"] else 0


def collect() -> dict[str, Any]:
    """Every fact, as plain JSON values."""
    compiled_module, why_not = machine.extension()
    build = compiled_module.build_info() if compiled_module is not None else {}
    facts: dict[str, Any] = {
        "versions": {
            "flashmetric": flashmetric.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "cpu": {"name": machine.cpu_name(), "cores": machine.usable_cores()},
        "isa": machine.isa_facts(),
        "ranking": ranking.unit(machine.isa_facts()),
        "threads": torch.get_num_threads(),
        "openmp": machine.openmp_runtimes(),
        "cuda": machine.cuda_facts(),
        "auto": auto_facts(),
        "build": {key: build[key] for key in sorted(build)},
    }
    facts["warnings"] = warnings_of(facts, why_not)
    return facts


def auto_facts() -> dict[str, str]:
    """What impl="auto" runs on a float32 CPU batch, found by running one."""
    compiled_module, why_not = machine.extension()
    if compiled_module is None:
        return {"cpu": "reference", "why": f"no compiled kernels: {why_not}"}
    before = compiled_module.counters()["triplet"]
    embeddings = torch.tensor([[0.0], [1.0], [3.0], [4.0]])
    flashmetric.functional.triplet_loss(embeddings, torch.tensor([0, 0, 1, 1]))
    if compiled_module.counters()["triplet"] > before:
        return {"cpu": "fused", "why": "compiled kernels exist for the CPU; a trial call ran them"}
    return {"cpu": "reference", "why": "a trial call did not reach the compiled kernels"}


def warnings_of(facts: dict[str, Any], why_not: str) -> list[str]:
    warnings = []
    if why_not:
        warnings.append(
            f"no compiled kernels, everything runs as plain torch: {why_not}. "
            "Install again from a wheel, or build from source (docs/build.md)."
        )
    if facts["isa"]["refused"]:
        warnings.append(facts["isa"]["refused"])
    warnings += sorted({gpu["refused"] for gpu in facts["cuda"]["devices"]} - {""})
    if len(facts["openmp"]) > 1:
        warnings.append(
            "more than one OpenMP runtime is loaded, so two thread pools compete for the cores "
            "and a fork may hang: " + ", ".join(facts["openmp"]) + ". Import torch first."
        )
    return warnings


def gpu_text(gpu: dict[str, Any] | None) -> str:
    if gpu is None:
        return "none"
    runs = f"{gpu['path']} kernels" if gpu["path"] else "plain torch"
    return f"{gpu['name']}, capability {gpu['capability']}; {runs}: {gpu['why']}"


def describe(facts: dict[str, Any]) -> str:
    versions, isa, cuda = facts["versions"], facts["isa"], facts["cuda"]
    compiled = ", ".join(
        name if runs else f"{name} (this CPU lacks it)" for name, runs in isa["compiled"].items()
    )
    in_binary = f"{cuda['toolkit']}: " + ", ".join(cuda["binary_archs"])
    build = {key: fact for key, fact in facts["build"].items() if not key.startswith("cuda")}
    rows = [
        ("flashmetric", versions["flashmetric"]),
        ("torch", versions["torch"]),
        ("python", versions["python"]),
        ("CPU", f"{facts['cpu']['name']}, {facts['cpu']['cores']} logical cores usable"),
        ("ISA in use", f"{isa['in_use'] or 'none'}: {isa['why']}"),
        ("ISAs compiled", compiled or "none"),
        ("float32 ranks in", f"{facts['ranking']['unit']}: {facts['ranking']['why']}"),
        ("threads", f"{facts['threads']} (torch.get_num_threads())"),
        ("OpenMP", ", ".join(facts["openmp"]) or "none found"),
        ("CUDA in binary", in_binary if cuda["in_binary"] else "no"),
        ("CUDA in torch", cuda["torch_cuda"] or "no"),
        *(("GPU", gpu_text(gpu)) for gpu in cuda["devices"] or [None]),
        ('impl="auto"', f"{facts['auto']['cpu']}: {facts['auto']['why']}"),
        ("build", ", ".join(f"{key} {value}" for key, value in build.items()) or "none"),
    ]
    lines = [f"{name:16} {text}" for name, text in rows]
    return "\n".join([*lines, *(f"WARNING: {text}" for text in facts["warnings"])])
