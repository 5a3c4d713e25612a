# SPDX-License-Identifier: BSD-3-Clause
"""Writes the numbers of bench/results/*.json into README.md and docs/performance.md.

    python bench/tables.py            write
    python bench/tables.py --check    only say whether the documents are up to date (exit status)

A document holds pairs of markers; what stands between them is replaced, the rest is left alone:

    <!-- bench:speed -->
    <!-- /bench:speed -->

Blocks: claim (one sentence), conditions (one sentence), picture, families (of bench/families.py),
distances (of bench/distances.py), compat (of bench/compat.py), gpu and gpu_peers (of bench/gpu.py),
advice and sweep (of bench/advice.py), and the tables of `python -m flashmetric bench`: speed,
milliseconds, memory, limits, avx2, overhead.
The newest result file counts, unless --results names another.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import advice
import compat
import distances
import families
import gpu_report
import record
from flashmetric.cli.bench import report
from flashmetric.cli.table import format_bytes, format_ratio

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = (
    "README.md",
    "docs/performance.md",
    "docs/choosing.md",
    "docs/gpu.md",
    "docs/migration.md",
)
BLOCK = re.compile(
    r"(<!-- bench:(?P<name>[a-z0-9_]+) -->\n).*?(<!-- /bench:(?P=name) -->)", re.DOTALL
)
# name -> where its results lie, and how they are shown.
TABLES: dict[str, tuple[Path, Callable[[dict[str, Any]], str]]] = {
    "families": (families.RESULTS, families.table),
    "distances": (distances.RESULTS, distances.table),
    "compat": (compat.RESULTS, compat.table),
    "gpu": (record.RESULTS / "gpu", gpu_report.markdown),
    "gpu_peers": (record.RESULTS / "gpu", gpu_report.peers),
}
ADVICE = {"advice": advice.table, "sweep": advice.sweep}
# The problem that the one-sentence claim is about.
CLAIM = "4096x128"
RIVAL = "eager"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if out of date")
    parser.add_argument("--results", type=Path, help="a result file instead of the newest one")
    args = parser.parse_args()
    path = args.results or record.newest(record.RESULTS)
    if path is None:
        print("no bench/results/*.json yet: python -m flashmetric bench", file=sys.stderr)
        return 1
    result = json.loads(path.read_text())
    stale = [name for name in DOCUMENTS if rewrite(ROOT / name, result, path, check=args.check)]
    for name in stale:
        print(f"{name}: {'out of date' if args.check else 'written'} ({path.name})")
    return 1 if args.check and stale else 0


def rewrite(document: Path, result: dict[str, Any], path: Path, *, check: bool) -> bool:
    """Put the blocks of one document right; True if that changed, or would change, it."""
    if not document.exists():
        return False
    before = document.read_text()

    def fill(match: re.Match[str]) -> str:
        return match[1] + block(match["name"], result, path, document) + "\n" + match[3]

    after = BLOCK.sub(fill, before)
    if after != before and not check:
        document.write_text(after)
    return after != before


def block(name: str, result: dict[str, Any], path: Path, document: Path) -> str:
    if name == "claim":
        return claim(result)
    if name == "conditions":
        return report.conditions(result)
    if name == "picture":
        picture = path.with_suffix(".png").resolve().relative_to(ROOT)
        up = "../" * len(document.relative_to(ROOT).parent.parts)
        return f"![Time and peak memory beside other implementations]({up}{picture})"
    if name in TABLES:
        return newest_table(*TABLES[name])
    if name in ADVICE:
        return ADVICE[name](json.loads(advice.RESULT.read_text()))
    if name in report.TABLES:
        return report.TABLES[name](result).as_markdown()
    known = ", ".join(("claim", "conditions", "picture", *TABLES, *ADVICE, *report.TABLES))
    msg = f"{document.name}: no block is named {name!r}; known: {known}."
    raise SystemExit(msg)


def newest_table(folder: Path, table: Callable[[dict[str, Any]], str]) -> str:
    """The newest result of a folder, and where it was measured."""
    path = record.newest(folder)
    assert path is not None, f"no {folder}/*.json"
    result = json.loads(path.read_text())
    if "gpu" in result:
        where = result["gpu"]["name"]
    else:
        where = f"{result['machine']['cpu']}, {result['isa']}, {result['threads']} threads"
    return f"{where}, commit {result['commit']}:\n\n{table(result)}"


def claim(result: dict[str, Any]) -> str:
    """The result in a sentence, out of the same numbers."""
    problem = next(row for row in result["problems"] if row["name"] == CLAIM)
    ours, rival = (problem["contenders"][name] for name in (report.OURS, RIVAL))
    times_less = format_ratio(rival["ratio"] / ours["ratio"])
    return (
        f"At B = {problem['batch']}, D = {problem['dim']} the whole batch-hard triplet loss, "
        f"forward and backward, takes {format_ratio(ours['ratio'])} times as long as the bare "
        f"product `torch.matmul(x, x.T)`. That is {times_less} times less than plain torch, with "
        f"{format_bytes(ours['peak_extra_bytes'])} of memory instead of "
        f"{format_bytes(rival['peak_extra_bytes'])}."
    )


if __name__ == "__main__":
    sys.exit(main())
