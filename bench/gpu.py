# SPDX-License-Identifier: BSD-3-Clause
"""Times the batch-hard triplet loss and two others, forward and backward, on a GPU.

    python bench/gpu.py                       prints, and writes bench/results/gpu/NAME-OF-GPU.json
    python bench/gpu.py --quick               two sizes

The others are the semi-hard triplet loss and the contrastive loss of all pairs. Beside them the
bare product torch.matmul(x, x.T) in the dtype of the rows, the peers and, of batch-hard, plain
torch and torch.compile take turns (see cli/bench/measure.py). Times are those of CUDA events: of
calls from Python, and, under the name NAME/graph, of a replayed graph, which is the time of the
kernels alone. Our losses must first agree with a float64 truth. Two floors say what is left to
gain: half of the products of the matrix at the measured rate of a bfloat16 matmul, and every byte
of the rows read and of the gradient written once at the measured rate of a copy.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import gpu_report
import record
from flashmetric.cli import machine
from flashmetric.cli.bench.measure import Step, interleave
from gpu_clock import Host, device_of, rates
from gpu_losses import CONTRASTIVE, OURS, SEMIHARD, Case, check
from gpu_steps import GRAPH, NAMES, UNIT, all_of, in_turns, names_of, steps_of, why_not

RESULTS = record.RESULTS / "gpu"
# In the order of what would be missed most: when the time is up, the rest is left out.
SIZES = (4096, 1024, 16384, 8192, 2048, 32768)
QUICK_SIZES = (4096, 1024)
KINDS = tuple((dtype, dim) for dim in (128, 512) for dtype in (torch.bfloat16, torch.float32))
LAYOUTS = ("skewed", "two")
# Of the other losses, with 128 features.
OTHERS = (
    (SEMIHARD, torch.bfloat16),
    (SEMIHARD, torch.float32),
    (CONTRASTIVE, torch.float32),
)
FIRST = 3  # sizes of which all losses come before the next size
AGREED = 1024  # rows of the problems on which ours must agree
LARGE = Case(131072, 128, dtype=torch.bfloat16)
SECONDS, QUICK_SECONDS = 140.0, 20.0
EACH = (0.02, 0.3)  # seconds of timing for one contender on one problem: at least, at most
GIVE_UP = 0.1  # seconds of one call beyond which it is the only one


def cases_of(sizes: Sequence[int], quick: bool) -> list[Case]:
    kinds = KINDS[:2] if quick else KINDS

    def batch_hard(some: Sequence[int]) -> list[Case]:
        return [Case(size, dim, dtype=dtype) for size in some for dtype, dim in kinds]

    def others(some: Sequence[int]) -> list[Case]:
        return [Case(size, 128, dtype=dtype, loss=loss) for size in some for loss, dtype in OTHERS]

    layouts = () if quick else LAYOUTS
    return [
        *batch_hard(sizes[:FIRST]),
        *others(sizes[:FIRST]),
        *batch_hard(sizes[FIRST:]),
        *(Case(sizes[0], dim, layout, dtype) for layout in layouts for dtype, dim in KINDS[:2]),
        *others(sizes[FIRST:]),
    ]


def agreements(on: Host, sizes: Sequence[int], quick: bool) -> dict[str, Any]:
    """By problem. The truth of the other losses is plain torch: no larger than what is timed."""
    few = min(AGREED, max(sizes))
    kinds = KINDS[:2] if quick else KINDS
    cases = [Case(AGREED, dim, dtype=dtype) for dtype, dim in kinds]
    cases += [Case(few, 128, dtype=dtype, loss=loss) for loss, dtype in OTHERS]
    return {case.name: agreement(case, on) for case in cases}


def floors(case: Case, rate: dict[str, float]) -> dict[str, float]:
    """Seconds that the arithmetic and the memory of the device need at least."""
    moved = 2 * case.row_bytes + 8 * case.batch
    return {
        "arithmetic": case.half_gram_flops / rate["bfloat16_flops_per_second"],
        "bytes": moved / rate["bytes_per_second"],
    }


def admit(name: str, case: Case, on: Host, sets: Any) -> tuple[dict[str, Any], dict[str, Step]]:
    """What is known without timing, and the steps to be timed with their names."""
    if why := why_not(name, case, graph=False):
        return {name: {"skipped": why}}, {}
    try:
        steps = steps_of(name, case, sets)
        all_of(steps)()
        seconds = on.clock(steps[0], 1)
    except Exception as error:
        return {name: {"skipped": _first_line(error)}}, {}
    if seconds > GIVE_UP:
        return {name: {"seconds": {"median": seconds, "samples": 1}}}, {}
    found = {name: in_turns(steps)}
    why = why_not(name, case, graph=True)
    if not why:
        try:
            found[name + GRAPH] = on.graph(all_of(steps))
        except Exception as error:
            why = _first_line(error)
    return {name + GRAPH: {"skipped": why}} if why else {}, found


def measure_case(case: Case, on: Host, seconds_each: float, names: Sequence[str]) -> dict[str, Any]:
    sets = case.sets(on.device)
    rows: dict[str, Any] = {}
    steps: dict[str, Step] = {}
    for name in names_of(case.loss, names):
        known, timed = admit(name, case, on, sets)
        rows |= known
        steps |= timed
    for name, timing in _timings(steps, on, seconds_each).items():
        share = 1 / len(sets) if name.endswith(GRAPH) else 1.0  # a graph runs all the sets
        for key in ("median", "p10", "p90", "best"):
            if key in timing:
                timing[key] *= share
        rows[name] = timing if "skipped" in timing else {"seconds": timing}
    steps.clear()
    gc.collect()
    on.forget()
    return {
        "batch": case.batch,
        "dim": case.dim,
        "layout": case.layout,
        "dtype": str(case.dtype).removeprefix("torch."),
        "loss": case.loss,
        "contenders": rows,
    }


def _timings(steps: dict[str, Step], on: Host, seconds_each: float) -> dict[str, dict[str, Any]]:
    """All in turns; where that fails, for lack of memory, one by one."""
    try:
        found = interleave(steps, seconds_each=seconds_each, clock=on.clock)
        return {name: asdict(timing) for name, timing in found.items()}
    except Exception as error:
        on.forget()
        if len(steps) == 1:
            return {name: {"skipped": _first_line(error)} for name in steps}
        return {
            name: timing
            for name, step in steps.items()
            for timing in _timings({name: step}, on, seconds_each).values()
        }


def measure_large(case: Case, on: Host) -> dict[str, Any]:
    """Ours alone, where the matrix would not fit: seconds, and bytes beyond the rows."""
    try:
        (step,) = steps_of(OURS, case, case.sets(on.device)[:1])
        peak = on.peak(step)
        seconds = min(on.clock(step, 1) for _ in range(3))
    except Exception as error:
        return {"name": case.name, "skipped": _first_line(error)}
    on.forget()
    return {
        "name": case.name,
        "seconds": seconds,
        "peak_extra_bytes": peak,
        "row_bytes": case.row_bytes,
        "matrix_bytes": case.batch**2 * case.dtype.itemsize,
    }


def agreement(case: Case, on: Host) -> dict[str, Any]:
    try:
        return check(case, on.device)
    except Exception as error:
        return {"holds": False, "error": _first_line(error)}


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:150]}"


def collect(args: argparse.Namespace, on: Host) -> dict[str, Any]:
    start = time.monotonic()
    budget = args.seconds or (QUICK_SECONDS if args.quick else SECONDS)
    sizes = args.sizes or (QUICK_SIZES if args.quick else SIZES)
    cases = cases_of(sizes, args.quick)
    extension, _ = machine.extension()
    rate = rates(on, small=args.device == "cpu")
    result: dict[str, Any] = {
        **record.conditions(),
        "gpu": on.facts(),
        "torch": torch.__version__,
        "build": extension.build_info() if extension else {},
        "rates": rate,
        "agreement": agreements(on, sizes, args.quick),
        "problems": {},
        "large": None if args.quick else measure_large(LARGE, on),
    }
    for number, case in enumerate(cases):
        left = budget - (time.monotonic() - start)
        if left <= 0:
            result["problems"][case.name] = {"skipped": "the time was up"}
            continue
        share = 0.5 * left / (len(cases) - number) / (2 * len(args.contenders))
        each = min(max(share, EACH[0]), EACH[1])
        print(f"{case.name}: {each:.2f} s each, {left:.0f} s left", file=sys.stderr)
        found = measure_case(case, on, each, args.contenders)
        result["problems"][case.name] = {**found, "floors": floors(case, rate)}
    result["took_seconds"] = time.monotonic() - start
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, help="of the whole run, about")
    parser.add_argument(
        "--quick", action="store_true", help="two sizes, D = 128, without torch.compile"
    )
    parser.add_argument("--sizes", type=int, nargs="*", help="batch sizes, the first ones first")
    parser.add_argument("--contenders", nargs="*", choices=NAMES, metavar="NAME")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the result")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a trial")
    args = parser.parse_args(arguments)
    names = args.contenders or [name for name in NAMES if not args.quick or name != "compiled"]
    args.contenders = list(dict.fromkeys((UNIT, OURS, *names)))
    if args.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device answers; --device cpu tries the script out", file=sys.stderr)
        return 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the peers are theirs
        result = collect(args, device_of(args.device))
    path = record.save(args.output, result)
    for line in (f"wrote {path}", gpu_report.picture(result, path.with_suffix(".png"))):
        print(line, file=sys.stderr)
    print(gpu_report.as_text(result))
    return 0 if all(found["holds"] for found in result["agreement"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
