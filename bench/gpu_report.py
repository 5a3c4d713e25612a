# SPDX-License-Identifier: BSD-3-Clause
"""The table and the picture of a result of bench/gpu.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flashmetric.cli import style
from flashmetric.cli.table import format_bytes, format_ratio, format_seconds, text_table
from gpu_steps import GRAPH, NAMES, OURS, TITLES, UNIT

__all__ = ["as_text", "markdown", "picture"]

# Of the table: heading, and whose seconds.
COLUMNS = {
    "matmul": UNIT + GRAPH,
    "TF32": "matmul_tf32" + GRAPH,
    "ours": OURS + GRAPH,
    "ours called": OURS,
    "eager": "eager" + GRAPH,
    "compiled": "compiled" + GRAPH,
    "PML": "pytorch_metric_learning",
    "ST": "sentence_transformers",
}
LINES = {
    OURS + GRAPH: (style.ACCENT, "o-", 2.6),
    OURS: (style.ACCENT, "o:", 1.5),
    UNIT + GRAPH: (style.INK, "--", 1.5),
    "eager" + GRAPH: ("#3f7cac", "s-", 1.5),
    "compiled" + GRAPH: ("#1f4e79", "D--", 1.5),
    "pytorch_metric_learning": ("#b08968", "^-", 1.5),
    "sentence_transformers": ("#7f9172", "v--", 1.5),
}


def _seconds(problem: dict[str, Any], name: str) -> float | None:
    """Of a contender; of its calls from Python where there is no graph of it."""
    rows = problem.get("contenders", {})
    for key in (name, name.removesuffix(GRAPH)):
        if "seconds" in rows.get(key, {}):
            return float(rows[key]["seconds"]["median"])
    return None


def _floor(problem: dict[str, Any]) -> float:
    return float(max(problem["floors"].values()))


def _row(name: str, problem: dict[str, Any]) -> list[str]:
    found = {heading: _seconds(problem, key) for heading, key in COLUMNS.items()}
    bases = (found["matmul"], found["TF32"], _floor(problem))
    times = (*found.values(), *problem["floors"].values())
    cells = [format_seconds(value) if value else "-" for value in times]
    ours = found["ours"]
    return [name, *cells, *(format_ratio(ours / base) if ours and base else "-" for base in bases)]


def as_text(result: dict[str, Any]) -> str:
    """Every problem, then what was left out and why."""
    problems = {name: p for name, p in result["problems"].items() if "contenders" in p}
    header = ["problem", *COLUMNS, "arithmetic", "bytes", "/matmul", "/TF32", "/floor"]
    ordered = sorted(problems.items(), key=lambda item: [item[1][k] for k in _ORDER])
    lines = [
        f"{result['gpu']['name']}, torch {result['torch']}, {result['took_seconds']:.0f} s",
        text_table(header, [_row(*item) for item in ordered]),
    ]
    for name, found in result["agreement"].items():
        if not found["holds"]:
            lines.append(f"{name}: DISAGREES with the float64 truth: {found}")
    lines += [_large(result["large"])] if result["large"] else []
    reasons: dict[str, list[str]] = {}
    for name, problem in result["problems"].items():
        for key, row in problem.get("contenders", {"everything": problem}).items():
            if "skipped" in row:
                reasons.setdefault(f"{key}: {row['skipped']}", []).append(name)
    lines += [f"skipped {why} ({len(names)}: {names[0]} ...)" for why, names in reasons.items()]
    return "\n".join(lines)


_ORDER = ("dtype", "dim", "layout", "batch")


def markdown(result: dict[str, Any]) -> str:
    """The kernels beside the bare product, 4 rows a class."""
    problems = [p for p in result["problems"].values() if p.get("layout") == "k4"]
    rows = ["| dtype | B | D | bare product | ours | ratio |", "|---|---:|---:|---:|---:|---:|"]
    for problem in sorted(problems, key=lambda p: [p[key] for key in _ORDER]):
        ours, unit = (_seconds(problem, name + GRAPH) for name in (OURS, UNIT))
        if ours and unit:
            times = (format_seconds(unit), format_seconds(ours), format_ratio(ours / unit))
            cells = (problem["dtype"], problem["batch"], problem["dim"], *times)
            rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)


def _large(found: dict[str, Any]) -> str:
    if "skipped" in found:
        return f"{found['name']}: {found['skipped']}"
    extra = found["peak_extra_bytes"]
    return (
        f"{found['name']}: {format_seconds(found['seconds'])}, "
        f"{'?' if extra is None else format_bytes(extra)} beyond the rows; "
        f"its matrix would take {format_bytes(found['matrix_bytes'])}"
    )


def picture(result: dict[str, Any], path: Path) -> str:
    """Write the PNG; a line that says so, or why there is none."""
    problems = [p for p in result["problems"].values() if p.get("layout") == "k4"]
    kinds = sorted({(p["dtype"], p["dim"]) for p in problems})
    if not kinds:
        return "no picture: no problem was run"
    try:
        plt = style.pyplot()
    except ImportError:
        return "no picture: pip install matplotlib"
    figure, panels = plt.subplots(1, len(kinds), figsize=(4.6 * len(kinds), 4.4), squeeze=False)
    for axes, (dtype, dim) in zip(panels[0], kinds, strict=True):
        shown = [p for p in problems if (p["dtype"], p["dim"]) == (dtype, dim)]
        _draw(axes, sorted(shown, key=lambda p: int(p["batch"])))
        axes.set_title(f"{dtype}, D = {dim}")
    panels[0][0].set_ylabel("milliseconds, forward + backward")
    panels[0][-1].legend(loc="upper left", bbox_to_anchor=(1.02, 1), fontsize=9)
    note = f"{result['gpu']['name']}, torch {result['torch']}, commit {result['commit']}"
    figure.text(0.012, 0.012, note, fontsize=7.5, color=style.MUTED)
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)
    return f"wrote {path}"


def _draw(axes: Any, problems: list[dict[str, Any]]) -> None:
    sizes = [p["batch"] for p in problems]
    for name, (color, line, width) in LINES.items():
        points = [
            (n, 1e3 * s) for n, p in zip(sizes, problems, strict=True) if (s := _seconds(p, name))
        ]
        if points:
            base = name.removesuffix(GRAPH)
            label = TITLES[base] + (", called from Python" if name == OURS else "")
            axes.plot(*zip(*points, strict=True), line, color=color, linewidth=width, label=label)
    floor = [1e3 * _floor(p) for p in problems]
    axes.plot(sizes, floor, ":", color=style.MUTED, label="floor: arithmetic or bytes")
    axes.set(xscale="log", yscale="log", xlabel="batch size B")
    axes.set_xticks(sizes, [str(n) for n in sizes], fontsize=8)
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:g}")


assert {name.removesuffix(GRAPH) for name in (*COLUMNS.values(), *LINES)} <= set(NAMES)
