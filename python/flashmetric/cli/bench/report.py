# SPDX-License-Identifier: BSD-3-Clause
"""Tables of a benchmark run, for the terminal and (bench/tables.py) for the documents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flashmetric.cli.bench.contenders import CONTENDERS, FLOOR, UNIT
from flashmetric.cli.bench.problems import LAYOUTS, TARGETS, Problem
from flashmetric.cli.table import (
    format_bytes,
    format_ratio,
    format_seconds,
    markdown_table,
    text_table,
)

__all__ = ["TABLES", "Table", "as_text", "conditions"]

Result = dict[str, Any]
Cells = list[list[str]]
OURS = "flashmetric"
NOT_MEASURED = "-"
# Width of the middle 80 % of the samples: a quiet machine stays below 15 %.
STEADY = 0.3


@dataclass(frozen=True)
class Table:
    """A table and the sentence under it."""

    title: str
    header: list[str]
    rows: Cells
    note: str = ""
    left: int = 1

    def as_text(self) -> str:
        body = text_table(self.header, self.rows, left=self.left)
        return "\n".join(part for part in (self.title, "", body, self.note) if part or part == "")

    def as_markdown(self) -> str:
        body = markdown_table(self.header, self.rows, left=self.left)
        return f"{body}\n\n{self.note}" if self.note else body


def as_text(result: Result) -> str:
    """All tables that this run has numbers for, and what was skipped."""
    tables = [make(result) for make in TABLES.values()]
    parts = [table.as_text().rstrip() for table in tables if table.rows]
    return "\n\n".join([*parts, conditions(result), *noise(result)])


def noise(result: Result) -> list[str]:
    """A warning if the unit itself was not steady."""
    spreads = {
        problem["name"]: problem["contenders"][UNIT]["seconds"]["spread"]
        for problem in result["problems"]
    }
    busy = [f"{name} ({spread:.0%})" for name, spread in spreads.items() if spread > STEADY]
    if not busy:
        return []
    return [f"BUSY MACHINE: the unit itself spread widely at {', '.join(busy)}; run it again."]


def conditions(result: Result) -> str:
    """One sentence: where, with what, when."""
    machine, versions = result["machine"], result["versions"]
    generation = f" ({machine['cpu_generation']})" if machine["cpu_generation"] else ""
    commit = f", commit {result['commit']}" if result["commit"] else ""
    return (
        f"{machine['cpu']}{generation}, {result['threads']} threads, "
        f"{result['isa']['in_use'] or 'no'} kernels, torch {versions['torch']}, float32, "
        f"flashmetric {versions['flashmetric']}{commit}, {result['date'][:10]}. "
        "Forward and backward, median of interleaved repeats."
    )


def speed(result: Result) -> Table:
    """Time of every contender as a multiple of the bare product."""
    names = [name for name in _names(result) if name != UNIT]
    rows = []
    for problem in result["problems"]:
        cells = problem["contenders"]
        rows.append(
            [
                *_size(problem),
                _seconds(cells.get(UNIT)),
                *(_ratio(cells.get(name)) for name in names),
            ]
        )
    return Table(
        "Time, as a multiple of torch.matmul(x, x.T)",
        ["B, D", "labels", "matmul", *(CONTENDERS[name].title for name in names)],
        rows,
        note="matmul: time of torch.matmul(x, x.T), the unit. The other columns are multiples of "
        f"it; {NOT_MEASURED} was skipped (too slow, too large or not installed).",
        left=2,
    )


def milliseconds(result: Result) -> Table:
    """Time of every contender, and how much its samples spread."""
    rows = [
        [
            *_size(problem),
            CONTENDERS[name].title,
            format_seconds(row["seconds"]["median"]),
            format_seconds(row["seconds"]["p10"]),
            f"{row['seconds']['spread']:.0%}",
            f"{row['seconds']['samples']} x {row['seconds']['calls']}",
        ]
        for problem in result["problems"]
        for name, row in problem["contenders"].items()
        if "seconds" in row
    ]
    return Table(
        "Time of one call",
        ["B, D", "labels", "", "median", "10 %", "spread", "samples"],
        rows,
        note="spread: width of the middle 80 % of the samples, relative to the median.",
        left=3,
    )


def memory(result: Result) -> Table:
    """Peak memory of one call beyond its inputs."""
    names = [name for name in _names(result) if name != "mm_out"]
    rows = [
        [*_size(problem), *(_memory(problem["contenders"].get(name)) for name in names)]
        for problem in result["problems"]
    ]
    large, note = result.get("memory", {}), ""
    if "peak_extra_bytes" in large:
        ours = [_memory(large) if name == OURS else NOT_MEASURED for name in names]
        rows.append([large["name"].replace("x", ", "), LAYOUTS["k4"].title, *ours])
        note = (
            f"The distance matrix of {large['name']} would take "
            f"{format_bytes(large['matrix_bytes'])}; the promise is at most "
            f"{format_bytes(large['limit_bytes'])}; one call took "
            f"{format_seconds(large['seconds'])}."
        )
    return Table(
        "Peak memory beyond the inputs (the gradient is included)",
        ["B, D", "labels", *(CONTENDERS[name].title for name in names)],
        rows,
        note,
        left=2,
    )


def limits(result: Result) -> Table:
    """FlashMetric against its targets and against what the machine could do."""
    rate = result.get("peak", {}).get("flops_per_second", {}).get("best")
    rows = []
    for problem in result["problems"]:
        row = problem["contenders"].get(OURS, {})
        if "seconds" not in row:
            continue
        median = row["seconds"]["median"]
        ideal = _half_gram(problem) / rate if rate else None
        target = TARGETS.get(problem["name"])
        rows.append(
            [
                *_size(problem),
                format_seconds(median),
                _ratio(row),
                format_ratio(target) if target else "",
                format_seconds(ideal) if ideal else NOT_MEASURED,
                format_ratio(median / ideal) if ideal else NOT_MEASURED,
            ]
        )
    note = (
        f"Ideal: half of the products x.r at {rate / 1e9:.0f} GFLOP/s, the {result['peak']['how']}."
        if rate
        else ""
    )
    header = ["B, D", "labels", "FlashMetric", "x matmul", "target", "ideal", "x ideal"]
    return Table("FlashMetric against its limits", header, rows, note, left=2)


def avx2(result: Result) -> Table:
    """The AVX2 kernels on the same machine."""
    rate = (result.get("peak", {}).get("avx2_flops_per_second") or {}).get("best")
    rows = []
    for problem in result["problems"]:
        cells = problem["contenders"]
        row, ours = cells.get("flashmetric_avx2", {}), cells.get(OURS, {})
        if "seconds" not in row or "seconds" not in ours:
            continue
        median = row["seconds"]["median"]
        share = f"{_half_gram(problem) / median / rate:.0%}" if rate else NOT_MEASURED
        versus = format_ratio(median / ours["seconds"]["median"])
        rows.append([*_size(problem), format_seconds(median), versus, share])
    note = (
        f"Peak: {rate / 1e9:.0f} GFLOP/s, the {result['peak']['how']}, with MKL and oneDNN held "
        "to AVX2."
        if rate
        else ""
    )
    header = ["B, D", "labels", "AVX2", f"x {result['isa']['in_use']}", "half Gram / peak"]
    return Table("FlashMetric held to AVX2", header, rows, note, left=2)


def overhead(result: Result) -> Table:
    """Cost of a call that has nothing to do."""
    found = result.get("overhead", {"contenders": {}})
    known = {**CONTENDERS, FLOOR.name: FLOOR}
    rows = [
        [
            known[name].title,
            f"{row['seconds']['median'] * 1e6:.1f} us",
            f"{row['seconds']['p10'] * 1e6:.1f} us",
            f"{row['alone']['median'] * 1e6:.1f} us" if "alone" in row else NOT_MEASURED,
        ]
        for name, row in found["contenders"].items()
    ]
    header = ["", "in turns", "10 %", "alone"]
    return Table("Call overhead: B=8, D=8, forward and backward", header, rows)


TABLES: dict[str, Callable[[Result], Table]] = {
    "speed": speed,
    "milliseconds": milliseconds,
    "memory": memory,
    "limits": limits,
    "avx2": avx2,
    "overhead": overhead,
}


def _names(result: Result) -> list[str]:
    """Contenders with a number somewhere, in the order of CONTENDERS."""
    seen = {
        name
        for problem in result["problems"]
        for name, row in problem["contenders"].items()
        if "seconds" in row
    }
    return [name for name in CONTENDERS if name in seen]


def _size(problem: Result) -> list[str]:
    return [f"{problem['batch']}, {problem['dim']}", LAYOUTS[problem["layout"]].title]


def _half_gram(problem: Result) -> int:
    return Problem(problem["batch"], problem["dim"]).half_gram_flops


def _seconds(row: Result | None) -> str:
    return format_seconds(row["seconds"]["median"]) if row and "seconds" in row else NOT_MEASURED


def _ratio(row: Result | None) -> str:
    return format_ratio(row["ratio"]) if row and "ratio" in row else NOT_MEASURED


def _memory(row: Result | None) -> str:
    measured = row and "peak_extra_bytes" in row
    return format_bytes(row["peak_extra_bytes"]) if row and measured else NOT_MEASURED
