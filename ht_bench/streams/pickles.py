"""CIFAR's "python version": pickled batches, read without running any code.

A pickle is a program for a stack machine. Only arrays of NumPy, bytes, text, numbers, lists and
dictionaries are made here: whatever else a file asks for is refused by name, NumPy's own
constructors are replaced by ones that only collect bytes, and the program is looked through first
(`programs`).
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ht_bench.errors import UsageError, reason, shown
from ht_bench.streams.arrays import check_lengths
from ht_bench.streams.dataset import DatasetSource, Part
from ht_bench.streams.pictures import check_array, check_labels
from ht_bench.streams.programs import check_program

LARGEST = 2**30
"""Bytes of one pickle at most; CIFAR's largest has 155 million."""
TRAIN_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
DAMAGED = (
    *(pickle.UnpicklingError, OSError, EOFError, ValueError, KeyError, IndexError),
    *(AttributeError, TypeError, MemoryError, OverflowError, RecursionError),
)


def holds_batches(path: Path, source: DatasetSource) -> bool:
    """Whether `path` is cifar-10-batches-py or cifar-100-python, or some of it."""
    names = (*TRAIN_BATCHES, "test_batch", "train", "test")
    return any((path / name).is_file() for name in names)


def read_batches(path: Path, source: DatasetSource) -> dict[str, Part]:
    """Return both parts of CIFAR's pickled batches; raises UsageError naming what is wrong."""
    of_ten = any((path / name).is_file() for name in (*TRAIN_BATCHES, "test_batch"))
    files: dict[str, tuple[str, ...]] = {"train": ("train",), "test": ("test",)}
    if of_ten:
        files = {"train": TRAIN_BATCHES, "test": ("test_batch",)}
    parts = {}
    for part, names in files.items():
        for name in names:
            if not (path / name).is_file():
                raise UsageError(
                    f"{path} has no {part} images for {source.name} in a file '{name}'; unpack "
                    "the archive again."
                )
        batches = [_read_batch(source, path / name) for name in names]
        images, labels = zip(*batches, strict=True)
        parts[part] = np.concatenate(images), np.concatenate(labels)
    return parts


def _read_batch(source: DatasetSource, file: Path) -> Part:
    batch = load_safely(file)
    if not isinstance(batch, dict):
        raise UsageError(f"{file} holds no dictionary; unpack the archive again.")
    # Python 2 wrote the keys as bytes.
    table = {k.decode("latin-1") if isinstance(k, bytes) else k: v for k, v in batch.items()}
    label = f"{source.label}s"  # `label`, `fine_label`: a row's there, many here
    for key in ("data", label):
        if key not in table:
            others = ", ".join(sorted(shown(k).strip("'") for k in table)[:8]) or "nothing"
            raise UsageError(f"{file} has no '{key}' for {source.name}; it has {others}.")
    images = table["data"]
    if not isinstance(images, np.ndarray):
        raise UsageError(f"{file}: its 'data' is no array; unpack the archive again.")
    labels = table[label]
    if not isinstance(labels, np.ndarray) and not (
        isinstance(labels, list) and all(type(value) is int for value in labels)
    ):
        raise UsageError(f"{file}: its '{label}' are no whole numbers; unpack the archive again.")
    part = check_array(source, images, str(file)), check_labels(source, labels, str(file))
    check_lengths({file.name: part}, str(file.parent))
    return part


# ---- the reader ----


class _Type:
    """What stands for numpy.dtype: only its code is kept."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        self.code = code.decode("latin-1") if isinstance(code, bytes) else code
        self.order = "|"

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        self.order = order.decode("latin-1") if isinstance(order, bytes) else order

    def real(self) -> np.dtype[Any]:
        """The type itself, where it is one of whole numbers."""
        codes = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)}
        orders = ("|", "<", ">", "=")
        texts = isinstance(self.code, str) and isinstance(self.order, str)
        if not texts or self.code not in codes or self.order not in orders:
            raise ValueError(f"an array of type {shown(self.code)}")
        return np.dtype(self.order.replace("|", "=") + self.code)


class _Array:
    """What stands for numpy.ndarray: empty until its state has come."""

    values: npt.NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, content = state
        self.values = _values(content, kind, shape, "F" if fortran else "C")


def _values(content: Any, kind: Any, shape: Any, order: Any) -> npt.NDArray[Any]:
    if not isinstance(kind, _Type) or not isinstance(content, bytes | bytearray):
        raise ValueError("an array without its bytes")
    values: npt.NDArray[Any] = np.frombuffer(content, dtype=kind.real())
    sizes = tuple(shape)
    sound = all(type(size) is int and size >= 0 for size in sizes)
    if not sound or math.prod(sizes) != len(values):
        raise ValueError(f"an array of shape {shown(sizes)} from {len(values)} numbers")
    return values.reshape(sizes, order="F" if order == "F" else "C")


def _empty(*_: Any) -> _Array:
    return _Array()


def _filled(content: Any, kind: Any, shape: Any, order: Any = "C") -> _Array:
    array = _Array()
    array.values = _values(content, kind, shape, order)
    return array


def _scalar(kind: Any, content: Any) -> int:
    number: int = _values(content, kind, (1,), "C").item()
    return number


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("a text in another encoding than latin1")
    return text.encode("latin1")


class _Maker:
    """A function that a pickle may call but not change: BUILD sets attributes of what it gets."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes a function")


_ALLOWED = {
    ("_codecs", "encode"): _Maker(_encode),
    ("numpy", "ndarray"): _Maker(_empty),
    ("numpy", "dtype"): _Maker(_Type),
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _Maker(_empty)
    _ALLOWED[f"{_core}.multiarray", "scalar"] = _Maker(_scalar)
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _Maker(_filled)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in for one of NumPy's names; nothing is ever imported."""
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not run")
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """Refuse what lies outside the file."""
        raise pickle.UnpicklingError("it asks for something outside the file")


def load_safely(file: Path) -> Any:
    """Return what a pickle of arrays, bytes, text, numbers, lists and dictionaries holds.

    Raises UsageError for a damaged file, one over `LARGEST`, and one that asks for anything else.
    """
    try:
        if file.stat().st_size > LARGEST:
            raise UsageError(f"{file} has more than {LARGEST:,} bytes: it is no batch of CIFAR.")
        content = file.read_bytes()
        check_program(io.BytesIO(content), len(content))
        return _plain(_Unpickler(io.BytesIO(content), encoding="bytes").load())
    except UsageError:
        raise
    except DAMAGED as error:
        raise UsageError(
            f"{file} is no pickle of plain arrays ({reason(error)}); unpack the archive again."
        ) from error


def _plain(value: Any) -> Any:
    """The dictionary with its arrays in place of their stand-ins."""
    if not isinstance(value, dict):
        return value
    return {k: v.values if isinstance(v, _Array) else v for k, v in value.items()}
