# SPDX-License-Identifier: BSD-3-Clause
"""Calls that mean what the call before them meant.

A training loop asks one miner and one loss again and again. What a call turned out to mean is kept
by its module, with all that it depends on but tensors: its words. They are read from the
dictionaries of modules, because nn.Module looks for its parts by a function of Python, and compared
with those of the call before, which are mostly the same objects.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from torch import Tensor

from flashmetric import _ops

__all__ = ["Words", "are_usual", "keep", "known", "reducer_words", "words_of"]

Words = tuple[Any, ...]

_DISTANCE = itemgetter("power", "p", "normalize_embeddings", "collect_stats")
_HOOKS = itemgetter(
    "_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks"
)
_PLAIN = (str, bool, int, float, type(None), type)


class Known:
    """What a call meant; a copy of its module has to find out for itself."""

    __slots__ = ("meaning", "words")

    def __init__(self, words: Words, meaning: Any) -> None:
        self.words, self.meaning = words, meaning

    def __reduce__(self) -> Any:
        return type(None), ()


def known(module: Any, words: Words | None) -> Any:
    """What the call of these words meant, if it was the last that the module kept."""
    kept = module.__dict__.get("_known")
    try:
        return kept.meaning if kept is not None and kept.words == words else None
    except RuntimeError:  # a word became a tensor of several numbers
        return None


def keep(module: Any, words: Words | None, meaning: Any) -> None:
    """Unless one of the words may change without becoming another object."""
    if words is not None and all(isinstance(word, _PLAIN) for word in words):
        module.__dict__["_known"] = Known(words, meaning)


def words_of(module: Any, names: itemgetter[Any]) -> Words | None:
    """Those of the options of these names and of the distance; None if one of them is a module.

    How many attributes there are tells of those that somebody added, as statistics, or a method in
    the place of that of the class.
    """
    try:
        own = module.__dict__
        distance = own["_modules"]["distance"]
        options = distance.__dict__
        return (
            *(type(distance), len(options), *_DISTANCE(options)),
            *(len(own), *names(own)),
        )
    except KeyError:
        return None


def reducer_words(module: Any) -> Words | None:
    """Those of its reducer; None if it has parts, or somebody sees what it is given or returns."""
    reducer = module.__dict__["_modules"].get("reducer")
    if reducer is None:
        return None
    options = reducer.__dict__
    if options["_modules"] or any(_HOOKS(options)):
        return None
    limits = options.get("low"), options.get("high")
    return type(reducer), len(options), options.get("collect_stats"), *limits


def are_usual(embeddings: Any, labels: Any) -> int:
    """The kind of device of plain rows and their class ids; 0 for all others."""
    plain = type(embeddings) is Tensor and type(labels) is Tensor
    return _ops.usual_device(embeddings, labels) if plain else 0
