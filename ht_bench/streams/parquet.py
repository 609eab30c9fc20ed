"""Parquet files as the hub lays them out: train-00000-of-00003.parquet, train/0000.parquet."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ht_bench.errors import UsageError, reason, shown
from ht_bench.streams.dataset import DatasetSource, Part
from ht_bench.streams.folders import is_hidden, missing_part, part_names
from ht_bench.streams.pictures import check_count, check_labels, decode

BATCH = 32
"""Rows that are unpacked at a time: each may hold a large value of which the file has one."""
# What pyarrow raises, each a class of its own below one of these, on files that are damaged.
DAMAGED = (
    *(OSError, ValueError, KeyError, TypeError, IndexError, NotImplementedError),
    *(MemoryError, OverflowError, RuntimeError, AttributeError),
)
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
    return {part: _read_files(source, part, paths) for part, paths in files.items()}


def data_library() -> Any:
    """Return `datasets`, quiet; raises UsageError where it is not installed."""
    try:
        import datasets
    except ImportError as error:
        raise UsageError(
            "Fetching from the hub needs the extra 'data'; run: pip install 'ht-bench[data]'."
        ) from error
    datasets.disable_progress_bars()
    return datasets


def _parquet_library() -> Any:
    """Return `pyarrow.parquet`; raises UsageError where it is not installed."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError(
            "Reading parquet files needs the extra 'data'; run: pip install 'ht-bench[data]'."
        ) from error
    return parquet


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
        f"{place} is no image; write the column as `datasets` does with its feature Image(): "
        "structs of 'bytes' and 'path'."
    )


# ---- files on this machine ----


def _read_files(source: DatasetSource, part: str, paths: list[Path]) -> Part:
    """Return the images and labels of a part's files, in the order of their rows."""
    counts = []
    for path in paths:
        with _opened(source, part, path) as file:
            counts.append(file.metadata.num_rows)
    where = str(paths[0] if len(paths) == 1 else paths[0].parent)
    check_count(source, part, sum(counts), where)
    labels: list[npt.NDArray[np.int64]] = []
    rows = _rows(source, part, paths, labels)
    images = decode(source, rows, sum(counts))
    decoded = sum(map(len, labels))
    if decoded != sum(counts):
        raise UsageError(f"{where} ends after {decoded:,} of {sum(counts):,} rows; fetch it again.")
    return images, check_labels(source, np.concatenate(labels), where)


@contextmanager
def _opened(source: DatasetSource, part: str, path: Path) -> Iterator[Any]:
    """Open a file that has both columns; raises UsageError for one that does not, or is damaged."""
    library = _parquet_library()
    try:
        metadata = library.read_metadata(path)
        _check_columns(source, part, metadata.schema.to_arrow_schema(), path)
        with library.ParquetFile(path, metadata=metadata) as file:
            yield file
    except UsageError:
        raise
    except DAMAGED as error:
        raise UsageError(
            f"{path} could not be read as {source.name}: {reason(error)}; fetch it again."
        ) from error


def _check_columns(source: DatasetSource, part: str, schema: Any, path: Path) -> None:
    from pyarrow import types

    for column in (source.image, source.label):
        if schema.names.count(column) != 1:
            raise UsageError(
                f"{path}: the {part} files have no column '{column}'; they have "
                f"{', '.join(map(shown, schema.names[:8])) or 'none'}."
            )
    kind = schema.field(source.image).type
    inner = kind.get_field_index("bytes") if types.is_struct(kind) else -1
    if inner < 0 or not types.is_binary(kind.field(inner).type):
        _refuse(f"{path}: image 0")


def _rows(
    source: DatasetSource, part: str, paths: list[Path], labels: list[npt.NDArray[np.int64]]
) -> Iterator[tuple[IO[bytes], str]]:
    """Yield each row's picture and the words that name it; the labels are added to `labels`."""
    columns = [source.image, source.label]
    for path in paths:
        with _opened(source, part, path) as file:
            index = 0
            for batch in file.iter_batches(BATCH, columns=columns, use_threads=False):
                labels.append(_whole_numbers(source, batch.column(source.label), str(path)))
                pictures = batch.column(source.image)
                for picture in pictures.flatten()[pictures.type.get_field_index("bytes")]:
                    place, content = f"{path}: image {index}", picture.as_py()
                    if not isinstance(content, bytes):
                        _refuse(place)
                    yield io.BytesIO(content), place
                    index += 1


def _whole_numbers(source: DatasetSource, values: Any, where: str) -> npt.NDArray[np.int64]:
    from pyarrow import types

    if not types.is_integer(values.type) or values.null_count:
        return check_labels(source, (), where)
    return check_labels(source, values.to_numpy(zero_copy_only=False), where)
