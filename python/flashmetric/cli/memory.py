# SPDX-License-Identifier: BSD-3-Clause
"""Peak memory of a piece of work: resident set of this process, from the kernel's own count.

Tensors live outside Python's allocator, so tracemalloc does not see them; the resident set
does, scratch buffers of C++ libraries included. The count is of the whole process: measure in
a fresh one (`run_python`) so that nothing else is in it.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["METHOD", "available_bytes", "limit_data", "peak_extra_bytes", "run_python"]

METHOD = (
    "resident set of a fresh process: its peak during the second call, above what it held "
    "before the first call (inputs already there, library warmed up on a tiny problem)"
)


def peak_extra_bytes(work: Callable[[], object]) -> int:
    """Peak resident bytes of the second call of `work`, above those before the first one.

    The first call lets lazy set-up (compilation, thread pools) finish; what it keeps counts,
    since the level to compare with is taken before it.
    """
    _trim()
    before = _status_bytes("VmRSS")
    work()
    _trim()
    if _reset_peak():
        work()
        return max(0, _status_bytes("VmHWM") - before)
    work()
    return max(0, _lifetime_peak() - before)


def available_bytes() -> int:
    """Memory that a new process could use without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def limit_data(max_bytes: int) -> None:
    """Make allocations beyond `max_bytes` fail in this process, rather than the machine."""
    resource = importlib.import_module("resource")
    if max_bytes > 0:
        resource.setrlimit(resource.RLIMIT_DATA, (max_bytes, max_bytes))


def run_python(
    module: str,
    request: dict[str, Any],
    timeout: float,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run `main()` of a module in a new Python; `environment` is added to that of this one.

    The request goes to its standard input as JSON; its last line of output is the answer.

    Raises:
        RuntimeError: it took longer than `timeout` seconds, or died; the text is its last line.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"import {module} as child; child.main()"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**os.environ, **(environment or {})},
        )
    except subprocess.TimeoutExpired as error:
        msg = f"no answer within {timeout:.0f} s"
        raise RuntimeError(msg) from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RuntimeError(lines[-1])
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def _trim() -> None:
    """Give freed heap back to the kernel, so that it counts for nobody."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    msg = f"[memory] the kernel does not report {field}; peak memory needs Linux."
    raise RuntimeError(msg)


def _lifetime_peak() -> int:
    """Peak resident set since the start: an upper bound where the count cannot be reset."""
    resource = importlib.import_module("resource")
    peak_kib: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak_kib * 1024


def _reset_peak() -> bool:
    """Start VmHWM again from now; False where the kernel does not allow it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
