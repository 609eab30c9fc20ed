"""Where images come from: scikit-learn's digits, parquet files, image folders, the hub."""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ht_bench.errors import UsageError
from ht_bench.streams.dataset import Dataset, Images, Labels, make_dataset
from ht_bench.streams.randomness import generator

DIGITS_TEST = 500
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
MODES = ("L", "RGB", "1", "P")
"""Pillow's modes that convert to grey or RGB of 8 bits; of the others something would be lost."""


@dataclass(frozen=True)
class DatasetSource:
    """A known dataset: its place on the hub, its columns, its images' shape and its content.

    shape: (channels, height, width). sha256: the content hash it must have, if it is known.
    """

    name: str
    description: str
    hub: str
    image: str
    label: str
    shape: tuple[int, int, int]
    classes: int
    test: str = "test"
    sha256: str | None = None


def digits() -> Dataset:
    """Return scikit-learn's bundled digits: 1,797 images 1×8×8, values 0 to 16, 500 for test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = bunch.images.astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    everything = make_dataset("digits", (images, labels), (images[:1], labels[:1]), 10, 16)
    order = generator("digits", 0, "split").permutation(len(labels))
    test, train = np.sort(order[:DIGITS_TEST]), np.sort(order[DIGITS_TEST:])
    x, y = everything.train_images, everything.train_labels
    return make_dataset("digits", (x[train], y[train]), (x[test], y[test]), 10, 16)


def from_path(source: DatasetSource, path: Path) -> Dataset:
    """Read parquet files (train*, test* or valid*) or image folders (train/<class>/…) below `path`.

    Raises UsageError naming what is missing or wrong.
    """
    if not path.is_dir():
        raise UsageError(
            f"There is no folder {path}; name the one that holds {source.name}'s files."
        )
    stems = {"train": ("train",), "test": (source.test, "test", "valid", "val")}
    parquet = {part: _parquet_files(path, names) for part, names in stems.items()}
    if any(parquet.values()):
        builder, files = "parquet", parquet
    else:
        builder, files = "imagefolder", {p: _image_files(path, n) for p, n in stems.items()}
    for part, paths in files.items():
        if not paths:
            raise UsageError(
                f"{path} has no {part} images for {source.name}: put {part}*.parquet files or "
                f"{part}/<class>/*.png folders there."
            )
    if builder == "imagefolder":
        _check_classes(source, path, [file for part in files.values() for file in part])
    options = {} if builder == "parquet" else {"drop_labels": False}
    library = _library()
    with _local_only(library) as temporary:
        try:
            parts = library.load_dataset(builder, data_files=files, cache_dir=temporary, **options)
        except (ValueError, OSError, library.exceptions.DatasetGenerationError) as error:
            raise UsageError(
                f"{path} could not be read as {source.name}: {_reason(error)}."
            ) from error
        image, label = (source.image, source.label) if builder == "parquet" else ("image", "label")
        return _assemble(source, parts, image, label, "test", str(path))


def _reason(error: BaseException) -> str:
    """Return an error's own words on one line; `datasets` wraps the cause in a general one."""
    words = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
    return (words if len(words) <= 200 else words[:200] + " …").rstrip(".")


def _check_classes(source: DatasetSource, path: Path, files: list[str]) -> None:
    names = {Path(file).parent.name for file in files}
    if len(names) != source.classes:
        raise UsageError(
            f"{path}: class folders found: {len(names)}, but {source.name} has {source.classes} "
            "classes; put the images into train/<class>/ and test/<class>/."
        )
    if all(name.isdecimal() for name in names) and sorted(names) != sorted(names, key=int):
        raise UsageError(
            f"{path}: the numbers that name the class folders sort otherwise as text (10 before "
            "2), which would permute the labels; write them with leading zeros (02)."
        )


