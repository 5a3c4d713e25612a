# SPDX-License-Identifier: BSD-3-Clause
"""The command line: `python -m flashmetric info | selftest | demo | bench`.

Nothing in this folder is imported by the library.

    __init__.py   the parser: one row of COMMANDS for each command
    info.py       what is installed and what would run
    selftest.py   numeric check of this machine against the float64 reference
    demo/         trains a small network on real data, draws a picture
    bench/        times the loss beside its peers
    machine.py    facts about this machine      memory.py    peak memory of a call
    table.py      text tables and numbers       style.py     colours of the pictures
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Protocol, cast

__all__ = ["COMMANDS", "Command", "build_parser", "main"]

# name of a command = name of its module in this folder
COMMANDS = {
    "info": "what is installed, which kernels would run here, and why",
    "selftest": "check the numbers of this machine against the float64 reference (30 s)",
    "demo": "train a small network on real data and draw what happened (under a minute)",
    "bench": "time the loss, forward and backward, beside its peers",
}


class Command(Protocol):
    """What the module of a command defines."""

    DESCRIPTION: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


def load(name: str) -> Command:
    return cast("Command", importlib.import_module(f"flashmetric.cli.{name}"))


def build_parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """The parser of all commands; only the chosen one is loaded, and knows its options."""
    parser = argparse.ArgumentParser(
        prog="python -m flashmetric",
        description="FlashMetric: metric-learning losses that never store the distance matrix.",
        epilog="Each command explains itself: python -m flashmetric bench --help",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        sub = commands.add_parser(
            name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if name == chosen:
            command = load(name)
            sub.description = command.DESCRIPTION
            command.add_arguments(sub)
            sub.set_defaults(run=command.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is its answer (0 = good)."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = build_parser(chosen=words[0] if words else None).parse_args(words)
    try:
        return int(args.run(args))
    except BrokenPipeError:
        # The reader (`| head`) has gone; there is nobody left to tell.
        return 1
    except KeyboardInterrupt:
        return 130
