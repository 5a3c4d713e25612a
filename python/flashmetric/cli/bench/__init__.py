# SPDX-License-Identifier: BSD-3-Clause
"""`python -m flashmetric bench`: times the loss, forward and backward, beside its peers.

problems.py    batch sizes, dimensions, label layouts, targets
contenders.py  who is timed (eager.py: the careful plain-torch version)
agreement.py   loss and gradient against a float64 truth, before any timing
measure.py     interleaved timing         child.py  peak memory, in a fresh process
peak.py        the machine's matrix rate  collect.py  the whole run, as JSON values
report.py      tables of a run            plot.py   picture of a run
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flashmetric.cli import machine
from flashmetric.cli.bench import plot, problems, report
from flashmetric.cli.bench.collect import Settings, collect
from flashmetric.cli.bench.contenders import CONTENDERS, UNIT

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DESCRIPTION = """\
Times the whole batch-hard triplet loss, forward and backward, on the CPU: FlashMetric beside
plain torch, torch.compile, pytorch-metric-learning and sentence-transformers. The unit is the
bare product torch.matmul(x, x.T): a ratio of 0.5 is half of its time, without the matrix.

Every contender must first agree with a float64 truth, in loss and gradient. Then all of them
take turns in one process; the table shows medians. Peak memory is measured in a fresh process
for each. A contender that is missing, too slow or too large is named and skipped.

  python -m flashmetric bench --quick                        two small problems, 2 minutes
  python -m flashmetric bench                                everything, 20 minutes
  python -m flashmetric bench --problems 4096x128 8192x256 --contenders flashmetric eager
  python -m flashmetric bench --problems 4096x128-two        two classes instead of 4 per class

Close other programs first: on a busy machine the spread column grows and means nothing.
"""

DEFAULT_THREADS = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="two small problems, short")
    parser.add_argument(
        "--problems",
        nargs="+",
        metavar="BxD",
        help=f"problems, written 4096x128 or 4096x128-LAYOUT ({', '.join(problems.LAYOUTS)})",
    )
    parser.add_argument(
        "--contenders",
        nargs="+",
        metavar="NAME",
        choices=list(CONTENDERS),
        help=f"who takes part, out of: {', '.join(CONTENDERS)} ({UNIT} always does)",
    )
    parser.add_argument(
        "--threads",
        default=str(DEFAULT_THREADS),
        help=f'torch threads: a number or "all" (default: {DEFAULT_THREADS}, as in the README)',
    )
    parser.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help="seconds of timing for each contender on each problem (default: 4, quick: 0.5)",
    )
    parser.add_argument(
        "--give-up-after",
        type=float,
        default=30.0,
        metavar="S",
        help="skip a contender whose fresh process, 4 calls, takes longer (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE.json",
        help="result file; the picture goes beside it (default: bench/results/MACHINE.json in "
        "a source tree, else and with --quick bench_out/MACHINE.json)",
    )
    parser.add_argument("--json", action="store_true", help="print the JSON instead of tables")


def run(args: argparse.Namespace) -> int:
    try:
        settings = settings_of(args)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    result = collect(settings)
    path = args.out or default_path(result, quick=args.quick)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result) if args.json else report.as_text(result))
    picture = plot.save(result, path.with_suffix(".png"))
    for line in (f"wrote {path}", picture):
        print(line, file=sys.stderr)
    return 0 if agrees(result) else 1


def settings_of(args: argparse.Namespace) -> Settings:
    chosen = problems.QUICK if args.quick else (*problems.HEADLINE, *problems.OTHER_LAYOUTS)
    names = args.contenders or list(CONTENDERS)
    return Settings(
        problems=[problems.parse(text) for text in args.problems] if args.problems else chosen,
        contenders=names if UNIT in names else [UNIT, *names],
        threads=threads_of(args.threads),
        seconds_each=args.seconds or (0.5 if args.quick else 4.0),
        give_up_after=args.give_up_after,
        extras=not args.quick,
    )


def threads_of(text: str) -> int:
    cores = machine.usable_cores()
    if text == "all":
        return cores
    if not text.isdigit() or int(text) < 1:
        msg = f'[bench] --threads takes a positive number or "all"; got {text!r}.'
        raise ValueError(msg)
    return min(int(text), cores)


def default_path(result: dict[str, Any], *, quick: bool) -> Path:
    name = machine.slug(
        result["machine"]["cpu"],
        result["isa"]["in_use"] or "no kernels",
        result["threads"],
        "threads",
    )
    committed = Path("bench/results")
    folder = committed if committed.is_dir() and not quick else Path("bench_out")
    return folder / f"{name}.json"


def agrees(result: dict[str, Any]) -> bool:
    """False if FlashMetric itself was measured and was wrong."""
    rows: Sequence[dict[str, Any]] = [
        problem["contenders"].get(name, {})
        for problem in result["problems"]
        for name in ("flashmetric", "flashmetric_avx2", "reference")
    ]
    return all(row.get("agreement", {"holds": True})["holds"] for row in rows)
