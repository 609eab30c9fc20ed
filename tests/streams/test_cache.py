"""The cache: what is written is read back, damage is named, writers do not disturb each other."""

import errno
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ht_bench.errors import UsageError
from ht_bench.streams import cache
from ht_bench.streams.dataset import Dataset, make_dataset

Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def _own(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("HT_BENCH_CACHE", str(tmp_path / "cache"))


def made(seed: int = 0) -> Dataset:
    draw = np.random.default_rng(seed)

    def part(count: int) -> tuple[np.ndarray, np.ndarray]:
        return draw.integers(0, 256, (count, 1, 4, 4), dtype=np.uint8), np.arange(count) % 3

    return make_dataset("tiny", part(9), part(6), 3)


@pytest.fixture
def folder() -> Path:
    """Return the folder of a dataset in the cache."""
    cache.write(made())
    return cache.cache_folder() / "tiny"


def left_over() -> list[str]:
    return sorted(path.name for path in cache.cache_folder().iterdir())


def test_what_is_written_is_read_back(folder: Path) -> None:
    found, expected = cache.read("tiny"), made()
    for array in cache.ARRAYS:
        np.testing.assert_array_equal(getattr(found, array), getattr(expected, array))
    for field in ("name", "classes", "mean", "std", "max_value", "sha256"):
        assert getattr(found, field) == getattr(expected, field)
    assert left_over() == ["tiny"]


def test_the_cache_is_where_it_is_said_to_be(tmp_path: Path, monkeypatch: Patch) -> None:
    assert cache.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("HT_BENCH_CACHE")
    assert cache.cache_folder() == Path.home() / ".cache" / "ht-bench"


@pytest.mark.parametrize("array", cache.ARRAYS)
@pytest.mark.parametrize("mask", [0x01, 0x1C])  # 0x1C: "|u1" becomes "|i1", the same bytes
def test_any_byte_of_an_array_that_changes_is_seen(folder: Path, array: str, mask: int) -> None:
    """Header, type, shape and content: never a wrong array, never another kind of error."""
    path = folder / f"{array}.npy"
    content = path.read_bytes()
    expected = getattr(made(), array)
    for index in [*range(128), *range(128, len(content), 9)]:  # the header is 128 bytes
        damaged = bytearray(content)
        damaged[index] ^= mask
        path.write_bytes(damaged)
        try:
            found = getattr(cache.read("tiny"), array)
        except UsageError:
            continue
        assert found.dtype == expected.dtype  # a byte of padding
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "train_images.npy").write_bytes(b""),
        lambda folder: os.truncate(folder / "train_images.npy", 128 + 9 * 16 - 1),
        lambda folder: (folder / "test_labels.npy").unlink(),
        lambda folder: np.save(folder / "test_labels.npy", np.array([{}]), allow_pickle=True),
        lambda folder: np.save(folder / "train_images.npy", made(1).train_images),
        *(
            lambda folder, meta=meta: (folder / "meta.json").write_bytes(meta)
            for meta in (b"{", b"[]", b"null", b'{"mean": 3}', b"\xff\xfe")
        ),
    ],
)
def test_a_damaged_entry_is_refused_and_can_be_made_again(
    folder: Path, damage: Callable[[Path], Any]
) -> None:
    damage(folder)
    with pytest.raises(UsageError, match=r"cache/tiny .*delete .*tiny and run `ht-bench data"):
        cache.read("tiny")
    cache.write(made())
    assert cache.read("tiny").sha256 == made().sha256
    assert left_over() == ["tiny"]


SCALARS = [b"3", b"-1.5", b'"x"', b"true", b"null", b"[]", b"[1, 2]", b"NaN", b"{}", b""]
JUNK = [None, True, 3, -1, 1e300, "x", "", [], [1], {}, {"a": 1}, [[0.5]], "0" * 64]


def damage(folder: Path, draw: random.Random) -> None:
    """Change one file of an entry, meta.json above all, its own hash made right again or not."""
    file = folder / draw.choice(["meta.json"] * 4 + [f"{array}.npy" for array in cache.ARRAYS])
    content = bytearray(file.read_bytes())
    kind = draw.randrange(6) if file.name == "meta.json" else draw.randrange(3, 9)
    if kind == 0:
        file.write_bytes(draw.choice([*SCALARS, b"[" * 100_000, b"9" * 5_000, b'{"a":' * 9_999]))
        return
    if kind in (1, 2):
        meta = json.loads(content)
        key = draw.choice(list(meta))
        if kind == 1 and draw.random() < 0.3:
            del meta[key]
        else:
            meta[key] = draw.choice(JUNK)
        meta.setdefault("meta_sha256", "")
        if draw.random() < 0.7:
            meta["meta_sha256"] = cache._meta_hash(meta)
        file.write_text(json.dumps(meta), encoding="utf-8")
        return
    place = draw.randrange(len(content))
    if kind == 3:
        content[place] = draw.randrange(256)
    elif kind == 4:
        del content[place : place + draw.choice([1, 9, 200])]
    elif kind == 5:
        content[place:place] = draw.randbytes(draw.choice([1, 9, 200]))
    elif kind == 6:
        kinds = [np.float64, np.int8, np.uint8, np.int64, "S3", "M8[s]", np.dtype([("a", "u1")])]
        array = np.zeros(draw.choice([(), (0,), (3,), (9, 1, 4, 4), (2, 2)]), draw.choice(kinds))
        np.save(file, array)
        return
    elif kind == 7:
        with file.open("wb") as stream:
            np.savez(stream, a=np.zeros(3))
        return
    else:
        head = content[:128].replace(b"(9,", draw.choice([b"(10**9,", b"(-9,", b"(9.0,", b"(9"]))
        content[:128] = head
    file.write_bytes(content)