def from_hub(source: DatasetSource) -> Dataset:
    """Download a dataset from the hub; raises UsageError without a network."""
    library = _library()
    from huggingface_hub.errors import HfHubHTTPError

    import_it = (
        f"put its files on this machine and run `ht-bench data import {source.name} PATH` "
        "(parquet files or train/<class>/*.png folders)"
    )
    print(f"Fetching {source.name} from the hub ({source.hub}).", file=sys.stderr)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries need no log
    try:
        parts = library.load_dataset(source.hub)
    except (
        OSError,  # ConnectionError and the hub's own offline errors among them
        ValueError,
        library.exceptions.DatasetsError,
        *HfHubHTTPError.__bases__,  # what the hub's HTTP library raises, whichever it is
    ) as error:
        raise UsageError(
            f"Could not fetch {source.name} from the hub ({type(error).__name__}: "
            f"{_reason(error)}); {import_it}."
        ) from error
    return _assemble(source, parts, source.image, source.label, source.test, source.hub)


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise UsageError(
            "Reading dataset files needs the extra 'data'; run: pip install 'ht-bench[data]'."
        ) from error
    datasets.disable_progress_bars()
    return datasets


@contextmanager
def _local_only(library: Any) -> Iterator[str]:
    """A temporary cache for `datasets`, and no look at the network for local files."""
    # Not the environment variable: it is read once, at import, and would keep a fetch offline too.
    before = library.config.HF_HUB_OFFLINE
    library.config.HF_HUB_OFFLINE = True
    try:
        with tempfile.TemporaryDirectory(prefix="ht-bench-") as folder:
            yield folder
    finally:
        library.config.HF_HUB_OFFLINE = before


def _parquet_files(path: Path, stems: tuple[str, ...]) -> list[str]:
    candidates = [sorted(path.rglob(f"{stem}*.parquet")) for stem in stems]
    shown = ([file for file in files if not _is_hidden(file, path)] for files in candidates)
    return [str(file) for file in next(filter(None, shown), [])]  # of the first that has any


def _image_files(path: Path, names: tuple[str, ...]) -> list[str]:
    folders = [path / name for name in names if (path / name).is_dir()]
    files = sorted(file for folder in folders[:1] for file in folder.rglob("*"))
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    return [str(file) for file in images if not _is_hidden(file, path)]


def _is_hidden(file: Path, root: Path) -> bool:
    """Whether a system left it there: .ipynb_checkpoints/, a Mac's ._ files and __MACOSX/."""
    parts = file.relative_to(root).parts
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _assemble(
    source: DatasetSource, parts: Any, image: str, label: str, test: str, where: str
) -> Dataset:
    decoded = {}
    for part, name in (("train", "train"), ("test", test)):
        if name not in parts:
            raise UsageError(f"{where} has no '{name}' split; {source.name} needs one.")
        for column in (image, label):
            if column not in parts[name].column_names:
                raise UsageError(
                    f"{where}: the {part} files have no column '{column}'; they have "
                    f"{', '.join(parts[name].column_names)}."
                )
        decoded[part] = _decode(source, parts[name], image, label, where)
    return make_dataset(source.name, decoded["train"], decoded["test"], source.classes)


def _decode(
    source: DatasetSource, rows: Any, image: str, label: str, where: str
) -> tuple[Images, Labels]:
    from tqdm import tqdm

    images = np.empty((len(rows), *source.shape), dtype=np.uint8)
    pictures = rows.select_columns([image])
    done = 0
    try:
        for row in tqdm(pictures, desc=f"decoding {source.name}", leave=False):
            images[done] = _pixels(source, row[image], f"{where}: image {done}")
            done += 1
    except (OSError, SyntaxError) as error:  # Pillow's, of a damaged image
        raise UsageError(
            f"{where}: image {done} cannot be decoded ({error}); replace that file."
        ) from error
    labels = np.asarray(rows[label][:])
    whole = len(labels) > 0 and labels.dtype.kind in "iu"
    if not whole or labels.min() < 0 or labels.max() >= source.classes:
        raise UsageError(
            f"{where}: labels must be whole numbers and lie in 0 … {source.classes - 1}."
        )
    return images, labels.astype(np.int64)


def _pixels(source: DatasetSource, picture: Any, where: str) -> Images:
    channels, height, width = source.shape
    if not hasattr(picture, "convert"):  # None, or bytes that the file does not declare an image
        raise UsageError(
            f"{where} is no image for `datasets`; write the column with its feature Image()."
        )
    if (picture.width, picture.height) != (width, height):
        raise UsageError(
            f"{where} is {picture.width}×{picture.height}, but {source.name}'s are "
            f"{width}×{height}."
        )
    if picture.mode not in MODES:
        raise UsageError(
            f"{where} is of mode {picture.mode}, but {source.name}'s are of 8 bits, grey or RGB."
        )
    pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"), dtype=np.uint8)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
