# SPDX-License-Identifier: BSD-3-Clause
"""Check the CUDA side of a built extension, without a GPU and without PyTorch.

It must load where there is no driver, and hold code for every architecture that build_info() names.
What is in it is read from the section .nv_fatbin, because a toolkit does not always come with
cuobjdump; where cuobjdump is found, it must say the same.

Usage: check_cuda.py [EXTENSION]; by default that of the installed flashmetric
"""

import importlib.machinery
import importlib.util
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CSRC = Path(__file__).resolve().parent.parent / "csrc"

# A section holds fat binaries, one per translation unit; a fat binary holds one entry per kind of
# code. Nothing documents them: this is what nvcc 12 and 13 write.
MAGIC = 0xBA55ED50
FAT_BINARY = struct.Struct("<IHHQ")  # magic, version, size of this header, size of the entries
ENTRY = struct.Struct("<HHIQ12xI8xQ")  # kind, version, sizes of header and payload, SM, flags
PREFIX = {1: "compute", 2: "sm"}  # PTX, machine code
SPECIFIC, FAMILY = 1 << 20, 1 << 21  # flags: for this capability only (a), for its family (f)


def section(extension: Path) -> bytes:
    """.nv_fatbin; empty if there is none."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "section"
        options = ["--output-target=binary", "--only-section=.nv_fatbin"]
        subprocess.run(["objcopy", *options, str(extension), str(out)], check=True)
        return out.read_bytes() if out.exists() else b""


def fat_binaries(data: bytes) -> Iterator[list[str]]:
    """What each holds, for example ["sm_80", "sm_90a", "compute_120"]."""
    start = 0
    while start + FAT_BINARY.size <= len(data):
        magic, _, header, size = FAT_BINARY.unpack_from(data, start)
        if magic == 0:  # the linker aligns them
            start += 8
            continue
        if magic != MAGIC:
            message = f".nv_fatbin: no fat binary at byte {start}, but {magic:#x}"
            raise ValueError(message)
        end = start + header + size
        yield list(_codes(data, start + header, end))
        start = end


def _codes(data: bytes, start: int, end: int) -> Iterator[str]:
    while start < end:
        kind, _, header, size, sm, flags = ENTRY.unpack_from(data, start)
        suffix = "a" if flags & SPECIFIC else "f" if flags & FAMILY else ""
        yield f"{PREFIX.get(kind, f'kind {kind}')}_{sm}{suffix}"
        start += header + size


def codes_by_cuobjdump(tool: str, extension: Path) -> set[str]:
    command = [tool, "--list-elf", "--list-ptx", str(extension)]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    codes = {f"sm_{arch}" for arch in re.findall(r"\.sm_(\w+)\.cubin", listing)}
    return codes | {f"compute_{arch}" for arch in re.findall(r"\.sm_(\w+)\.ptx", listing)}


def load(extension: Path) -> Any:
    """The module alone: not flashmetric, so not PyTorch either."""
    loader = importlib.machinery.ExtensionFileLoader("_C", str(extension))
    spec = importlib.util.spec_from_file_location("_C", extension, loader=loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def complaints(extension: Path) -> Iterator[str]:
    build = load(extension).build_info()
    if any("libcuda.so" in line for line in Path("/proc/self/maps").read_text().splitlines()):
        yield "loading it opened the driver"
    held = list(fat_binaries(section(extension)))
    wanted, found = set(build["cuda_archs"]), {code for codes in held for code in codes}
    print(f"CUDA {build['cuda_toolkit']}: {len(held)} fat binaries for", *sorted(found))
    if wanted != found:
        yield f"build_info() names {sorted(wanted)}, the binary holds {sorted(found)}"
    alone = sum(codes == ["sm_90a"] for codes in held)
    sources = len(list((CSRC / "cuda").glob("*_sm90.cu")))
    if "sm_90a" in wanted and len(wanted) > 1 and alone != sources:
        yield f"{sources} sources are for sm_90a alone, but {alone} fat binaries"
    tool = shutil.which("cuobjdump")
    if tool and codes_by_cuobjdump(tool, extension) != found:
        yield f"cuobjdump finds {sorted(codes_by_cuobjdump(tool, extension))}"


def installed() -> Path:
    """Found without an import, which would bring PyTorch."""
    package = importlib.util.find_spec("flashmetric")
    if package is None or package.origin is None:
        message = "flashmetric is not installed"
        raise FileNotFoundError(message)
    return next(Path(package.origin).parent.glob("_C.*.so"))


def main(extension: str = "") -> int:
    found = list(complaints(Path(extension) if extension else installed()))
    for complaint in found:
        print("error:", complaint)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
