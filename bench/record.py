# SPDX-License-Identifier: BSD-3-Clause
"""Result files of the scripts beside it, a folder each, a file for each kind of machine."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from flashmetric.cli import machine

RESULTS = Path(__file__).resolve().parent / "results"


def conditions() -> dict[str, Any]:
    """When, where and with what."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine.machine_facts(),
        "commit": machine.git_commit(),
        "threads": torch.get_num_threads(),
        "isa": machine.isa_facts()["in_use"],
    }


def save(folder: Path, result: dict[str, Any]) -> Path:
    """Write a result that has the `conditions`, over the last one of this kind of machine."""
    if "gpu" in result:
        name = machine.slug(result["gpu"]["name"])
    else:
        name = machine.slug(result["machine"]["cpu"], result["isa"], result["threads"], "threads")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def newest(folder: Path) -> Path | None:
    paths = folder.glob("*.json")
    return max(paths, key=lambda path: str(json.loads(path.read_text())["date"]), default=None)
