# SPDX-License-Identifier: BSD-3-Clause
"""Calls that mean what the call before them meant.

A training loop asks one miner and one loss again and again. What a call turned out to mean is kept
by its module, with all that it depends on but tensors: its words. They are read from the
dictionaries of modules, because nn.Module looks for its parts by a function of Python, and compared
with those of the call before, which are mostly the same objects.
"""

from __future__ import annotations

from operator import itemgetter
from types import FunctionType
from typing import Any

from torch import Tensor

from flashmetric import _ops
from flashmetric._compat import all_modules_are_hooked

from ._metric import is_hooked, is_touched, keeps_stats

__all__ = ["Words", "are_usual", "keep", "known", "reducer_words", "words_of"]

Words = tuple[Any, ...]

_DISTANCE = itemgetter("power", "p", "normalize_embeddings", "is_inverted", "collect_stats")
_PLAIN = (str, bool, int, float, type(None), type, tuple, FunctionType)


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
    except (RuntimeError, ValueError):  # a word became an array of several numbers
        return None


def keep(module: Any, words: Words | None, meaning: Any) -> None:
    """Unless a word may change without becoming another object, or a part is not what its class
    says, or keeps statistics."""
    parts = [part for part in (module, *module.__dict__["_modules"].values()) if part is not None]
    plain = words is not None and all(isinstance(word, _PLAIN) for word in words)
    if plain and not any(is_touched(part) or keeps_stats(part) for part in parts):
        module.__dict__["_known"] = Known(words, meaning)  # type: ignore[arg-type]


def words_of(module: Any, names: itemgetter[Any], method: Any) -> Words | None:
    """Those of the options of these names and of the distance; None if one of them is a module.

    The method, that of its class, and the names of all attributes tell of methods that somebody
    replaced, and of statistics.
    """
    try:
        own = module.__dict__
        distance = own["_modules"]["distance"]
        options = distance.__dict__
        if is_hooked(distance):
            return None
        return (
            *(type(distance), tuple(options), *_DISTANCE(options)),
            *(tuple(own), method, *names(own)),
        )
    except KeyError:
        return None


def reducer_words(module: Any) -> Words | None:
    """Those of its reducer; None if it has parts, or somebody sees what it is given or returns."""
    reducer = module.__dict__["_modules"].get("reducer")
    if reducer is None or is_hooked(reducer) or all_modules_are_hooked():
        return None
    options = reducer.__dict__
    if options["_modules"]:
        return None
    limits = options.get("low"), options.get("high"), options.get("collect_stats")
    return type(reducer), tuple(options), type(reducer).forward, *limits


def are_usual(embeddings: Any, labels: Any) -> int:
    """The kind of device of plain rows and their class ids; 0 for all others."""
    plain = type(embeddings) is Tensor and type(labels) is Tensor
    return _ops.usual_device(embeddings, labels) if plain else 0
