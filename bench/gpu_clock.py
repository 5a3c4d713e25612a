# SPDX-License-Identifier: BSD-3-Clause
"""What bench/gpu.py asks of a device: the time of steps, graphs of them, memory, and its rates.

`Cuda` times with events: what the device does, not the host. `Host` stands in for it on the CPU, so
that the script can be tried without a GPU; its graphs are the steps themselves.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import torch

from flashmetric.cli import machine
from flashmetric.cli.bench import measure
from flashmetric.cli.bench.measure import Step

__all__ = ["Cuda", "Host", "device_of", "rates"]


class Host:
    """The CPU."""

    device = torch.device("cpu")
    errors: tuple[type[Exception], ...] = (RuntimeError,)

    def clock(self, step: Step, calls: int) -> float:
        """Seconds of one call, of so many in a row."""
        return measure.host_clock(step, calls)

    def graph(self, step: Step) -> Step:
        """What repeats the step without Python."""
        return step

    def peak(self, step: Step) -> int | None:
        """Bytes beyond what was allocated before; None if nobody counts them."""
        step()
        return None

    def forget(self) -> None:
        """Gives back what nobody uses."""

    def facts(self) -> dict[str, Any]:
        return {"name": f"no GPU {machine.cpu_name()}"}


class Cuda(Host):
    """The current CUDA device; steps run on a stream that is not the default one, as graphs do."""

    device = torch.device("cuda", 0)
    # What torch raises on the device that is not a RuntimeError would be our mistake.
    errors = (RuntimeError,)

    def __init__(self) -> None:
        self.stream = torch.cuda.Stream()
        torch.cuda.set_stream(self.stream)
        self.pool: Any = None  # that of the first graph, while there are graphs

    def clock(self, step: Step, calls: int) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(calls):
            step()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / calls

    def graph(self, step: Step) -> Step:
        """Graphs share memory: they run one after the other, and nobody reads what they leave."""
        step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            step()
        self.pool = self.pool or graph.pool()
        return graph.replay

    def peak(self, step: Step) -> int:
        step()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    def forget(self) -> None:
        """Called when no graph is left, with which their pool is gone."""
        self.pool = None
        torch.cuda.synchronize()
        torch.cuda.empty_cache()

    def facts(self) -> dict[str, Any]:
        found = torch.cuda.get_device_properties(0)
        return {
            "name": found.name,
            "capability": f"{found.major}.{found.minor}",
            "multiprocessors": found.multi_processor_count,
            "memory_bytes": found.total_memory,
            "driver": _driver(),
            "torch_cuda": torch.version.cuda,
        }


def device_of(name: str) -> Host:
    return Cuda() if name == "cuda" else Host()


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return (done.stdout.splitlines() or [""])[0].strip() or None


def rates(on: Host, small: bool = False) -> dict[str, float]:
    """What no kernel can beat: bfloat16 products per second, bytes moved per second."""
    n = 256 if small else 8192
    a, b = (torch.randn(n, n, device=on.device).to(torch.bfloat16) for _ in range(2))
    product = torch.empty_like(a)
    source = torch.zeros(n * n * 16, dtype=torch.uint8, device=on.device)  # 1 GiB
    target = torch.empty_like(source)

    def best(step: Callable[[], object]) -> float:
        for _ in range(3):
            step()
        return min(on.clock(step, 4) for _ in range(5))

    flops = 2 * n**3 / best(lambda: torch.mm(a, b, out=product))
    moved = 2 * source.numel() / best(lambda: target.copy_(source))
    return {"bfloat16_flops_per_second": flops, "bytes_per_second": moved}
