# SPDX-License-Identifier: BSD-3-Clause
"""One look for every picture: colours, type, and saving it.

The ten class colours and the accents keep their contrast for the common forms of colour
blindness; meaning never rests on colour alone (line style or position says it too).
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["ACCENT", "CLASSES", "FAINT", "INK", "MUTED", "NEGATIVE", "POSITIVE", "pyplot"]

INK = "#1f2933"  # text and axes
MUTED = "#7b8794"  # what is there for comparison
FAINT = "#e4e7eb"  # grid
ACCENT = "#d1495b"  # ours
POSITIVE = "#2a9d8f"  # distance to the farthest positive
NEGATIVE = "#e07a1f"  # distance to the nearest negative

CLASSES = (
    "#4477aa",
    "#ee6677",
    "#228833",
    "#ccbb44",
    "#66ccee",
    "#aa3377",
    "#8c6d31",
    "#f4a582",
    "#5e4fa2",
    "#777777",
)

RULES = {
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "font.family": "sans-serif",
    "font.size": 10.5,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def pyplot() -> Any:
    """matplotlib.pyplot without a window, in this style.

    Raises:
        ImportError: matplotlib is missing.
    """
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    plt: Any = importlib.import_module("matplotlib.pyplot")
    plt.rcParams.update(RULES)
    return plt
