"""The on-disk cache of datasets: uint8 arrays, written atomically, hashed on every load."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
import tokenize
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from ht_bench.errors import UsageError, reason
from ht_bench.streams.dataset import Dataset, content_hash

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
# The last three come from NumPy's parser of a damaged .npy header.
UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, EOFError),
    *(SyntaxError, tokenize.TokenError, OverflowError, AttributeError, RecursionError, MemoryError),
)


def cache_folder() -> Path:
    """Return HT_BENCH_CACHE, or ~/.cache/ht-bench."""
    named = os.environ.get("HT_BENCH_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "ht-bench"


def is_cached(name: str) -> bool:
    """Whether the cache holds the dataset (its content is checked only by `read`)."""
    return (cache_folder() / name / "meta.json").is_file()


def read(name: str) -> Dataset:
    """Return a cached dataset, the hashes of its content and of meta.json checked.

    Raises UsageError naming the folder when a file is unreadable or its content has changed.
    """
    folder = cache_folder() / name
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if not isinstance(meta, dict):
            raise ValueError("meta.json holds no table")
        arrays: dict[str, Any] = {array: _read_array(folder, array) for array in ARRAYS}
        sha256 = content_hash(**arrays)
        if meta["meta_sha256"] != _meta_hash(meta):
            raise ValueError("meta.json has been changed")
        _check(meta, arrays)
        mean, std = tuple(meta["mean"]), tuple(meta["std"])
        fields = {key: meta[key] for key in ("classes", "max_value", "sha256")}
        dataset = Dataset(name=name, mean=mean, std=std, **arrays, **fields)
    except UNREADABLE as error:
        raise UsageError(
            f"The cached dataset {folder} is unreadable ({reason(error)}); {remake(name)}"
        ) from error
    if sha256 != dataset.sha256:
        raise UsageError(
            f"The cached dataset {folder} has changed: its content hash is {sha256[:12]}…, not "
            f"{dataset.sha256[:12]}…; {remake(name)}"
        )
    return dataset


def _meta_hash(meta: Mapping[str, object]) -> str:
    rest = {key: value for key, value in meta.items() if key != "meta_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _check(meta: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Raise ValueError unless meta.json describes the arrays and they each other."""
    channels = {arrays[f"{part}_images"].shape[1:2] for part in ("train", "test")}
    for key, kind in (("classes", int), ("max_value", int), ("sha256", str)):
        if type(meta[key]) is not kind:
            raise ValueError(f"meta.json: {key} is {meta[key]!r}")
    for key in ("mean", "std"):
        values = meta[key]
        numbers = isinstance(values, list) and all(
            type(v) in (int, float) and math.isfinite(v) for v in values
        )
        if not numbers or {(len(values),)} != channels:
            raise ValueError(f"meta.json: {key} is {values!r}")
    for part in ("train", "test"):
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        if images.ndim != 4 or labels.shape != (len(images),) or not len(labels):
            raise ValueError(f"the {part} images and labels do not belong together")
        if labels.min() < 0 or labels.max() >= meta["classes"]:
            raise ValueError(f"the {part} labels lie outside the classes")


def _read_array(folder: Path, array: str) -> npt.NDArray[Any]:
    values = np.lib.format.open_memmap(folder / f"{array}.npy", mode="r")
    expected = np.dtype(np.uint8 if array.endswith("images") else np.int64)
    if values.dtype != expected:  # the content hash sees bytes, not their type
        raise ValueError(f"{array}.npy holds {values.dtype}, not {expected}")
    return values


def remake(name: str) -> str:
    """Return the words that tell how to make a cache entry again."""
    folder = cache_folder() / name
    return (
        f"delete {folder} and run `ht-bench data fetch {name}` or "
        f"`ht-bench data import {name} PATH` again."
    )


def write(dataset: Dataset) -> None:
    """Put a dataset into the cache by one rename; a crash leaves nothing half-made.

    What another process has written of the same content meanwhile stays.
    Raises UsageError when the disk is full or the cache cannot be written.
    """
    folder = cache_folder() / dataset.name
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{dataset.name}."))
        _write_files(temporary / "new", dataset)
        _take_place(temporary, folder, dataset)
    except OSError as error:
        raise UsageError(
            f"Could not write the data cache {folder}: {error.strerror or error}; free some space "
            "or name another folder with the environment variable HT_BENCH_CACHE."
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _take_place(temporary: Path, folder: Path, dataset: Dataset) -> None:
    """Name temporary/new `folder`; what stood there moves into `temporary`, to be deleted."""
    while not _holds(dataset):
        with contextlib.suppress(FileNotFoundError):
            folder.rename(Path(tempfile.mkdtemp(dir=temporary)) / "old")
        try:
            (temporary / "new").rename(folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise  # otherwise another process was quicker: look at what it wrote


def _holds(dataset: Dataset) -> bool:
    try:
        return is_cached(dataset.name) and read(dataset.name).sha256 == dataset.sha256
    except UsageError:
        return False


def _write_files(folder: Path, dataset: Dataset) -> None:
    folder.mkdir()
    for array in ARRAYS:
        with (folder / f"{array}.npy").open("wb") as file:
            # Into a real file NumPy writes by a way that loses the error's name (a full disk).
            writer: Any = SimpleNamespace(write=file.write)
            np.save(writer, getattr(dataset, array))
    meta: dict[str, object] = {
        "name": dataset.name,
        "sha256": dataset.sha256,
        "classes": dataset.classes,
        "mean": dataset.mean,
        "std": dataset.std,
        "max_value": dataset.max_value,
        "train": list(dataset.train_images.shape),
        "test": list(dataset.test_images.shape),
    }
    meta["meta_sha256"] = _meta_hash(meta)
    (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
