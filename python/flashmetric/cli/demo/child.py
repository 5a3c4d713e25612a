# SPDX-License-Identifier: BSD-3-Clause
"""Peak memory of the loss, forward and backward, in a fresh process.

echo '{"impl": "fused", "threads": 2}' | python -m flashmetric.cli.demo.child
"""

from __future__ import annotations

import json
import sys

import torch

from flashmetric._names import Impl
from flashmetric.cli import memory
from flashmetric.cli.demo.train import BATCH, DIM, loss_step

__all__ = ["METHOD", "peak_extra_bytes"]

METHOD = memory.METHOD
WARM_UP_BATCH = 20


def peak_extra_bytes(impl: Impl, timeout: float) -> int:
    """Bytes beyond the embeddings and labels; the gradient counts."""
    request = {"impl": impl, "threads": torch.get_num_threads()}
    answer = memory.run_python("flashmetric.cli.demo.child", request, timeout)
    return int(answer["peak_extra_bytes"])


def main() -> None:
    """Answers one request of `memory.run_python`."""
    request = json.load(sys.stdin)
    torch.set_num_threads(request["threads"])
    embeddings = torch.randn(BATCH, DIM, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(BATCH) % 10
    loss_step(embeddings[:WARM_UP_BATCH], labels[:WARM_UP_BATCH], request["impl"])()
    step = loss_step(embeddings, labels, request["impl"])
    print(json.dumps({"peak_extra_bytes": memory.peak_extra_bytes(step)}))
