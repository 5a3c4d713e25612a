# SPDX-License-Identifier: BSD-3-Clause
"""Check an sdist and a wheel: what they contain, what they need, how large they are.

Usage: check_wheel.py SDIST WHEEL
"""

import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

NEEDED = {"libstdc++.so.6", "libgcc_s.so.1", "libc.so.6", "libm.so.6", "libgomp.so.1"}
# The CUDA runtime inside asks for these, which are parts of libc.so.6 since glibc 2.34.
NEEDED |= {"libpthread.so.0", "libdl.so.2", "librt.so.1"}
LOADER = "ld-linux"
MAX_MEGABYTES, MAX_MEGABYTES_WITH_CUDA = 10, 60
IN_WHEEL = {"__init__.py", "_C.pyi", "py.typed"}
IN_SDIST = {"CMakeLists.txt", "LICENSE", "README.md", "pyproject.toml", "csrc/bindings.cpp"}
NOT_IN_SDIST = ("build/", "dist/", ".venv/", ".git/", "demo_out/")


def sdist_complaints(sdist: Path) -> list[str]:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    found = [f"sdist lacks {name}" for name in sorted(IN_SDIST - names)]
    found += [f"sdist contains {name}" for name in sorted(names) if name.startswith(NOT_IN_SDIST)]
    return found


def dynamic_complaints(extension: Path) -> list[str]:
    dynamic = subprocess.run(
        ["readelf", "--dynamic", str(extension)], check=True, capture_output=True, text=True
    ).stdout
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic))
    print("NEEDED:", *sorted(needed))
    extra = {name for name in needed - NEEDED if not name.startswith(LOADER)}
    found = [f"{extension.name} needs {name}" for name in sorted(extra)]
    if "RUNPATH" in dynamic or "RPATH" in dynamic:
        found.append(f"{extension.name} has a run path")
    return found


def metadata_complaints(metadata: str) -> list[str]:
    required = re.findall(r"^Requires-Dist: (.*)$", metadata, flags=re.MULTILINE)
    core = [line for line in required if "extra ==" not in line]
    found = [] if core == ["torch>=2.10"] else [f"the core requires {core}, not torch alone"]
    if "License-Expression: BSD-3-Clause" not in metadata:
        found.append("no License-Expression in the metadata")
    return found


def wheel_complaints(wheel: Path) -> list[str]:
    megabytes = wheel.stat().st_size / 1e6
    print(f"{wheel.name}: {megabytes:.2f} MB")
    found = []
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        names = archive.namelist()
        tops = {name.split("/")[0] for name in names}
        info = next(top for top in tops if top.endswith(".dist-info"))
        found += [f"wheel contains {top}/" for top in sorted(tops - {"flashmetric", info})]
        lacking = sorted(f for f in IN_WHEEL if f"flashmetric/{f}" not in names)
        found += [f"wheel lacks flashmetric/{name}" for name in lacking]
        if f"{info}/licenses/LICENSE" not in names:
            found.append("wheel lacks the licence")
        suffixes = (".py", ".pyi", ".so", "py.typed")
        strange = [n for n in names if not n.startswith(info) and not n.endswith(suffixes)]
        found += [f"wheel contains {name}" for name in strange]
        found += metadata_complaints(archive.read(f"{info}/METADATA").decode())
        extensions = [n for n in names if re.fullmatch(r"flashmetric/_C\..*\.so", n)]
        if len(extensions) != 1:
            return [*found, f"wheel has {len(extensions)} extensions _C, not one"]
        extension = Path(archive.extract(extensions[0], folder))
        has_cuda = b".nv_fatbin" in extension.read_bytes()
        if megabytes > (MAX_MEGABYTES_WITH_CUDA if has_cuda else MAX_MEGABYTES):
            found.append(f"{megabytes:.1f} MB is too large")
        return found + dynamic_complaints(extension)


def main(sdist: str, wheel: str) -> int:
    found = sdist_complaints(Path(sdist)) + wheel_complaints(Path(wheel))
    for complaint in found:
        print("error:", complaint)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
