# SPDX-License-Identifier: BSD-3-Clause
"""Numbers and tables as text, for a terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["format_bytes", "format_ratio", "format_seconds", "markdown_table", "text_table"]

Row = Sequence[object]


def format_seconds(seconds: float) -> str:
    """Three digits with their unit: `812 us`, `8.51 ms`, `2.40 s`."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if seconds >= scale or unit == "us":
            break
    return f"{_three_digits(seconds / scale)} {unit}"


def format_bytes(count: float) -> str:
    """Three digits with their unit: `24.0 KiB`, `3.20 MiB`, `1.10 GiB`."""
    for scale, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if abs(count) >= scale or unit == "KiB":
            break
    return f"{_three_digits(count / scale)} {unit}"


def format_ratio(ratio: float) -> str:
    """A multiple of something: `0.31`, `2.5`, `27`."""
    digits = 2 if ratio < 1.995 else 1 if ratio < 9.95 else 0
    return f"{ratio:.{digits}f}"


def _three_digits(value: float) -> str:
    digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{digits}f}"


def text_table(header: Row, rows: Sequence[Row], *, left: int = 1) -> str:
    """An aligned table: the first `left` columns to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(header))]

    def line(row: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if k < left else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(padded).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([line(cells[0]), rule, *(line(row) for row in cells[1:])])


def markdown_table(header: Row, rows: Sequence[Row], *, left: int = 1) -> str:
    """The same table as Markdown."""

    def line(row: Row) -> str:
        return "| " + " | ".join(str(cell) for cell in row) + " |"

    rule = ["---" if k < left else "---:" for k in range(len(header))]
    return "\n".join([line(header), line(rule), *(line(row) for row in rows)])
