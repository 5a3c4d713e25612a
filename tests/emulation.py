# SPDX-License-Identifier: BSD-3-Clause
"""csrc/cuda compiled for the host (emulated_gpu/emulator.h), in the place of the CPU kernels."""

from __future__ import annotations

import fcntl
import importlib.util
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pybind11
import pytest
import torch

from flashmetric import _ops
from flashmetric._ops import cpu, cuda, extremes
from sources import CSRC

__all__ = [
    "GPUS",
    "build",
    "built_once",
    "copied",
    "in_place_of_the_cpu",
    "linked",
    "load",
    "rebuilt",
]

# The environment of a GPU that ranks by the main loop of that name.
GPUS = {
    "mma": {"FLASHMETRIC_CUDA_PATH": "mma"},
    "wgmma": {"FLASHMETRIC_CUDA_PATH": "wgmma", "EMULATED_CAPABILITY": "90"},
}
_EMULATOR = Path(__file__).parent / "emulated_gpu"
_LAUNCH = re.compile(r"(\w+(?:<[^<>;]*>)?)<<<(.*?)>>>\((.*?)\);", re.DOTALL)
_SHARED = re.compile(r"extern __shared__ char (\w+)\[\];")
_ROW = re.compile(r"(const T\* row\(int64_t i\) const \{)")
_SOURCES = sorted((CSRC / "cuda").glob("*.cu"))


def _launched(match: re.Match[str]) -> str:
    grid, threads, shared_bytes, _ = _split(match[2])
    call = f"[&] {{ {match[1]}({match[3]}); }}"
    return f"emulated::launch({grid}, {threads}, {shared_bytes}, {call});"


def _split(arguments: str) -> list[str]:
    """At the commas outside of parentheses."""
    parts, depth = [""], 0
    for letter in arguments:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _digest(folders: Iterable[Path]) -> str:
    """Of all sources: a folder of builds outlives them."""
    found = sha256()
    for path in sorted(path for folder in folders for path in folder.rglob("*")):
        if path.is_file():
            found.update(path.read_bytes())
    return found.hexdigest()[:16]


