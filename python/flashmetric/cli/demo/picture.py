# SPDX-License-Identifier: BSD-3-Clause
"""demo.png: loss curves and cost above, the embedding and its distances below."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from flashmetric.cli import style
from flashmetric.cli.demo.evaluate import View
from flashmetric.cli.demo.train import gaps
from flashmetric.cli.table import format_bytes, format_seconds

__all__ = ["save"]

BINS = 44


def save(plt: Any, result: dict[str, Any], views: list[View], path: Path) -> None:
    """Draw the summary of a run and its two views (before, after)."""
    figure = plt.figure(figsize=(13, 8))
    grid = figure.add_gridspec(
        2, 1, left=0.06, right=0.985, top=0.86, bottom=0.075, hspace=0.36, height_ratios=(1, 1.1)
    )
    upper = grid[0].subgridspec(1, 2, width_ratios=(1.75, 1), wspace=0.16)
    curves = upper[0].subgridspec(2, 1, height_ratios=(2, 1), hspace=0.12)
    top = figure.add_subplot(curves[0])
    draw_losses(top, figure.add_subplot(curves[1], sharex=top), result)
    bars = upper[1].subgridspec(3, 1, hspace=0.95)
    draw_costs([figure.add_subplot(bars[row]) for row in range(3)], result)
    figure.align_ylabels()
    lower = grid[1].subgridspec(1, 4, wspace=0.3, width_ratios=(1, 1, 1, 1))
    for column, (view, when) in enumerate(zip(views, ("before", "after"), strict=True)):
        draw_embedding(figure.add_subplot(lower[column]), view, when)
        draw_distances(figure.add_subplot(lower[2 + column]), view, when, result["margin"])
    write_title(figure, result)
    figure.savefig(path)
    plt.close(figure)


def write_title(figure: Any, result: dict[str, Any]) -> None:
    score = result["map_at_r"]
    figure.text(
        0.012,
        0.952,
        f"Digits, unseen half: MAP@R {score['before']:.2f} before, {score['after']:.2f} after "
        f"{result['steps']} steps",
        fontsize=17,
        fontweight="bold",
    )
    figure.text(
        0.012,
        0.918,
        f"Batch-hard triplet loss, batch {result['batch']}, margin {result['margin']:g}, network "
        f"64-128-32. {result['machine']['cpu']}, {result['threads']} threads, "
        f"{result['isa'] or 'no'} kernels, torch {result['torch']}.",
        fontsize=10.5,
        color=style.MUTED,
    )


def draw_losses(top: Any, bottom: Any, result: dict[str, Any]) -> None:
    """Both curves above, what separates them below."""
    fused, reference = (result["losses"][name] for name in ("fused", "reference"))
    top.plot(
        range(1, len(fused) + 1), fused, color=style.ACCENT, linewidth=3.4, label="fused kernels"
    )
    top.plot(
        range(1, len(reference) + 1),
        reference,
        color=style.INK,
        linewidth=1.1,
        dashes=(3, 3),
        label="plain-torch reference",
    )
    top.set_title("Two trainings from one seed")
    top.set_ylabel("loss")
    top.set_ylim(bottom=0.0)
    top.margins(x=0.01)
    top.tick_params(labelbottom=False)
    top.legend(loc="upper right")

    same_rows = result["losses"]["fused_on_rows_of_reference"]
    for curve, color, label, largest in (
        (fused, style.MUTED, "the two trainings", result["max_difference"]),
        (same_rows, style.ACCENT, "on equal embeddings", result["max_difference_same_rows"]),
    ):
        gap = gaps(curve, reference)
        text = f"{label}: at most {largest:.0e}"
        bottom.plot(range(1, len(gap) + 1), gap, color=color, linewidth=1.2, label=text)
    bottom.set_yscale("symlog", linthresh=1e-8, linscale=0.4)
    bottom.set_yticks([0, 1e-6, 1e-3], ["0", "1e-6", "1e-3"])
    bottom.set_ylim(0, 30.0)
    bottom.set_ylabel("difference")
    bottom.set_xlabel("training step")
    bottom.legend(loc="upper left", fontsize=9, ncols=2, borderpad=0, handlelength=1.4)


def draw_costs(rows: list[Any], result: dict[str, Any]) -> None:
    """Three pairs of bars: what a step costs, what the loss costs, what it needs."""
    quantities: list[tuple[str, str, Callable[[float], str]]] = [
        ("step_seconds", "Time of a training step", format_seconds),
        ("loss_seconds", "Time of the loss, forward + backward", format_seconds),
        ("peak_extra_bytes", "Peak memory of the loss, beyond its inputs", format_bytes),
    ]
    for axes, (key, title, text_of) in zip(rows, quantities, strict=True):
        values = [result[key][name] for name in ("fused", "reference")]
        axes.barh((1, 0), values, height=0.68, color=(style.ACCENT, style.MUTED))
        for height, value in zip((1, 0), values, strict=True):
            axes.annotate(
                text_of(value), (value, height), (6, 0), textcoords="offset points", va="center"
            )
        axes.set_title(title, pad=6)
        axes.set_yticks((1, 0), ("fused", "reference"))
        axes.set_xlim(0, 1.22 * max(values))
        axes.set_xticks([])
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)


def draw_embedding(axes: Any, view: View, when: str) -> None:
    """First two principal components; each class in its colour, its digit at its centre."""
    for digit, color in enumerate(style.CLASSES):
        points = view.points[view.labels == digit]
        axes.scatter(points[:, 0], points[:, 1], s=9, color=color, alpha=0.6, linewidths=0)
    for digit, color in enumerate(style.CLASSES):
        x, y = view.points[view.labels == digit].median(0).values.tolist()
        axes.annotate(
            str(digit),
            (x, y),
            ha="center",
            va="center",
            fontsize=11,
            fontweight="bold",
            color="white",
            bbox={"boxstyle": "circle,pad=0.22", "color": color},
        )
    axes.set_title(f"Unseen half {when}: MAP@R {view.map_at_r:.2f}")
    axes.set_xlabel(f"first 2 of 32 components, {view.explained:.0%} of variance")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.set_aspect("equal", adjustable="datalim")
    axes.spines[["left", "bottom"]].set_visible(False)


def draw_distances(axes: Any, view: View, when: str, margin: float) -> None:
    """Histograms of both distances, and how far the loss wants them apart."""
    largest = max(float(view.dist_ap.max()), float(view.dist_an.max()))
    typical = float(view.dist_ap.median())
    edges = torch.linspace(0.0, max(largest, typical + margin) * 1.02, BINS + 1).tolist()
    groups = (
        (view.dist_ap, style.POSITIVE, "to farthest of its class"),
        (view.dist_an, style.NEGATIVE, "to nearest of another"),
    )
    for distances, color, label in groups:
        axes.hist(distances.tolist(), edges, color=color, alpha=0.62, label=label)
        axes.hist(distances.tolist(), edges, color=color, histtype="step", linewidth=1.3)
    height = axes.get_ylim()[1]
    axes.set_ylim(0, 1.5 * height)
    level = 1.08 * height
    axes.plot((typical, typical), (0, level), color=style.INK, linewidth=1.0, linestyle=":")
    axes.annotate(
        "",
        (typical + margin, level),
        (typical, level),
        arrowprops={
            "arrowstyle": "|-|,widthA=0.25,widthB=0.25",
            "color": style.INK,
            "shrinkA": 0,
            "shrinkB": 0,
        },
    )
    axes.annotate(
        f"margin {margin:g}",
        (typical + margin / 2, level),
        (0, 4),
        textcoords="offset points",
        ha="center",
    )
    axes.legend(loc="upper right", fontsize=9, handlelength=1.2, borderpad=0)
    axes.set_title(f"Training half {when}")
    axes.set_xlabel("Euclidean distance from a row")
    axes.set_ylabel("number of rows")
    axes.grid(axis="x", visible=False)
