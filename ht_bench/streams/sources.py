"""Where images come from: files in any known layout, the hub."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

from ht_bench.errors import UsageError, reason
from ht_bench.streams import archives, arrays, folders, parquet, pickles
from ht_bench.streams.dataset import Dataset, DatasetSource, Part, make_dataset

__all__ = ["DatasetSource", "from_hub", "from_path"]

Layout = tuple[
    Callable[[Path, DatasetSource], bool], Callable[[Path, DatasetSource], dict[str, Part]]
]
LAYOUTS: tuple[Layout, ...] = (
    (pickles.holds_batches, pickles.read_batches),
    (arrays.holds_idx, arrays.read_idx),
    (parquet.holds_parquet, parquet.read_parquet),
    (folders.holds_images, folders.read_folders),
    (arrays.holds_npz, arrays.read_npz),
)
"""Each: whether a folder is laid out so, and its reader; the surest signs first."""


def from_path(source: DatasetSource, path: Path) -> Dataset:
    """Read a dataset's files, as the hub, torchvision, keras or its authors lay them out.

    path: the folder that holds them or the one above it, or an archive or .npz file. Raises
    UsageError naming what is missing or wrong.
    """
    parts = _read(source, path.expanduser())
    return make_dataset(source.name, parts["train"], parts["test"], source.classes)


def raw_places(source: DatasetSource, path: Path) -> list[Path]:
    """Return what is called as the dataset's own folders and archives in the folder `path`."""
    own = [path / name for name in (source.name, *source.folders)]
    files = [path / name for name in source.archives]
    return [p for p in own if p.is_dir()] + [p for p in files if p.is_file()]


def _read(source: DatasetSource, path: Path) -> dict[str, Part]:
    if path.is_file():
        return _read_file(source, path)
    if not path.is_dir():
        raise UsageError(
            f"There is no folder {path}; name the one that holds {source.name}'s files."
        )
    # The dataset's own folder first: another dataset's may stand beside it.
    own = raw_places(source, path)
    for place in (*filter(Path.is_dir, own), path, path / "raw"):
        for holds, read in LAYOUTS:
            if holds(place, source):
                return read(place, source)
    for file in filter(Path.is_file, own):
        return _read_file(source, file)
    inside = [entry for entry in path.iterdir() if not folders.is_hidden(entry, path)]
    if len(inside) == 1 and inside[0].is_dir():  # what an archive unpacks to
        return _read(source, inside[0])
    raise UsageError(folders.missing_part(path, "train", source))


def _read_file(source: DatasetSource, path: Path) -> dict[str, Part]:
    if arrays.npz_file(path) is not None:
        return arrays.read_npz(path, source)
    if not archives.is_archive(path):
        raise UsageError(
            f"{path} is no archive of {source.name}; name the folder that holds the files, a "
            ".tar.gz, .zip or .npz file."
        )
    with archives.unpacked(path) as folder:
        try:
            return _read(source, folder)
        except UsageError as error:  # what it names will be gone
            raise UsageError(str(error).replace(str(folder), str(path))) from error


def from_hub(source: DatasetSource) -> Dataset:
    """Download a dataset from the hub; raises UsageError without a network."""
    library = parquet.data_library()
    from huggingface_hub.errors import HfHubHTTPError

    import_it = (
        f"put its files on this machine and run `ht-bench data import {source.name} PATH` "
        "(parquet files, train/<class>/*.png folders, or an archive as downloaded)"
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
            f"{reason(error)}); {import_it}."
        ) from error
    found = parquet.read_splits(source, parts, source.test, source.hub)
    return make_dataset(source.name, found["train"], found["test"], source.classes)
