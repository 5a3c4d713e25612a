# SPDX-License-Identifier: BSD-3-Clause
"""Picture of a benchmark run: time and peak memory of every contender."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flashmetric.cli import style
from flashmetric.cli.bench.contenders import CONTENDERS, UNIT
from flashmetric.cli.bench.report import conditions

__all__ = ["save"]

# Kept out of the picture: they answer a reader's second question, in the table.
ONLY_IN_TABLE = ("mm_out", "flashmetric_avx2")
MARKERS = {
    "flashmetric": ("o", "-"),
    "eager": ("s", "-"),
    "compiled": ("D", "--"),
    "pytorch_metric_learning": ("^", "-"),
    "sentence_transformers": ("v", "--"),
    "reference": ("x", ":"),
    UNIT: ("", "--"),
}
COLORS = {
    "flashmetric": style.ACCENT,
    "eager": "#3f7cac",
    "compiled": "#1f4e79",
    "pytorch_metric_learning": "#b08968",
    "sentence_transformers": "#7f9172",
    "reference": "#9aa5b1",
    UNIT: style.INK,
}


def save(result: dict[str, Any], path: Path) -> str:
    """Write the PNG; a line that says so, or why there is none."""
    try:
        plt = style.pyplot()
    except ImportError:
        return "no picture: pip install matplotlib"
    shown = [problem for problem in result["problems"] if problem["layout"] == "k4"]
    if not shown:
        return "no picture: it shows the problems with 4 rows per class, and none was run"
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5.2))
    figure.subplots_adjust(left=0.055, right=0.865, bottom=0.19, top=0.91, wspace=0.6)
    draw(left, shown, _ratio, "time / time of torch.matmul(x, x.T)")
    draw(right, shown, _mebibytes, "peak memory beyond the inputs [MiB]")
    left.set_title("Time, forward + backward (lower is better)")
    right.set_title("Peak extra memory (lower is better)")
    figure.text(0.012, 0.012, conditions(result), fontsize=7.5, color=style.MUTED)
    figure.savefig(path)
    plt.close(figure)
    return f"wrote {path}"


def draw(
    axes: Any,
    problems: list[dict[str, Any]],
    value_of: Callable[[dict[str, Any]], float | None],
    label: str,
) -> None:
    """One line for each contender over the problems, its name at its end."""
    ends: list[tuple[float, float, str]] = []
    for name in CONTENDERS:
        if name in ONLY_IN_TABLE:
            continue
        rows = [problem["contenders"].get(name, {}) for problem in problems]
        points = [(x, y) for x, row in enumerate(rows) if (y := value_of(row)) is not None]
        if points:
            marker, line = MARKERS[name]
            axes.plot(
                *zip(*points, strict=True),
                marker=marker,
                linestyle=line,
                color=COLORS[name],
                linewidth=2.6 if name == "flashmetric" else 1.5,
                markersize=6 if name == "flashmetric" else 4.5,
                zorder=3 if name == "flashmetric" else 2,
            )
            ends.append((*points[-1], name))
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylabel(label)
    axes.set_xlabel("batch size B (above) and dimension D (below)")
    axes.set_xticks(range(len(problems)))
    axes.set_xticklabels([f"{p['batch']}\n{p['dim']}" for p in problems])
    axes.set_xlim(-0.25, len(problems) - 1 + 0.25)
    axes.grid(axis="x", visible=False)
    axes.autoscale_view()
    name_lines(axes, ends)


def name_lines(axes: Any, ends: list[tuple[float, float, str]]) -> None:
    """Write each name to the right of its line, moved apart where they would collide."""
    to_height = axes.transData + axes.transAxes.inverted()
    ends = sorted(ends, key=lambda end: end[1])
    wanted = [float(to_height.transform((x, y))[1]) for x, y, _name in ends]
    line = 13.5 * axes.figure.dpi / 72.0 / axes.get_window_extent().height
    for (_x, _y, name), height in zip(ends, spread(wanted, line), strict=True):
        axes.annotate(
            CONTENDERS[name].title,
            (1.015, height),
            xycoords="axes fraction",
            va="center",
            fontsize=9.5,
            fontweight="bold" if name == "flashmetric" else "normal",
            color=COLORS[name],
            annotation_clip=False,
        )


def spread(wanted: list[float], spacing: float) -> list[float]:
    """Positions `spacing` apart at least, as near to the wanted ones (ascending) as that allows.

    Neighbours that collide form a group around the mean of what they wanted.
    """
    groups: list[list[float]] = []
    for position in wanted:
        groups.append([position])
        while len(groups) > 1 and _bottom(groups[-1], spacing) < _top(groups[-2], spacing):
            groups[-2:] = [groups[-2] + groups[-1]]
    return [
        _bottom(group, spacing) + spacing * (rank + 0.5)
        for group in groups
        for rank in range(len(group))
    ]


def _bottom(group: list[float], spacing: float) -> float:
    return sum(group) / len(group) - spacing * len(group) / 2


def _top(group: list[float], spacing: float) -> float:
    return _bottom(group, spacing) + spacing * len(group)


def _ratio(row: dict[str, Any]) -> float | None:
    return row.get("ratio")


def _mebibytes(row: dict[str, Any]) -> float | None:
    count = row.get("peak_extra_bytes")
    # A logarithmic axis has no zero; the count itself comes in pages of 4 KiB.
    return None if count is None else max(count, 4096) / 2**20
