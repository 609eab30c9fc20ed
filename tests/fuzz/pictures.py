"""Mutated parquet files, and pictures of the formats that Pillow knows."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from random import Random
from typing import Any

import numpy as np

from ..streams import layouts
from .mutations import mutate_bytes, mutate_text
from .reader import Files


def tiny() -> layouts.Parts:
    """Parts of twelve and six pictures, 3×4×4, of three classes."""
    return parts((3, 4, 4))


def parts(shape: tuple[int, ...]) -> layouts.Parts:
    draw = np.random.default_rng(0)
    return {
        part: (draw.integers(0, 256, (n, *shape), dtype=np.uint8), np.arange(n) % 3)
        for part, n in (("train", 12), ("test", 6))
    }


def chosen(files: Files, draw: Random) -> tuple[str, bytes]:
    name = draw.choice(sorted(files))
    return name, files[name]


# ---- parquet ----


@functools.cache
def columns() -> dict[str, Any]:
    """Columns of which a file's two are drawn, and the kinds of files that are written of them."""
    import pyarrow as pa

    images, labels = tiny()["train"]
    pictures = [layouts.png(image) for image in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": picture, "path": None} for picture in pictures]
    large = pa.array([{"bytes": bytes(2**22), "path": "x"}], kind)
    honest = {"img": pa.array(rows, kind), "label": pa.array(labels.tolist())}
    return {
        "img": [
            *[honest["img"]] * 5,
            pa.array([*rows[:11], None], kind),
            pa.array([*rows[:11], {"bytes": None, "path": "a.png"}], kind),
            pa.array(pictures),
            pa.array([[1]] * 12),
            pa.array([{"bytes": "text"}] * 12),
            pa.array([{"path": "x"}] * 12),
            pa.array([{"bytes": {"bytes": b"x"}}] * 12),
            pa.array([None] * 12),
            pa.concat_arrays([large.take([0])] * 12),
            pa.array(rows, pa.struct([("bytes", pa.large_binary())])),
        ],
        "label": [
            *[honest["label"]] * 5,
            pa.array([0.5] * 12),
            pa.array([2**63] * 12, pa.uint64()),
            pa.array([-1] * 12, pa.int8()),
            pa.array([True] * 12),
            pa.array(["0"] * 12),
            pa.array([[0]] * 12),
            pa.array([0] * 11 + [None]),
            pa.array(["0"] * 12).dictionary_encode(),
            pa.array([0] * 12).dictionary_encode(),
            pa.nulls(12),
        ],
    }


@functools.cache
def repeated() -> bytes:
    """A hundred thousand rows of one picture and one label, in little more than one."""
    import pyarrow as pa

    rows = pa.array(np.zeros(100_000, dtype=np.int64))
    table = {name: columns()[name][0].take(rows) for name in ("img", "label")}
    return _parquet(table, compression="zstd")


def _parquet(table: dict[str, Any], **options: Any) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(pa.table(table), buffer, **options)
    return buffer.getvalue()


OPTIONS: list[dict[str, Any]] = [
    {}, {}, {"compression": "zstd"}, {"compression": "gzip"}, {"use_dictionary": False},
    {"row_group_size": 5}, {"version": "1.0"}, {"data_page_version": "2.0"},
    {"data_page_size": 100}, {"store_schema": False}, {"write_page_checksum": True},
]  # fmt: skip


def parquet_files(files: Files, draw: Random) -> Files:
    name, content = chosen(files, draw)
    if draw.random() < 0.002:
        return {name: repeated()}
    if draw.random() < 0.6:
        table = {column: draw.choice(arrays) for column, arrays in columns().items()}
        if draw.random() < 0.05:
            table[draw.choice(["other", "a.b", "é", "x" * 900])] = table.pop(
                draw.choice(["img", "label"])
            )
        content = _parquet(table, **draw.choice(OPTIONS))
        if draw.random() < 0.4:
            return {name: content}
    footer = int.from_bytes(content[-8:-4], "little") + 8
    if draw.random() < 0.6 and footer < len(content):
        return {name: content[:-footer] + mutate_bytes(content[-footer:-8], draw) + content[-8:]}
    return {name: mutate_bytes(content, draw)}


# ---- pictures ----


@functools.cache
def pictures() -> dict[str, bytes]:
    """One picture in several formats: what Pillow opens by a program of its own is among them."""
    from PIL import Image

    image = Image.fromarray(tiny()["train"][0][0].transpose(1, 2, 0))
    made = {}
    for kind in ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM", "TGA", "ICO"):
        buffer = io.BytesIO()
        image.save(buffer, kind)
        made[kind] = buffer.getvalue()
    made["EPS"] = (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n"
        b"(canary) (w) file closefile showpage\n%%EOF\n"
    )
    return made


def image(files: Files, draw: Random) -> Files:
    names = sorted(files)
    if draw.random() < 0.15:
        table = "tiny-imagenet-200/val/val_annotations.txt"
        return {table: mutate_text(files[table].decode(), draw)}
    content = pictures()[draw.choice(sorted(pictures()))]
    name = draw.choice([name for name in names if name.endswith(".JPEG")])
    if draw.random() < 0.1:
        return {name: content}
    if draw.random() < 0.1:
        return {name: _png_bomb(content, draw)}
    return {name: mutate_bytes(content, draw)}


def _png_bomb(content: bytes, draw: Random) -> bytes:
    """A PNG of the right size that holds, or unpacks to, far more."""
    png = pictures()["PNG"]
    packed = zlib.compress(bytes(2**24), 9)
    kind, body = draw.choice(
        [(b"IDAT", packed), (b"zTXt", b"k\0\0" + packed), (b"iCCP", b"k\0\0" + packed)]
    )
    chunk = struct.pack(">I", len(body)) + kind + body
    return png[:33] + chunk + struct.pack(">I", zlib.crc32(kind + body)) + png[33:]
