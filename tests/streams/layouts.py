"""Writers of one dataset in every layout that `ht_bench.streams.sources` reads.

Each takes a folder, the parts (images [N, C, H, W], labels) and the classes' names, and returns
the path to import. Images are written losslessly, whatever the layout's own format is.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

Parts = dict[str, tuple[np.ndarray, np.ndarray]]
Names = Sequence[str]
Writer = Callable[[Path, Parts, Names], Path]


def png(image: np.ndarray) -> bytes:
    """[C, H, W] → the bytes of a file."""
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def put(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


# ---- parquet ----


def parquet_file(
    file: Path, images: np.ndarray, labels: np.ndarray, image: str = "img", label: str = "label"
) -> None:
    import pyarrow
    from pyarrow import parquet

    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    features = {image: {"_type": "Image"}, label: {"dtype": "int64", "_type": "Value"}}
    rows = [{"bytes": png(one), "path": None} for one in images]
    table = pyarrow.table({image: pyarrow.array(rows, kind), label: labels.tolist()})
    meta = {"huggingface": json.dumps({"info": {"features": features}})}
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table.replace_schema_metadata(meta), file)


def shards(pattern: str, count: int, folder: Path, parts: Parts, names: Names) -> Path:
    """Write `count` files a part; `pattern` is filled with part, number and count."""
    for part, (images, labels) in parts.items():
        for index, chosen in enumerate(np.array_split(np.arange(len(labels)), count)):
            file = folder / pattern.format(part=part, index=index, count=count)
            parquet_file(file, images[chosen], labels[chosen])
    return folder


# ---- images ----


def image_folders(place: str, folder: Path, parts: Parts, names: Names) -> Path:
    for part, (images, labels) in parts.items():
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            put(folder / place.format(part=part, name=names[label], index=index), png(image))
    return folder


def linked_classes(folder: Path, parts: Parts, names: Names) -> Path:
    """One class folder, and one file, lie elsewhere and are linked."""
    image_folders("{part}/{name}/{index}.png", folder, parts, names)
    away = folder.with_name(folder.name + "-elsewhere")
    away.mkdir()
    shutil.move(folder / "train" / names[1], away / "class")
    (folder / "train" / names[1]).symlink_to(away / "class", target_is_directory=True)
    file = sorted((folder / "test" / names[0]).iterdir())[0]
    shutil.move(file, away / "file.png")
    file.symlink_to(away / "file.png")
    return folder


def tiny_imagenet(folder: Path, parts: Parts, names: Names) -> Path:
    """As the archive unpacks: an unlabelled test part is there too."""
    root = folder / "tiny-imagenet-200"
    ids = [f"n{number:08}" for number in range(len(names))]
    place = "{part}/{name}/images/{name}_{index}.JPEG"
    image_folders(place, root, {"train": parts["train"]}, ids)
    images, labels = parts["test"]
    lines = []
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        put(root / "val" / "images" / f"val_{index}.JPEG", png(image))
        put(root / "test" / "images" / f"test_{index}.JPEG", png(image))
        lines.append(f"val_{index}.JPEG\t{ids[label]}\t0\t0\t62\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines), encoding="utf-8")
    (root / "wnids.txt").write_text("\n".join(reversed(ids)), encoding="utf-8")
    return root


def zipped(write: Writer, folder: Path, parts: Parts, names: Names) -> Path:
    root = write(folder, parts, names)
    with zipfile.ZipFile(folder / "archive.zip", "w") as archive:
        for file in root.rglob("*"):
            archive.write(file, file.relative_to(folder))
    return folder / "archive.zip"


# ---- arrays ----


def npz(form: str, folder: Path, parts: Parts, names: Names) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for part, (images, labels) in parts.items():
        keras = images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1)
        arrays[f"x_{part}"] = images if form == "channels first" else keras
        arrays[f"y_{part}"] = labels[:, None] if form == "keras" else labels.astype(np.uint8)
    np.savez(folder / "data.npz", **arrays)  # type: ignore[arg-type]
    return folder if form == "channels first" else folder / "data.npz"


def idx(dash: str, suffix: str, folder: Path, parts: Parts, names: Names) -> Path:
    """Grey images alone."""
    opener: Any = gzip.open if suffix else open
    folder.mkdir(parents=True, exist_ok=True)
    for part, (images, labels) in parts.items():
        stem = "train" if part == "train" else "t10k"
        for what, values in (("images", images[:, 0]), ("labels", labels)):
            name = f"{stem}-{what}{dash}idx{values.ndim}-ubyte{suffix}"
            head = struct.pack(f">I{values.ndim}I", 0x800 + values.ndim, *values.shape)
            with opener(folder / name, "wb") as file:
                file.write(head + values.astype(np.uint8).tobytes())
    return folder


def mnist_raw(folder: Path, parts: Parts, names: Names) -> Path:
    """As torchvision leaves it, named by its root."""
    idx("-", "", folder / "MNIST" / "raw", parts, names)
    return folder


# ---- pickles ----


class OldPickler(pickle._Pickler):  # type: ignore[misc]
    """Writes bytes as Python 2 wrote its strings."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)

    def save_old(self, value: bytes) -> None:
        self.write(b"T" + struct.pack("<I", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = save_old


def pickled(value: Any, protocol: int) -> bytes:
    """Pickle as Python 2 did (protocol 2), or as Python 3 does."""
    buffer = io.BytesIO()
    if protocol > 2:
        pickle.dump(value, buffer, protocol)
        return buffer.getvalue()
    OldPickler(buffer, 2).dump(value)
    return buffer.getvalue().replace(b"numpy._core.", b"numpy.core.")


def batches(ten: bool, protocol: int, folder: Path, parts: Parts, names: Names) -> Path:
    """CIFAR's folders; `ten`: the one of CIFAR-10, its training part in five files."""
    folder = folder / ("cifar-10-batches-py" if ten else "cifar-100-python")
    label = "labels" if ten else "fine_labels"
    for part, (images, labels) in parts.items():
        files = [f"data_batch_{i}" for i in range(1, 6)] if part == "train" else ["test_batch"]
        files = files if ten else [part]
        for file, rows in zip(
            files, np.array_split(np.arange(len(labels)), len(files)), strict=True
        ):
            table = {
                "data": images[rows].reshape(len(rows), -1),
                label: labels[rows].tolist(),
                "filenames": [f"{row}.png".encode() for row in rows],
                "batch_label": b"one of some",
            }
            keys = {k.encode() if protocol == 2 else k: v for k, v in table.items()}
            put(folder / file, pickled(keys, protocol))
    return folder


def tarred(write: Writer, folder: Path, parts: Parts, names: Names) -> Path:
    root = write(folder, parts, names)
    with tarfile.open(folder / "cifar.tar.gz", "w:gz", compresslevel=1) as archive:
        archive.add(root, root.name)
    return folder / "cifar.tar.gz"


def above(write: Writer, folder: Path, parts: Parts, names: Names) -> Path:
    """The folder above, which holds another dataset too."""
    root = write(folder, parts, names)
    put(root.parent / "another" / "train.npz", b"junk")
    return root.parent


LAYOUTS: dict[str, Writer] = {
    "parquet": partial(shards, "{part}-{index:05}-of-{count:05}.parquet", 1),
    "the hub's data folder": partial(shards, "data/{part}-{index:05}-of-{count:05}.parquet", 3),
    "the hub with hashes": partial(
        shards, "data/{part}-{index:05}-of-{count:05}-ab12cd34.parquet", 2
    ),
    "the hub's converted files": partial(shards, "{part}/{index:04}.parquet", 2),
    "converted, below its configuration": partial(shards, "default/{part}/{index:04}.parquet", 1),
    "folders of images": partial(image_folders, "{part}/{name}/{index}.png"),
    "in a folder of their own": partial(image_folders, "download/{part}/{name}/{index}.PNG"),
    "links": linked_classes,
    "tiny-imagenet-200": tiny_imagenet,
    "tiny-imagenet-200.zip": partial(zipped, tiny_imagenet),
    "keras": partial(npz, "keras"),
    "arrays": partial(npz, "channels first"),
    "cifar-10-batches-py": partial(batches, True, 2),
    "pickles of today": partial(batches, True, 5),
    "pickles of yesterday": partial(batches, True, 4),
    "cifar-10-python.tar.gz": partial(tarred, partial(batches, True, 2)),
    "above cifar-10-batches-py": partial(above, partial(batches, True, 2)),
}
"""For images in colour."""
GREY: dict[str, Writer] = {
    "parquet": LAYOUTS["parquet"],
    "folders of images": LAYOUTS["folders of images"],
    "mnist.npz": partial(npz, "keras"),
    "idx": partial(idx, "-", ""),
    "idx.gz": partial(idx, "-", ".gz"),
    "idx with a dot": partial(idx, ".", ""),
    "MNIST/raw": mnist_raw,
}
FINE: dict[str, Writer] = {
    "cifar-100-python": partial(batches, False, 2),
    "cifar-100-python.tar.gz": partial(tarred, partial(batches, False, 2)),
}
"""With the labels called as CIFAR-100's are."""
