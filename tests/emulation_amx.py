# SPDX-License-Identifier: BSD-3-Clause
"""csrc/cpu/narrow_kernels.cpp for AMX, with a matrix unit in software (emulated_amx/)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from emulation import linked
from flashmetric import _C
from sources import CSRC

__all__ = ["build", "in_place_of"]

_EMULATOR = Path(__file__).parent / "emulated_amx"
_SOURCES = (
    *(
        CSRC / "cpu" / f"{name}.cpp"
        for name in ("narrow_kernels", "order", "duplicates", "threads")
    ),
    *(CSRC / "names.cpp", _EMULATOR / "bindings.cpp"),
)
# Those of CMakeLists.txt for avx512_bf16, without those for tiles.
_FLAGS = (
    *("-mavx512bf16", "-mavx512vnni", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq"),
    *("-mavx2", "-mfma", "-mf16c", "-mprefer-vector-width=512"),
    *("-O2", "-DFLASHMETRIC_HAS_AVX512", "-DFLASHMETRIC_ISA_NAMESPACE=amx", "-fopenmp"),
    "-D__AMX_BF16__",
    *("-fno-math-errno", "-fno-trapping-math"),
    *("-include", str(_EMULATOR / "instructions.h")),
)


def build(folder: Path) -> Any:
    """The module `emulated_amx`, built in that folder if it is not there yet."""
    return linked(folder / "emulated_amx.so", (CSRC, _EMULATOR), _SOURCES, (f"-I{CSRC}", *_FLAGS))


def in_place_of(module: Any, patch: pytest.MonkeyPatch) -> None:
    """From now on, what mines on the CPU is this module."""
    for name in (
        "mine",
        "narrow_products",
        "set_slack_factor",
        "rank_narrow_always",
        "decide_trials",
        "counters",
    ):
        patch.setattr(_C, name, getattr(module, name))
