"""Readers of data files: idx, npz, pickles, parquet, images, archives, and the cache."""

from __future__ import annotations

import functools
import gzip
import io
import os
import pickle
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from ht_bench.streams.dataset import DatasetSource

from ..streams import layouts
from .hostile import PICKLES, PROGRAMS
from .mutations import SIZES, mutate_bytes, size
from .pictures import chosen, image, parquet_files, parts
from .reader import Files, Reader

NAMES = ["bird", "cat", "dog"]
GREY = DatasetSource("grey", "", "nobody/grey", "img", "label", (1, 8, 8), 3, train=12, tests=6)
TINY = DatasetSource("tiny", "", "nobody/tiny", "img", "label", (3, 4, 4), 3, train=12, tests=6)
BOMB = 2**32
"""Bytes that a bomb unpacks to."""


def laid_out(source: DatasetSource, write: layouts.Writer) -> Callable[[], Files]:
    """Return a function that gives the files of a layout."""

    @functools.cache
    def files() -> Files:
        with tempfile.TemporaryDirectory() as name:
            write(Path(name), parts(source.shape), NAMES)
            every = sorted(file for file in Path(name).rglob("*") if file.is_file())
            return {str(file.relative_to(name)): file.read_bytes() for file in every}

    return files


def reading(source: DatasetSource, inside: str = "") -> Callable[[Path], Any]:
    """Return a function that reads a folder, or what lies in it, as a dataset."""

    def read(place: Path) -> Any:
        from ht_bench.streams.sources import from_path

        return from_path(source, place / inside)

    return read


