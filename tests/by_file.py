# SPDX-License-Identifier: BSD-3-Clause
"""What became of the tests of each file: `pytest --by-file`, which `make peer-tests` asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

# The names of pytest for what became of a test, and ours.
WORDS = {"passed": "pass", "failed": "fail", "error": "fail", "skipped": "skip"}


def lines_of(stats: Mapping[str, Iterable[Any]]) -> Iterator[str]:
    """A line for each file, and one below it for each reason of a skip or a failure.

    Args:
        stats: reports by what became of them, as the terminal reporter of pytest keeps them.
    """
    counts: dict[str, Counter[str]] = {}
    reasons: dict[str, Counter[str]] = {}
    for outcome, word in WORDS.items():
        seen = set()
        for report in stats.get(outcome, ()):
            file, _, test = report.nodeid.partition("::")
            # A file that is skipped as a whole is reported by every worker.
            if not test and (outcome, file) in seen:
                continue
            seen.add((outcome, file))
            counts.setdefault(file, Counter())[word] += 1
            if word != "pass":
                reason = f"{word}: {_reason(report) if word == 'skip' else test or 'the file'}"
                reasons.setdefault(file, Counter())[reason] += 1
    width = max(map(len, counts), default=0)
    for file in sorted(counts):
        numbers = (f"{counts[file][word]:5} {word}" for word in ("pass", "fail", "skip"))
        yield " ".join([file.ljust(width), *numbers])
        for reason, count in sorted(reasons.get(file, Counter()).items()):
            yield f"    {count} {reason}"


def _reason(report: Any) -> str:
    """That of a skip: (path, line, reason)."""
    _, _, reason = report.longrepr
    return str(reason).removeprefix("Skipped: ")
