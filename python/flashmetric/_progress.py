# SPDX-License-Identifier: BSD-3-Clause
"""A progress bar on a terminal, silence everywhere else."""

from __future__ import annotations

import importlib
import sys
from types import TracebackType
from typing import Any

__all__ = ["Progress"]


class Progress:
    """Counts steps on stderr: a tqdm bar on a terminal, nothing in a pipe or without tqdm.

    Example:
        >>> with Progress("training", total=3) as bar:
        ...     bar.step("loss 0.52")
    """

    def __init__(self, title: str, total: int, *, shown: bool = True) -> None:
        self._bar: Any = None
        if shown and sys.stderr.isatty():
            try:
                tqdm = importlib.import_module("tqdm")
            except ImportError:
                return
            self._bar = tqdm.tqdm(total=total, desc=title, leave=False, dynamic_ncols=True)

    def step(self, note: str = "", count: int = 1) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)

    def note(self, note: str) -> None:
        """Say what is being done now, without counting a step."""
        if self._bar is not None:
            self._bar.set_postfix_str(note)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
