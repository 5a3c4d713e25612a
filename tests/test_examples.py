# SPDX-License-Identifier: BSD-3-Clause
"""The scripts of docs/examples run as a reader would run them, without a network, and learn."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from sources import ROOT

FOLDER = ROOT / "docs" / "examples"
MAX_LINES = 60
# What each needs beside PyTorch; those of larger libraries take seconds to import.
NEEDED = {
    "accelerate_loop": ["accelerate"],
    "hf_trainer": ["accelerate", "transformers"],
    "lightning_module": ["lightning"],
    "plain_loop": ["pytorch_metric_learning"],
    "reid_training": [],
    "sentence_transformers_trainer": ["accelerate", "datasets", "sentence_transformers"],
}
QUICK = ("plain_loop", "reid_training")


def test_every_example_is_here_and_short():
    assert {path.stem for path in FOLDER.glob("*.py")} == set(NEEDED)
    for path in FOLDER.glob("*.py"):
        assert len(path.read_text().splitlines()) < MAX_LINES, path


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in NEEDED],
)
def test_it_runs_and_the_loss_falls(name, tmp_path):
    missing = [library for library in NEEDED[name] if find_spec(library) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    result = subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py")],
        cwd=tmp_path,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    losses = [float(each) for each in result.stdout.splitlines()[-1].split(":")[1].split()]
    third = max(1, len(losses) // 3)
    assert sum(losses[-third:]) < 0.9 * sum(losses[:third])
