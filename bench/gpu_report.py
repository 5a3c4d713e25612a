# SPDX-License-Identifier: BSD-3-Clause
"""The table and the picture of a result of bench/gpu.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flashmetric.cli import style
from flashmetric.cli.table import format_bytes, format_ratio, format_seconds, text_table
from gpu_losses import CONTRASTIVE, HARD, OURS, SEMIHARD
from gpu_steps import GRAPH, NAMES, TITLES, UNIT

__all__ = ["as_text", "markdown", "peers", "picture"]

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
# In the order of tables; a problem that names none is the first.
LOSSES = {HARD: "batch-hard", SEMIHARD: "semi-hard", CONTRASTIVE: "contrastive, all pairs"}


def _loss(problem: dict[str, Any]) -> str:
    return str(problem.get("loss", HARD))


def _place(problem: dict[str, Any]) -> list[Any]:
    """What tables are sorted by."""
    losses = list(LOSSES)
    return [
        losses.index(_loss(problem)),
        *(problem[k] for k in ("dtype", "dim", "layout", "batch")),
    ]


def _seconds(problem: dict[str, Any], name: str) -> float | None:
    """Of a contender; of its calls from Python where there is no graph of it."""
    return _timed(problem, name) or _timed(problem, name.removesuffix(GRAPH))


def _timed(problem: dict[str, Any], name: str) -> float | None:
    row = problem.get("contenders", {}).get(name, {})
    return float(row["seconds"]["median"]) if "seconds" in row else None


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
    ordered = sorted(problems.items(), key=lambda item: _place(item[1]))
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


def markdown(result: dict[str, Any]) -> str:
    """The kernels beside the bare product, 4 rows a class: batch-hard, then the other losses."""
    problems = sorted(_four_a_class(result), key=_place)
    tables = [
        _beside_the_product([p for p in problems if _loss(p) == HARD], named=False),
        _beside_the_product([p for p in problems if _loss(p) != HARD], named=True),
    ]
    return "\n\n".join(table for table in tables if table)


def peers(result: dict[str, Any]) -> str:
    """Calls from Python beside those of plain torch, torch.compile and the peers."""
    names = ("eager", "compiled", "pytorch_metric_learning", "sentence_transformers")
    rows = []
    for problem in sorted(_four_a_class(result), key=_place):
        ours = _seconds(problem, OURS)
        found = [_seconds(problem, name) for name in names]
        timed = [each for each in found if each]
        if ours and timed:
            place = (LOSSES[_loss(problem)], problem["dtype"], problem["batch"], problem["dim"])
            times = (format_seconds(each) if each else "-" for each in (ours, *found))
            rows.append(_row_of((*place, *times, format_ratio(min(timed) / ours) + "x")))
    heading = "| loss | dtype | B | D | ours | eager | compiled | PML | ST | best of them / ours |"
    return "\n".join([heading, "|---|---|" + "---:|" * 8, *rows])


def _row_of(cells: tuple[Any, ...]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _beside_the_product(problems: list[dict[str, Any]], *, named: bool) -> str:
    """A row for each problem that was timed, with the name of the loss or without; "" if none."""
    rows = []
    for problem in problems:
        ours, unit = (_timed(problem, name + GRAPH) for name in (OURS, UNIT))
        if ours and unit:
            times = (format_seconds(unit), format_seconds(ours), format_ratio(ours / unit))
            name = (LOSSES[_loss(problem)],) if named else ()
            rows.append(
                _row_of((*name, problem["dtype"], problem["batch"], problem["dim"], *times))
            )
    first, rule = ("| loss ", "|---") if named else ("", "")
    heading = first + "| dtype | B | D | bare product | ours | ratio |"
    return "\n".join([heading, rule + "|---|---:|---:|---:|---:|---:|", *rows]) if rows else ""


def _four_a_class(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [p for p in result["problems"].values() if p.get("layout") == "k4"]


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
    rows: dict[str, dict[tuple[str, int], list[dict[str, Any]]]] = {}
    for problem in sorted(_four_a_class(result), key=_place):
        kinds = rows.setdefault(_loss(problem), {})
        kinds.setdefault((problem["dtype"], problem["dim"]), []).append(problem)
    if not rows:
        return "no picture: no problem was run"
    try:
        plt = style.pyplot()
    except ImportError:
        return "no picture: pip install matplotlib"
    across = max(map(len, rows.values()))
    size = (4.6 * across, 4.4 * len(rows))
    figure, panels = plt.subplots(len(rows), across, figsize=size, squeeze=False)
    figure.subplots_adjust(hspace=0.35)
    for row, (loss, kinds) in zip(panels, rows.items(), strict=True):
        _draw_row(row, loss, kinds)
    note = f"{result['gpu']['name']}, torch {result['torch']}, commit {result['commit']}"
    figure.text(0.012, 0.012, note, fontsize=7.5, color=style.MUTED)
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)
    return f"wrote {path}"


def _draw_row(row: Any, loss: str, kinds: dict[tuple[str, int], list[dict[str, Any]]]) -> None:
    """A panel for each dtype and dimension of a loss."""
    for axes, ((dtype, dim), problems) in zip(row, kinds.items(), strict=False):
        _draw(axes, problems)
        axes.set_title(f"{LOSSES[loss]}, {dtype}, D = {dim}")
    row[0].set_ylabel("milliseconds, forward + backward")
    row[len(kinds) - 1].legend(loc="upper left", bbox_to_anchor=(1.02, 1), fontsize=9)
    for axes in row[len(kinds) :]:
        axes.set_axis_off()


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
