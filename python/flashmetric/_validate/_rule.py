# SPDX-License-Identifier: BSD-3-Clause
"""The keywords of a mining rule: which words and numbers they take, and which rule reads them."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from ._basic import error, names
from ._numbers import count, generator, hardness, number, temperature


class RuleOptions(NamedTuple):
    """What the caller says of the rule, by the names of the keywords."""

    mining: Any
    fallback: Any = "farthest"
    hardness: Any = None
    mining_margin: Any = None
    positive_mining: Any = "easy"
    negative_mining: Any = "semihard"
    n_negatives: Any = 1
    generator: Any = None
    temperature: Any = 1  # torch.compile may take a float for an input, and compile twice
    detach_weights: Any = False


# Who reads a keyword. Another value than the default is an error elsewhere: nothing would read it.
_READ_BY = {
    "fallback": ("semihard",),
    "hardness": ("semihard",),
    "mining_margin": ("semihard_all", "hard_all", "easy_all"),
    "positive_mining": ("easy_hard",),
    "negative_mining": ("easy_hard",),
    "n_negatives": ("random",),
    "generator": ("distance_weighted", "random"),
    "temperature": ("soft",),
    "detach_weights": ("soft",),
}
_DEFAULTS = RuleOptions(None)
_COUNTS_INVALID = ("hard", "semihard", "all")


def rule_words(op: str, options: RuleOptions) -> None:
    """What can be checked without embeddings, as when a module is made."""
    if options[1:] == _DEFAULTS[1:]:  # the usual case, in a twentieth of the time
        return
    positive, negative = options.positive_mining, options.negative_mining
    names(op, fallback=options.fallback, positive_mining=positive, negative_mining=negative)
    for argument, readers in _READ_BY.items():
        value, default = getattr(options, argument), getattr(_DEFAULTS, argument)
        unread = value is not default and options.mining not in readers
        if unread and (isinstance(value, Tensor) or value != default):
            raise _wrong_rule(op, argument, readers, options.mining)
    if {positive, negative} in ({"semihard"}, {"semihard", "all"}):
        text = "positive_mining and negative_mining must not be 'semihard' with 'semihard' or 'all'"
        raise error(ValueError, op, f"{text}; got {positive!r} and {negative!r}.")


def rule_numbers(op: str, options: RuleOptions, rows: Tensor) -> None:
    """The rest, callables replaced by what they gave."""
    hardness(op, options.hardness, rows)
    number(op, "mining_margin", options.mining_margin, rows, rows.shape[0], optional=True)
    count(op, "n_negatives", options.n_negatives)
    generator(op, options.generator)
    temperature(op, options.temperature)


def counts_invalid(op: str, invalid: str, mining: str) -> None:
    """Is "count" asked for, of a rule that knows it?"""
    if invalid == "count" and mining not in _COUNTS_INVALID:
        raise _wrong_rule(op, "invalid='count'", _COUNTS_INVALID, mining)


def _wrong_rule(op: str, argument: str, readers: tuple[str, ...], mining: str) -> Exception:
    *first, last = (repr(name) for name in readers)
    known = f"{', '.join(first)} or {last}" if first else last
    return error(ValueError, op, f"{argument} needs mining={known}; got {mining!r}.")