def linked(
    library: Path,
    inputs: Iterable[Path],
    sources: Iterable[Path],
    flags: Iterable[str],
    others: Iterable[Path] = (),
) -> Any:
    """The module of those sources, and of other objects, that is named as the library; built unless
    there is one of these inputs."""
    folder, name = library.parent, library.stem
    library = folder / f"{name}-{_digest(inputs)}.so"
    if not library.exists():
        compiler = shutil.which("c++") or shutil.which("g++")
        if compiler is None or sys.platform != "linux":
            pytest.skip("needs a C++ compiler, and Linux")
        includes = [pybind11.get_include(), sysconfig.get_paths()["include"]]
        usual = ["-std=c++20", "-O1", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-w"]
        command = [compiler, *usual, *flags, *(f"-I{each}" for each in includes)]
        sources = list(sources)
        objects = [folder / f"{source.stem}.o" for source in sources]
        with ThreadPoolExecutor(2) as pool:
            jobs = zip(sources, objects, strict=True)
            run = [[*command, "-c", str(job[0]), "-o", str(job[1])] for job in jobs]
            list(pool.map(_run, run))
        part = folder / "part.so"
        _run([*command, "-shared", *map(str, (*objects, *others)), "-o", str(part)])
        part.rename(library)
    return load(library, name)


def _translated(folder: Path) -> Iterator[Path]:
    """The sources of csrc/cuda for a C++ compiler, written to the folder as they are asked for."""
    # A copy of the headers, with ours of some; "../x.h" is found from csrc/cuda.
    checked = 0
    for header in (CSRC / "cuda").glob("*.*h"):
        text = _SHARED.sub(r"char* \1 = emulated::dynamic_shared;", header.read_text())
        text, found = _ROW.subn(r"\1 emulated::expect_row(i, n);", text)
        checked += found
        (folder / header.name).write_text(text)
    assert checked == 1, "the function by which kernels find a row is written otherwise now"
    for ours in ("ptx.cuh", "ptx_sm90.cuh", "launch.cuh"):
        shutil.copy(_EMULATOR / ours, folder)
    yield from (_EMULATOR / "bindings.cpp", CSRC / "names.cpp", CSRC / "cuda" / "device.cpp")
    for source in _SOURCES:
        translated = folder / f"{source.stem}.cpp"
        translated.write_text(_LAUNCH.sub(_launched, source.read_text()))
        yield translated


def build(folder: Path) -> Any:
    """csrc/cuda as the module `emulated`, built in that folder if it is not there yet."""
    sources = _translated(folder)
    return linked(folder / "emulated.so", (CSRC, _EMULATOR), sources, _flags(folder))


def rebuilt(folder: Path, built: Path, source: str, header: str, text: str) -> Any:
    """The module that was built in a folder, with another text of a header that one source has."""
    changed = folder / "changed"
    changed.mkdir(exist_ok=True)
    (changed / header).write_text(text)
    anew = Path(shutil.copy(built / f"{source}.cpp", changed))
    others = [each for each in built.glob("*.o") if each.stem != source]
    inputs = (CSRC, _EMULATOR, changed)
    return linked(folder / "emulated.so", inputs, [anew], _flags(built), others)


def _flags(folder: Path) -> list[str]:
    includes = [f"-I{each}" for each in (folder, _EMULATOR, CSRC, CSRC / "cuda")]
    as_nvcc_does = ("-D__CUDA_ARCH__=800", "-include", "cuda_runtime.h")
    return [*includes, *as_nvcc_does, "-DFLASHMETRIC_CUDA_SM90"]


def built_once(temporary: pytest.TempPathFactory, name: str, build: Callable[[Path], Any]) -> Any:
    """What `build` makes in a folder of all workers, by the first of them that comes."""
    folder = temporary.getbasetemp().parent / name
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return build(folder)


def copied(module: Any, folder: Path) -> Any:
    """Another GPU: each asks for its facts once, in the environment of its first call."""
    return load(Path(shutil.copy(module.__file__, folder / "emulated.so")))


def load(library: Path, name: str = "emulated") -> Any:
    """A module of that file; another copy of the file is another GPU."""
    # pybind11 has one module of each full name, however many files there are.
    spec = importlib.util.spec_from_file_location(f"{library.parent.name}.{name}", library)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True)


def in_place_of_the_cpu(module: Any, patch: pytest.MonkeyPatch) -> Iterator[Any]:
    """While it lasts, ops that a GPU has run on the emulated one, whose tensors are the host's."""

    def run(kernel: Any, _: torch.device, arguments: tuple[Any, ...]) -> None:
        needed = kernel(0, 0, arguments, None)
        # What another kernel has left there: large as a number of any type.
        scratch = torch.full((needed,), 0x7F, dtype=torch.uint8)
        kernel(0, 0, arguments, scratch)

    patch.setattr(cuda, "_C", module)
    patch.setattr(cuda, "_run", run)
    patch.setattr(cpu, "DEVICE", cuda.DEVICE)
    patch.setattr(extremes, "mine", cuda.mine)
    for name, kernel in _ops._ON_CUDA.items():
        patch.setitem(_ops._ON_CPU, name, kernel)
        patch.setattr(_ops, name, kernel)
    yield module


@contextmanager
def on_the_gpu(module: Any) -> Iterator[pytest.MonkeyPatch]:
    """The same of a block, with the semi-hard loss as one over all triplets."""
    with pytest.MonkeyPatch.context() as patch:
        next(in_place_of_the_cpu(module, patch))
        patch.setitem(_ops._ON_CPU, "listed_triplet", cuda.semihard)
        patch.setattr(_ops, "listed_triplet", cuda.semihard)
        yield patch
