# SPDX-License-Identifier: BSD-3-Clause
"""Runs a script in a Python of its own: for what a process can do only once, or may not survive."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest


def run_python(script: str, *args: str, env: dict[str, str] | None = None) -> str:
    """What the script prints. It must end well, within two minutes and without a word on stderr.

    A script that hangs may have children that hang too, and hold the pipes: all of its session go.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *args],
        env=os.environ | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        pytest.fail("the script hangs")
    assert process.returncode == 0, f"exit {process.returncode}\n{output}\n{errors}"
    assert not errors, errors
    return output
