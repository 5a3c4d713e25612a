# SPDX-License-Identifier: BSD-3-Clause
"""Draws the pictures of docs/losses.md: `python bench/figures.py`.

Each shows the plane around an anchor at the origin, what a loss makes of a row that lies there, and
which way its gradient moves it. The values are those of the library, not of formulas typed here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flashmetric import functional as FM
from flashmetric.cli import style

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
ANCHOR = torch.zeros(1, 2)
POSITIVE = torch.tensor([[1.0, 0.0]])
FIRST = (-1.0, 0.6)  # the first negative of a quadruplet
MARGIN = 0.7
REACH = 2.6
Loss = Callable[[Tensor], Tensor]  # (M, 2) rows -> (M,) terms


def field(loss: Loss, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows on a grid, the loss of each, and minus its gradient."""
    axis = torch.linspace(-REACH, REACH, steps)
    rows = torch.cartesian_prod(axis, axis).requires_grad_()
    value = loss(rows)
    (gradient,) = torch.autograd.grad(value.sum(), rows)
    return rows.detach(), value.detach(), -gradient


def triplet(rows: Tensor) -> Tensor:
    """Of a negative at each row, beside a positive at distance 1."""
    n = len(rows)
    anchor, positive = ANCHOR.expand(n, 2), POSITIVE.expand(n, 2)
    return FM.triplet_margin_loss(anchor, positive, rows, margin=MARGIN, reduction="none")


def quadruplet(rows: Tensor) -> Tensor:
    """Of a second negative at each row."""
    n = len(rows)
    first = torch.tensor([FIRST]).expand(n, 2)
    given = (ANCHOR.expand(n, 2), POSITIVE.expand(n, 2), first, rows)
    return FM.quadruplet_margin_loss(
        *given, margin1=MARGIN, margin2=MARGIN, distance="euclidean", reduction="none"
    )


def pairs(similar: int) -> Loss:
    """Of a row of the same class, or of another one."""

    def loss(rows: Tensor) -> Tensor:
        label = torch.full((len(rows),), similar)
        given = (ANCHOR.expand(len(rows), 2), rows, label)
        return FM.contrastive_pairs_loss(*given, margin=1 + MARGIN, reduction="none")

    return loss


def draw(axes: Any, loss: Loss, title: str, marks: dict[str, tuple[float, float]]) -> None:
    rows, value, _ = field(loss, 161)
    side = int(len(rows) ** 0.5)
    x, y, z = (each.reshape(side, side) for each in (rows[:, 0], rows[:, 1], value))
    shades = axes.contourf(x, y, z, levels=12, cmap="Blues")
    axes.figure.colorbar(shades, ax=axes, shrink=0.8, label="loss")
    rows, _, step = field(loss, 15)
    moves = step.norm(dim=1) > 0
    axes.quiver(*rows[moves].T, *step[moves].T, color=style.INK, width=0.004)
    for name, (px, py) in marks.items():
        axes.plot(px, py, "o", color=style.INK, ms=5)
        axes.annotate(name, (px, py), (6, 6), textcoords="offset points")
    axes.set(title=title, aspect="equal", xticks=[], yticks=[])


def circle(axes: Any, radius: float, label: str) -> None:
    turn = torch.linspace(0, 2 * torch.pi, 121)
    axes.plot(radius * turn.cos(), radius * turn.sin(), "--", color=style.NEGATIVE)
    axes.annotate(label, (0, -radius - 0.05), ha="center", va="top", color=style.NEGATIVE)


Rings = list[tuple[float, str]]


def picture(name: str, panels: list[tuple[Loss, str, Rings]], marks: dict[str, Any]) -> None:
    plt = style.pyplot()
    figure, all_axes = plt.subplots(1, len(panels), figsize=(5.4 * len(panels), 4.4), squeeze=False)
    for axes, (loss, title, rings) in zip(all_axes[0], panels, strict=True):
        draw(axes, loss, title, marks)
        for radius, label in rings:
            circle(axes, radius, label)
    figure.tight_layout()
    figure.savefig(IMAGES / f"{name}.png", dpi=90, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    marks = {"a": (0.0, 0.0), "p": (1.0, 0.0)}
    rings = [(1.0, "hard inside"), (1 + MARGIN, "semi-hard inside")]
    picture("triplet", [(triplet, "A negative that lies here", rings)], marks)
    title = "A second negative that lies here"
    picture("quadruplet", [(quadruplet, title, [])], marks | {"n1": FIRST})
    other = [(1 + MARGIN, "margin")]
    panels = [
        (pairs(1), "A row of the same class", []),
        (pairs(0), "A row of another class", other),
    ]
    picture("contrastive", panels, {"a": (0.0, 0.0)})


if __name__ == "__main__":
    main()