@pytest.mark.parametrize("times", [150, pytest.param(10_000, marks=pytest.mark.evidence)])
def test_mutated_entries_are_whole_or_refused(times: int, folder: Path) -> None:
    """Never a traceback, never other content under the name."""
    draw, whole = random.Random(0), {file: file.read_bytes() for file in folder.iterdir()}
    refused = 0
    for _ in range(times):
        damage(folder, draw)
        try:
            found = cache.read("tiny")
        except UsageError as error:
            refused += 1
            assert "delete" in str(error) and "\n" not in str(error)  # noqa: PT017
        else:
            assert found.sha256 == made().sha256
            assert found.classes >= 1 and len(found.mean) == len(found.std) == 1
            assert found.normalisation[0].shape == (1, 1, 1)
        for file, content in whole.items():
            file.write_bytes(content)
    assert refused > times / 2


def test_an_incomplete_entry_is_none(folder: Path) -> None:
    (folder / "meta.json").unlink()
    assert not cache.is_cached("tiny")
    cache.write(made())
    assert cache.is_cached("tiny")


def test_other_content_takes_the_place(folder: Path) -> None:
    cache.write(made(1))
    assert cache.read("tiny").sha256 == made(1).sha256
    assert left_over() == ["tiny"]


def test_the_same_content_stays_untouched(folder: Path) -> None:
    before = (folder / "meta.json").stat().st_ino
    cache.write(made())
    assert (folder / "meta.json").stat().st_ino == before


def fail_at(call: int, error: BaseException) -> Callable[..., None]:
    """Return an np.save that raises at its `call`-th call."""
    calls, save = [0], np.save

    def saved(*arguments: Any, **options: Any) -> None:
        calls[0] += 1
        if calls[0] == call:
            raise error
        save(*arguments, **options)

    return saved


@pytest.mark.parametrize("call", [1, 3])
@pytest.mark.parametrize("present", [False, True])
def test_a_full_disk_is_one_sentence_and_keeps_what_was_there(
    call: int, present: bool, monkeypatch: Patch
) -> None:
    """Also where an entry of other content is there: it is not taken for the new one."""
    if present:
        cache.write(made(1))
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(np, "save", fail_at(call, full))
    with pytest.raises(UsageError, match=r"cache/tiny: No space left on device; free some space"):
        cache.write(made())
    assert left_over() == ["tiny"] * present
    assert cache.is_cached("tiny") is present
    if present:
        assert cache.read("tiny").sha256 == made(1).sha256


@pytest.mark.parametrize("call", [1, 4])
def test_an_interrupted_write_leaves_nothing(call: int, monkeypatch: Patch) -> None:
    monkeypatch.setattr(np, "save", fail_at(call, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        cache.write(made())
    assert left_over() == []


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: Patch) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("HT_BENCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UsageError, match=r"file/cache/tiny: Not a directory;.*HT_BENCH_CACHE"):
        cache.write(made())


def test_the_file_beside_the_arrays_says_what_they_are(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    assert (meta["train"], meta["test"]) == ([9, 1, 4, 4], [6, 1, 4, 4])
    assert meta["sha256"] == made().sha256


WRITER = """
import os, sys
import numpy as np
from ht_bench.streams import cache
from ht_bench.streams.dataset import make_dataset

if sys.argv[1] == "killed":
    save, calls = np.save, []
    def saved(*arguments):
        calls.append(save(*arguments))
        if len(calls) == 3:
            os._exit(9)
    np.save = saved
for turn in range(20):
    content = np.full((4, 1, 2, 2), turn % int(sys.argv[2]), dtype=np.uint8)
    part = (content, np.zeros(4, dtype=np.int64))
    cache.write(make_dataset("shared", part, part, 1))
"""


def start(kind: str, contents: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, kind, str(contents)], stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("contents", [1, 2])
def test_processes_that_write_at_once_leave_one_whole_entry(contents: int) -> None:
    for process in [start("whole", contents) for _ in range(2)]:
        _, said = process.communicate()
        assert process.returncode == 0, said
    assert left_over() == ["shared"]
    assert cache.read("shared").classes == 1


def test_a_killed_writer_leaves_no_entry() -> None:
    process = start("killed", 1)
    process.communicate()
    assert process.returncode == 9
    assert not cache.is_cached("shared")
    cache.write(made())
    assert cache.read("tiny").sha256 == made().sha256
