"""Parquet files as the hub lays them out: train-00000-of-00003.parquet, train/0000.parquet."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ht_bench.errors import UsageError, reason
from ht_bench.streams.dataset import DatasetSource, Part
from ht_bench.streams.folders import is_hidden, missing_part, part_names
from ht_bench.streams.pictures import check_labels, decode

SHARD = re.compile(r"(.*?)-(\d+)-of-(\d+)(-[0-9a-f]+)?")
"""A shard's name without its suffix: part, number, how many, at times a hash."""


def holds_parquet(path: Path, source: DatasetSource) -> bool:
    """Whether there is a parquet file of either part below `path`."""
    return any(_files(path, names) for names in part_names(source).values())


def read_parquet(path: Path, source: DatasetSource) -> dict[str, Part]:
    """Return both parts of the parquet files below `path`.

    Raises UsageError naming what is missing or wrong, shards among it.
    """
    files = {part: _files(path, names) for part, names in part_names(source).items()}
    for part, paths in files.items():
        if not paths:
            raise UsageError(missing_part(path, part, source))
        check_shards(paths)
    library = data_library()
    names = {part: [str(file) for file in paths] for part, paths in files.items()}
    with _local_only(library) as temporary:
        try:
            parts = library.load_dataset("parquet", data_files=names, cache_dir=temporary)
        except (ValueError, OSError, library.exceptions.DatasetGenerationError) as error:
            raise UsageError(
                f"{path} could not be read as {source.name}: {reason(error)}."
            ) from error
        return read_splits(source, parts, "test", str(path))


def data_library() -> Any:
    """Return `datasets`, quiet; raises UsageError where it is not installed."""
    try:
        import datasets
    except ImportError as error:
        raise UsageError(
            "Reading parquet files needs the extra 'data'; run: pip install 'ht-bench[data]'."
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


def _files(path: Path, names: tuple[str, ...]) -> list[Path]:
    """The files of the first name that has any: by their own name, else by their folder's."""
    files = [file for file in sorted(path.rglob("*.parquet")) if not is_hidden(file, path)]
    for name in names:
        own = [file for file in files if file.name.startswith(name)]
        chosen = own or [file for file in files if file.parent.name == name and file.parent != path]
        if chosen:
            return chosen
    return []


def check_shards(files: list[Path]) -> None:
    """Raise UsageError if a numbered shard is missing, or files of two sets lie together."""
    matches = [(file, SHARD.fullmatch(file.stem)) for file in files]
    totals = {(str(file.parent), match[1], match[3]) for file, match in matches if match}
    numbers = {int(match[2]) for _, match in matches if match}
    if len(totals) > 1 or (totals and not all(match for _, match in matches)):
        raise UsageError(
            f"{files[0].name} and {files[-1].name} in {files[0].parent} are of different sets; "
            "leave one set of files there."
        )
    if not totals:
        numbers = {int(file.stem) for file in files if file.stem.isdecimal()}
    count = int(next(iter(totals))[2]) if totals else max(numbers, default=-1) + 1
    missing = next((number for number in range(count) if number not in numbers), None)
    if missing is not None:
        first = files[0]
        raise UsageError(
            f"{first.parent}: shard {missing} of {count} is missing beside {first.name}; put all "
            "of them there."
        )


def read_splits(source: DatasetSource, parts: Any, test: str, where: str) -> dict[str, Part]:
    """Return both parts of what `datasets` has loaded; raises UsageError naming what is wrong."""
    decoded = {}
    for part, name in (("train", "train"), ("test", test)):
        if name not in parts:
            raise UsageError(f"{where} has no '{name}' split; {source.name} needs one.")
        for column in (source.image, source.label):
            if column not in parts[name].column_names:
                raise UsageError(
                    f"{where}: the {part} files have no column '{column}'; they have "
                    f"{', '.join(parts[name].column_names)}."
                )
        rows = parts[name]
        labels = check_labels(source, rows[source.label][:], where)
        decoded[part] = decode(source, _pictures(source, rows, where), len(rows)), labels
    return decoded


def _pictures(source: DatasetSource, rows: Any, where: str) -> Iterator[tuple[IO[bytes], str]]:
    from datasets import Image

    if not isinstance(rows.features[source.image], Image):
        _refuse(f"{where}: image 0")
    pictures = rows.select_columns([source.image]).cast_column(source.image, Image(decode=False))
    for index, row in enumerate(pictures):
        place, picture = f"{where}: image {index}", row[source.image]
        if picture is None or picture["bytes"] is None:
            _refuse(place)
        yield io.BytesIO(picture["bytes"]), place


def _refuse(place: str) -> None:
    raise UsageError(
        f"{place} is no image for `datasets`; write the column with its feature Image()."
    )
