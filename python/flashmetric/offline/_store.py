# SPDX-License-Identifier: BSD-3-Clause
"""Results on disk: chunk by chunk, then as one .npz or one .npy for each column.

    out/request.json, out/<column>.npy        a directory, complete once request.json is there
    out.npz                                   one file, which also holds the request
    <work>/request.json, <work>/00000.npy     while mining; work = out/parts or out.npz.parts

Every file is written beside its place and moved there in one step, so an interrupted run leaves
whole chunks, and the next one goes on behind them, if its request is the same: all options, the
shapes and dtypes, all labels, and a sample of the rows.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from flashmetric._validate import data as check

__all__ = ["Store", "fingerprint", "read_columns"]

# Of an embedding matrix, spread evenly: another epoch of training changes them all.
SAMPLED_ROWS = 1024


class Store:
    """The columns of one job, at `out`."""

    def __init__(
        self,
        op: str,
        out: str | os.PathLike[str],
        fields: tuple[str, ...],
        request: dict[str, Any],
        *,
        resume: bool,
    ) -> None:
        self.op, self.fields = op, fields
        self.out = Path(out)
        self.one_file = self.out.suffix == ".npz"
        self.work = (
            self.out.with_name(self.out.name + ".parts") if self.one_file else self.out / "parts"
        )
        self.request = json.loads(json.dumps(request))
        if not resume:
            self._remove()
        for found in (self._complete_request(), _read_json(self.work / "request.json")):
            if found is not None and found != self.request:
                raise check.error(ValueError, op, self._differs(found))
        if not self.is_complete():
            self.work.mkdir(parents=True, exist_ok=True)
            _write(self.work / "request.json", partial(_write_json, self.request))

    def is_complete(self) -> bool:
        return bool(self._complete_request() == self.request)

    def has(self, chunk: int) -> bool:
        return self._part(chunk).exists()

    def write(self, chunk: int, columns: tuple[Tensor, ...]) -> None:
        array = torch.stack(columns).cpu().numpy()
        _write(self._part(chunk), lambda file: _numpy().save(file, array))

    def complete(self, n_chunks: int) -> None:
        """Puts the chunks together, one of them in memory at a time."""
        np = _numpy()
        parts = [np.load(self._part(chunk), mmap_mode="r") for chunk in range(n_chunks)]
        folder = self.work if self.one_file else self.out
        for k, field in enumerate(self.fields):
            _write(folder / f"{field}.npy", partial(_write_joined, [part[k] for part in parts]))
        if self.one_file:
            columns = {f: np.load(folder / f"{f}.npy", mmap_mode="r") for f in self.fields}
            request = np.array(json.dumps(self.request))
            _write(self.out, lambda file: np.savez(file, request=request, **columns))
        else:
            _write(self.out / "request.json", partial(_write_json, self.request))
        self._remove_work()

    def load(self) -> tuple[Tensor, ...]:
        columns = read_columns(self.out)
        return tuple(columns[field] for field in self.fields)

    def _part(self, chunk: int) -> Path:
        return self.work / f"{chunk:05d}.npy"

    def _complete_request(self) -> Any:
        if not self.one_file:
            return _read_json(self.out / "request.json")
        if not self.out.exists():
            return None
        with _numpy().load(self.out) as columns:
            return json.loads(str(columns["request"])) if "request" in columns else {}

    def _differs(self, found: dict[str, Any]) -> str:
        ours, theirs = _flat(self.request), _flat(found)
        names = sorted(n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n))
        return (
            f"out must be new, or hold a run of the same request; {self.out} differs in "
            f"{', '.join(names)}. Choose another path, or pass resume=False to replace it."
        )

    def _remove(self) -> None:
        self._remove_work()
        files = [self.out] if self.one_file else [self.out / "request.json"]
        files += [] if self.one_file else [self.out / f"{field}.npy" for field in self.fields]
        for file in files:
            file.unlink(missing_ok=True)

    def _remove_work(self) -> None:
        """Only files of the kind that is written here."""
        for pattern in ("*.npy", "*.tmp", "request.json"):
            for file in self.work.glob(pattern):
                file.unlink()
        if self.work.exists() and not any(self.work.iterdir()):
            self.work.rmdir()


def read_columns(out: Path) -> dict[str, Tensor]:
    """By name: memory-mapped from a directory, read from an .npz."""
    np = _numpy()
    if out.suffix == ".npz":
        with np.load(out) as columns:
            return {name: torch.from_numpy(columns[name]) for name in columns if name != "request"}
    # "c": whoever writes to the tensor changes a page of his own, not the file.
    files = sorted(out.glob("*.npy"))
    return {file.stem: torch.from_numpy(np.load(file, mmap_mode="c")) for file in files}


def fingerprint(part: Any) -> Any:
    """What a request remembers of an argument."""
    if isinstance(part, torch.nn.Module):  # a distance that was learned
        tensors = {**dict(part.named_parameters()), **dict(part.named_buffers())}
        return {"module": repr(part)} | {name: fingerprint(each) for name, each in tensors.items()}
    if not isinstance(part, Tensor):
        plain = part is None or isinstance(part, (bool, int, float, str))
        return part if plain else repr(part)
    rows = part
    if part.ndim == 2 and part.is_floating_point() and len(part) > SAMPLED_ROWS:
        rows = part[torch.arange(SAMPLED_ROWS, device=part.device) * len(part) // SAMPLED_ROWS]
    data = rows.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    digest = hashlib.blake2b(data.data, digest_size=16).hexdigest()
    return {"shape": list(part.shape), "dtype": str(part.dtype), "values": digest}


def _numpy() -> Any:
    """Files are numpy's; torch works without it."""
    return importlib.import_module("numpy")


def _write(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """All of the file or nothing, also if the machine stops."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with beside.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _write_joined(columns: list[Any], file: BinaryIO) -> None:
    header = {"descr": "<i8", "fortran_order": False, "shape": (sum(map(len, columns)),)}
    _numpy().lib.format.write_array_header_1_0(file, header)
    for column in columns:
        file.write(column.astype("<i8").tobytes())


def _write_json(value: Any, file: BinaryIO) -> None:
    file.write(json.dumps(value, indent=1, sort_keys=True).encode())


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    return {
        path: leaf
        for key, inner in value.items()
        for path, leaf in _flat(inner, f"{name}.{key}" if name else key).items()
    }
