# SPDX-License-Identifier: BSD-3-Clause
"""The dispatcher ops `torch.ops.flashmetric.*`: tensors become pointers here, and nowhere else.

    mine               the chosen positive and negative of every query
    triplet            loss of given triplets, with gradients and statistics where wanted
    mined_triplet      the two in one
    list_triplets      the triplets that a rule forms
    listed_triplet     their loss
    dense              losses over all triplets or all pairs
    apart              the second negative of quadruplets
    bounds             the extreme pairs of a batch
    paired             distances of given pairs
    paired_backward    their gradient
    pairwise           distances of all pairs
    pairwise_backward  their gradient

Each op has a kernel per device and a fake kernel that knows the shapes (_outputs.py). Arguments
were checked by _validate; outputs and scratch memory come from torch. The ops carry no autograd
formula (_autograd.py does): called directly they return constants.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NoReturn

import torch

from flashmetric import _outputs
from flashmetric._compat import is_watched, is_wrapped

from . import cpu, cuda, extremes, listed
from . import dense as dense_ops
from .calls import WHY_NO_KERNELS, usual_device
from .classes import triplet_of_classes

__all__ = [
    "apart",
    "bounds",
    "dense",
    "forward",
    "list_triplets",
    "listed_triplet",
    "mine",
    "mined_triplet",
    "paired",
    "paired_backward",
    "pairwise",
    "pairwise_backward",
    "refuse_vmap",
    "triplet",
    "triplet_of_classes",
    "usual_device",
    "why_not_fused",
]

_CPU = torch.device("cpu")

# Registration. A device is one more name in the loop below.


def refuse_vmap(*_: Any, **__: Any) -> NoReturn:
    message = (
        "[flashmetric] torch.vmap is not supported: a batch of embeddings is one comparison of all "
        "rows. Loop over the batches, or use same_mask to keep groups of one batch apart."
    )
    raise RuntimeError(message)


def _refuse_trace(*_: Any, **__: Any) -> NoReturn:
    message = (
        "[flashmetric] torch.jit.trace is not supported: a trace would keep outputs that nothing "
        "fills. Use torch.compile or torch.export."
    )
    raise RuntimeError(message)


_COMPARISON = """
    Tensor query, Tensor? ref, Tensor labels, Tensor? ref_labels, Tensor? self_index"""
_RULE = """
    Tensor? mining_margins, Tensor? hardness, Tensor? seed"""
_RULE_NUMBERS = """
    bool drop_without_semihard, float hardness_number, int positive_mining, int negative_mining,
    int n_negatives, float mining_margin, bool uncovered"""
_SCHEMAS = {
    "apart": f"""({_COMPARISON}, Tensor negative,
        str relation, Scalar? ignore_label, str distance, bool normalize
    ) -> Tensor""",
    "bounds": f"""({_COMPARISON},
        str relation, Scalar? ignore_label, str distance, bool normalize
    ) -> Tensor""",
    "mine": f"""({_COMPARISON},
        str relation, Scalar? ignore_label, str mining, str distance, bool normalize
    ) -> (Tensor positive, Tensor negative)""",
    "triplet": """(
        Tensor anchor_rows, Tensor? positive_rows, Tensor? negative_rows,
        Tensor? anchor, Tensor? positive, Tensor? negative,
        Tensor? margin_values, Tensor? weights, Tensor? cotangent, float margin,
        str distance, bool normalize, bool soft_margin, bool swap, bool count_invalid,
        str reduction, bool[3] wanted, bool with_stats
    ) -> Tensor[]""",
    "mined_triplet": f"""({_COMPARISON},
        Tensor? margin_values, Tensor? weights,
        str relation, Scalar? ignore_label, str mining, float margin,
        str distance, bool normalize, bool soft_margin, bool swap, bool count_invalid,
        str reduction, bool[3] wanted, bool with_stats
    ) -> Tensor[]""",
    "list_triplets": f"""({_COMPARISON}, {_RULE},
        str relation, Scalar? ignore_label, str mining, str distance, bool normalize,
        {_RULE_NUMBERS}
    ) -> (Tensor anchor, Tensor positive, Tensor negative)""",
    "listed_triplet": f"""({_COMPARISON}, {_RULE},
        Tensor? margin_values, Tensor? weights, Tensor? cotangent,
        str relation, Scalar? ignore_label, str mining, {_RULE_NUMBERS},
        float margin, str distance, bool normalize, bool soft_margin,
        str reduction, bool[2] wanted, bool with_stats
    ) -> Tensor[]""",
    "dense": f"""({_COMPARISON},
        Tensor? mining_margins, Tensor? margin_values, Tensor? bounds, Tensor? weights,
        Tensor? cotangent,
        str relation, Scalar? ignore_label, str loss, float margin, float mining_margin,
        bool soft_margin, float temperature, bool detach_weights, int power, float factor,
        str distance, bool normalize, str reduction, bool[2] wanted, bool with_stats
    ) -> Tensor[]""",
    "paired": """(
        Tensor x, Tensor? r, Tensor? index_x, Tensor? index_r, str distance, bool normalize
    ) -> Tensor""",
    "paired_backward": """(
        Tensor x, Tensor? r, Tensor? index_x, Tensor? index_r, Tensor cotangent,
        str distance, bool normalize, bool[2] wanted
    ) -> Tensor[]""",
    "pairwise": "(Tensor x, Tensor? y, str distance, bool normalize) -> Tensor",
    "pairwise_backward": """(
        Tensor x, Tensor? y, Tensor cotangent, str distance, bool normalize, bool[2] wanted
    ) -> Tensor[]""",
}
_FAKES: dict[str, Callable[..., Any]] = {
    "apart": _outputs.apart,
    "bounds": _outputs.bounds,
    "dense": _outputs.batch_loss,
    "list_triplets": _outputs.list_triplets,
    "listed_triplet": _outputs.batch_loss,
    "mine": _outputs.mine,
    "mined_triplet": _outputs.mined_triplet,
    "paired": _outputs.paired,
    "paired_backward": _outputs.paired_backward,
    "pairwise": _outputs.pairwise,
    "pairwise_backward": _outputs.pairwise_backward,
    "triplet": _outputs.triplet,
}
_ON_CPU: dict[str, Callable[..., Any]] = {
    "apart": extremes.apart,
    "bounds": extremes.bounds,
    "dense": dense_ops.dense,
    "list_triplets": listed.list_triplets,
    "listed_triplet": listed.listed_triplet,
    "mine": cpu.mine,
    "mined_triplet": cpu.mined_triplet,
    "paired": cpu.PAIRS.paired,
    "paired_backward": cpu.PAIRS.paired_backward,
    "pairwise": cpu.PAIRS.pairwise,
    "pairwise_backward": cpu.PAIRS.pairwise_backward,
    "triplet": cpu.triplet,
}
_ON_CUDA: dict[str, Callable[..., Any]] = {
    "apart": extremes.apart_without_waiting,
    "bounds": extremes.bounds,
    "dense": cuda.dense,
    "list_triplets": cuda.list_triplets,
    "listed_triplet": cuda.listed_triplet,
    "mine": cuda.mine,
    "mined_triplet": cuda.mined_triplet,
    "paired": cuda.PAIRS.paired,
    "paired_backward": cuda.PAIRS.paired_backward,
    "pairwise": cuda.PAIRS.pairwise,
    "pairwise_backward": cuda.PAIRS.pairwise_backward,
    "triplet": cuda.triplet,
}
_KERNELS = {"CPU": _ON_CPU, "CUDA": _ON_CUDA if cuda.WHY_NO_CUDA == "" else {}}


def _untraced(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """For ops that torch.compile left out of its graphs: it does not look into them either. Until
    somebody compiles, the import that this takes is not worth its second."""
    hidden: list[Callable[..., Any]] = []

    def run(*args: Any) -> Any:
        if "torch._dynamo" not in sys.modules:
            return kernel(*args)
        if not hidden:
            hidden.append(torch.compiler.disable(lambda *given: kernel(*given)))
        return hidden[0](*args)

    return run


_LIBRARY = torch.library.Library("flashmetric", "DEF")
for _name, _schema in _SCHEMAS.items():
    _LIBRARY.define(_name + _schema, tags=torch.Tag.pt2_compliant_tag)
    torch.library.register_fake(f"flashmetric::{_name}", _FAKES[_name], lib=_LIBRARY)
    _LIBRARY.impl(_name, torch.library.fallthrough_kernel, "Autograd")
    _LIBRARY.impl(_name, refuse_vmap, "FuncTorchBatched")
    _LIBRARY.impl(_name, _refuse_trace, "Tracer")
    for _device, _kernels in () if WHY_NO_KERNELS else _KERNELS.items():
        if _name in _kernels:
            _LIBRARY.impl(_name, _untraced(_kernels[_name]), _device)

apart = torch.ops.flashmetric.apart.default
bounds = torch.ops.flashmetric.bounds.default
dense = torch.ops.flashmetric.dense.default
list_triplets = torch.ops.flashmetric.list_triplets.default
listed_triplet = torch.ops.flashmetric.listed_triplet.default
mine = torch.ops.flashmetric.mine.default
triplet = torch.ops.flashmetric.triplet.default
mined_triplet = torch.ops.flashmetric.mined_triplet.default
paired = torch.ops.flashmetric.paired.default
paired_backward = torch.ops.flashmetric.paired_backward.default
pairwise = torch.ops.flashmetric.pairwise.default
pairwise_backward = torch.ops.flashmetric.pairwise_backward.default


def forward(name: str, query: torch.Tensor, *args: Any) -> Any:
    """The op of that name; or, of a plain CPU tensor that nobody watches, its kernel.

    Turning 20 arguments into those of the dispatcher and back takes 8 us, as long as a kernel takes
    for 64 rows. Not for a backward: what autograd kept may be a tensor in a dead wrapper of
    torch.func, which only the dispatcher unwraps.
    """
    watched = is_watched() or bool(WHY_NO_KERNELS)
    if not watched and type(query) is torch.Tensor and query.is_cpu and not is_wrapped(query):
        return _ON_CPU[name](query, *args)
    return getattr(torch.ops.flashmetric, name).default(query, *args)


def why_not_fused(device: torch.device, kernel: str) -> str:
    """The reason why tensors of this device have no kernel for an op; empty if they have."""
    if WHY_NO_KERNELS:
        return WHY_NO_KERNELS
    if device == _CPU or device.type == "meta":  # reading the type costs five comparisons
        return ""
    if device.type != "cuda":
        return f"there are no kernels for device {device.type!r} yet"
    if cuda.WHY_NO_CUDA:
        return cuda.WHY_NO_CUDA
    return "" if kernel in _ON_CUDA else f"there is no CUDA kernel for {kernel!r} yet"