@functools.cache
def bomb() -> bytes:
    """BOMB zero bytes by way of a small deflate stream: one full block again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece, stream = bytes(2**24), bytearray()
    first = packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH)
    stream += first + again * (BOMB // 2**24 - 1)
    return bytes(stream + packer.flush())


# ---- idx ----


def idx(files: Files, draw: Random) -> Files:
    name, content = chosen(files, draw)
    packed = name.endswith(".gz")
    inner = gzip.decompress(content) if packed else content
    kind = draw.randrange(4)
    if packed and kind == 0:
        return {name: mutate_bytes(content, draw)}
    if kind == 1:  # other dimensions
        at = draw.choice([0, 4, 8, 12])
        inner = inner[:at] + size(draw) + inner[at + draw.choice([1, 4, 8]) :]
    elif packed and kind == 2 and draw.random() < 0.05:
        return {name: _gzip_bomb(inner)}
    else:
        inner = mutate_bytes(inner, draw)
    return {name: gzip.compress(inner, 1) if packed else inner}


def _gzip_bomb(inner: bytes) -> bytes:
    """Images without end, as the header says and as the stream holds."""
    head = inner[:4] + struct.pack(">I", (2**32 - 1) // 64) + inner[8:16]
    raw = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = raw.compress(head) + raw.flush(zlib.Z_FULL_FLUSH)
    return gzip.compress(b"")[:10] + start + bomb()


# ---- npz ----


def npz(files: Files, draw: Random) -> Files:
    name, content = chosen(files, draw)
    if draw.random() < 0.4:
        return {name: mutate_bytes(content, draw)}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    member = draw.choice(sorted(members))
    members[member] = npy(members[member], draw)
    return {name: zipped(members, draw)}


HEADERS = [
    "{'descr': '|O', 'fortran_order': False, 'shape': (12,)}",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 3)}",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776, 3, 4, 4)}",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (True, 3, 4, 4)}",
    "{'descr': '|u1', 'fortran_order': 1, 'shape': (12, 3, 4, 4)}",
    "{'descr': [('a', '|u1', (1000000000,))], 'fortran_order': False, 'shape': (12,)}",
    "{'descr': ('|u1', (1000000, 100000)), 'fortran_order': False, 'shape': (12,)}",
    "{'descr': '|V4294967295', 'fortran_order': False, 'shape': (12,)}",
    "{'descr': '|u1', 'fortran_order': False, 'shape': 12}",
    "__import__('os').system('touch canary')",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (12L, 3L, 4L, 4L)}",
    "(" * 9_000,
    "{" * 200,
    "'''",
    "-" * 5_000 + "1",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (" + "1," * 100 + ")}",
]


def npy(content: bytes, draw: Random) -> bytes:
    if draw.random() < 0.4:
        header = draw.choice(HEADERS).encode() + b"\n"
        return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + content[128:]
    if draw.random() < 0.3:
        return mutate_bytes(content[:128], draw) + content[128:]
    return mutate_bytes(content, draw)


def zipped(members: Files, draw: Random) -> bytes:
    """Return a zip file, at times with a bomb, a member twice, or sizes that are not true."""
    buffer = io.BytesIO()
    kind = draw.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
            if draw.random() < 0.02:
                archive.writestr(
                    draw.choice(["../canary", "/canary", name + "/x", "a" * 300]), b"x"
                )
    content = buffer.getvalue()
    if draw.random() < 0.2:  # a size in the central directory
        at = content.find(b"PK\x01\x02") + draw.choice([10, 16, 20, 24, 42])
        content = content[:at] + struct.pack("<I", draw.choice(SIZES) % 2**32) + content[at + 4 :]
    return content


# ---- pickles ----


def pickled(files: Files, draw: Random) -> Files:
    name, content = chosen(files, draw)
    if draw.random() < 0.02:
        return {name: draw.choice(PICKLES)}
    if draw.random() < 0.5:
        table = pickle.loads(content, encoding="bytes")
        content = layouts.pickled(table, draw.choice([2, 3, 4, 5]))
    if draw.random() < 0.5:
        at = draw.randrange(2, 80) if draw.random() < 0.8 else draw.randrange(len(content))
        content = content[:at] + draw.choice(PROGRAMS) + content[at:]
        return {name: content}
    return {name: mutate_bytes(content, draw)}


# ---- archives ----


def archive(files: Files, draw: Random) -> Files:
    [(name, content)] = files.items()
    if name.endswith(".zip"):
        if draw.random() < 0.5:
            return {name: mutate_bytes(content, draw)}
        with zipfile.ZipFile(io.BytesIO(content)) as opened:
            return {name: zipped({each: opened.read(each) for each in opened.namelist()}, draw)}
    if draw.random() < 0.3:
        return {name: mutate_bytes(content, draw)}
    inner = bytearray(gzip.decompress(content))
    block = 512 * draw.randrange(len(inner) // 512)
    if draw.random() < 0.5:  # one header, its sum made right again
        header = bytearray(tarfile.TarInfo(draw.choice(["../canary", "/canary", "x"])).tobuf())
        at = draw.randrange(512)
        header[at : at + 8] = draw.randbytes(8)
        header[124:136] = draw.choice(
            [b"\x80" + b"\xff" * 11, b"77777777777\0", bytes(header[124:136])]
        )
        header[156:157] = draw.choice([b"0", b"1", b"2", b"3", b"5", b"6", b"S", b"x", b"g", b"L"])
        header[157:167] = b"../canary\0"
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header[:512])
        inner[block:block] = header[:512]
    else:
        inner[block : block + 512] = mutate_bytes(bytes(inner[block : block + 512]), draw)
    return {name: gzip.compress(bytes(inner), 1)}


# ---- the cache ----


@functools.cache
def cached() -> Files:
    from ht_bench.streams import cache
    from ht_bench.streams.dataset import make_dataset

    made = parts(TINY.shape)
    with tempfile.TemporaryDirectory() as name:
        before = os.environ.get("HT_BENCH_CACHE", "")
        os.environ["HT_BENCH_CACHE"] = name
        cache.write(make_dataset("tiny", made["train"], made["test"], 3))
        os.environ["HT_BENCH_CACHE"] = before
        return {f"tiny/{file.name}": file.read_bytes() for file in (Path(name) / "tiny").iterdir()}


def cache_entry(files: Files, draw: Random) -> Files:
    from .mutations import mutate_json

    name, content = chosen(files, draw)
    return {name: mutate_json(content, draw) if name.endswith("json") else npy(content, draw)}


def read_cache(place: Path) -> Any:
    from ht_bench.streams import cache

    os.environ["HT_BENCH_CACHE"] = str(place)
    return cache.read("tiny")


def archived(name: str) -> Reader:
    write = layouts.LAYOUTS[name]
    files = laid_out(TINY, write)

    def one() -> Files:
        return {
            each: content for each, content in files().items() if each.endswith((".gz", ".zip"))
        }

    [inside] = [file for file in ("archive.zip", "cifar.tar.gz") if file[-3:] == name[-3:]]
    return Reader(one, archive, reading(TINY, inside))


READERS = {
    "idx": Reader(laid_out(GREY, layouts.GREY["idx"]), idx, reading(GREY)),
    "idx-gz": Reader(laid_out(GREY, layouts.GREY["idx.gz"]), idx, reading(GREY)),
    "npz": Reader(laid_out(TINY, layouts.LAYOUTS["keras"]), npz, reading(TINY, "data.npz")),
    "pickle": Reader(
        laid_out(TINY, layouts.LAYOUTS["cifar-10-batches-py"]), pickled, reading(TINY)
    ),
    "parquet": Reader(laid_out(TINY, layouts.LAYOUTS["parquet"]), parquet_files, reading(TINY)),
    "images": Reader(laid_out(TINY, layouts.LAYOUTS["tiny-imagenet-200"]), image, reading(TINY)),
    "zip": archived("tiny-imagenet-200.zip"),
    "tar": archived("cifar-10-python.tar.gz"),
    "cache": Reader(cached, cache_entry, read_cache),
}
