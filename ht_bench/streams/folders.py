"""Image folders: train/<class>/*.png and the like, and Tiny-ImageNet as its archive unpacks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ht_bench.errors import UsageError, reason, shown
from ht_bench.streams.dataset import DatasetSource, Part
from ht_bench.streams.pictures import check_labels, decode

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
ANNOTATIONS = "val_annotations.txt"
Files = list[tuple[Path, str]]


def part_names(source: DatasetSource) -> dict[str, tuple[str, ...]]:
    """Return what files and folders of each part may be called, the likeliest name first."""
    validation = ("valid", "val", "validation")
    # Where a dataset's test images are unlabelled, what it calls validation serves as the test.
    others = (*validation, "test") if source.test in validation else ("test", *validation)
    return {"train": ("train",), "test": (source.test, *others)}


def is_hidden(file: Path, root: Path) -> bool:
    """Whether a system left it there: .ipynb_checkpoints/, a Mac's ._ files and __MACOSX/."""
    parts = file.relative_to(root).parts
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def holds_images(path: Path, source: DatasetSource) -> bool:
    """Whether `path` has a folder of images for either part."""
    return any(_labelled(path, names) for names in part_names(source).values())


def read_folders(path: Path, source: DatasetSource) -> dict[str, Part]:
    """Return both parts of images in folders of their classes, sorted by the folders' names.

    Links are followed. Raises UsageError naming what is missing or wrong.
    """
    files = {part: _labelled(path, names) for part, names in part_names(source).items()}
    for part, images in files.items():
        if not images:
            raise UsageError(missing_part(path, part, source))
    names = {name for images in files.values() for _, name in images}
    _check_names(names, path, source)
    numbers = {name: index for index, name in enumerate(sorted(names))}
    parts = {}
    for part, images in files.items():
        labels = check_labels(source, [numbers[name] for _, name in images], str(path))
        pictures = ((file, str(file)) for file, _ in images)
        parts[part] = decode(source, pictures, len(images)), labels
    return parts


def missing_part(path: Path, part: str, source: DatasetSource) -> str:
    """Say that a folder lacks a part, and what would be read there."""
    others = ", ".join((*source.folders, *source.archives))
    own = f", or {others} as downloaded" if others else ""
    return (
        f"{path} has no {part} images for {source.name}: put {part}*.parquet files or "
        f"{part}/<class>/*.png folders there{own}."
    )


def _labelled(path: Path, names: tuple[str, ...]) -> Files:
    """Return (file, class) of every image of the first folder that has any."""
    for name in names:
        folder = path / name
        if folder.is_dir():
            annotated = (folder / ANNOTATIONS).is_file() and (folder / "images").is_dir()
            files = _annotated(folder) if annotated else _by_folder(folder)
            if files:
                return files
    return []


def _by_folder(folder: Path) -> Files:
    """Each image with the folder it lies in; Tiny-ImageNet has <class>/images/ between."""
    files, bare = [], []
    for file in sorted(_walk(folder, folder, ())):
        place = file.parent.parent if file.parent.name == "images" else file.parent
        if place in (folder, folder.parent):
            bare.append(file)
        else:
            files.append((file, place.name))
    if files and bare:
        raise UsageError(f"{bare[0]} lies in no class's folder; move it to one, or away.")
    return files  # none where all are bare: a test part without labels


def _walk(folder: Path, root: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """Yield the images below `folder`, links followed but never in a circle."""
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for entry in folder.iterdir():
        if is_hidden(entry, root):
            continue
        if entry.is_dir():
            yield from _walk(entry, root, (*above, here))
        elif entry.suffix.lower() in SUFFIXES:
            yield entry
        elif entry.is_symlink() and not entry.exists():
            raise UsageError(f"{entry} is a link to nothing; point it at its images or remove it.")


def _annotated(folder: Path) -> Files:
    """Tiny-ImageNet's val/: images in one folder, their classes in a table beside it."""
    table = folder / ANNOTATIONS
    classes = {}
    for number, line in enumerate(_lines(table), start=1):
        words = line.split()
        if len(words) < 2:
            raise UsageError(
                f"{table}, line {number}: not an image's name and its class; unpack it again."
            )
        classes[words[0]] = words[1]
    images = {file.name: file for file in sorted(_walk(folder / "images", folder, ()))}
    for name in classes:
        if name not in images:
            named = shown(name).strip("'")
            raise UsageError(f"{table} names {named}, which is not in images/; unpack it again.")
    for name in images:
        if name not in classes:
            raise UsageError(f"{table} does not name {images[name]}; unpack it again.")
    return [(images[name], classes[name]) for name in sorted(images)]


def _lines(table: Path) -> list[str]:
    try:
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{table} cannot be read ({reason(error)}); unpack it again.") from error
    return [line for line in text.splitlines() if line.strip()]


def _check_names(names: set[str], path: Path, source: DatasetSource) -> None:
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
