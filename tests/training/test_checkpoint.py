"""One checkpoint file and the one before: at every instant, and after any damage, one is used."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import pickle
import random
import resource
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ht_bench.errors import UsageError
from ht_bench.training import checkpoint

MINE = "mine"


def state(number: int) -> dict[str, Any]:
    return {"weights": torch.full((50,), float(number)), "steps": number, "points": [{"a": [1.5]}]}


def read(path: Path, fingerprint: str = MINE) -> int | None:
    """The number of the state that is loaded; None without one. No warning is allowed."""
    loaded = checkpoint.load(path, fingerprint)
    if loaded is None:
        return None
    steps: int = loaded["steps"]
    assert torch.equal(loaded["weights"], state(steps)["weights"])
    assert loaded["points"] == state(steps)["points"]
    return steps


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where two checkpoints have been saved, 1 and then 2."""
    file = tmp_path / "runs" / "stack-100-101.pt"
    for number in (1, 2):
        checkpoint.save(file, MINE, state(number))
    return file


def names(path: Path) -> set[str]:
    return {file.name for file in path.parent.iterdir()}


def test_the_newest_is_used_and_the_one_before_stays(path: Path) -> None:
    assert names(path) == {"stack-100-101.pt", "stack-100-101.pt.old"}
    assert read(path) == 2
    assert read(checkpoint.before(path)) == 1
    checkpoint.save(path, MINE, state(3))
    assert (read(path), read(checkpoint.before(path))) == (3, 2)


# ---- killed while saving ----


def snapshots(path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Save, and yield the path in a copy of its folder as it was around each call of the system."""
    taken: list[Path] = []

    def take() -> None:
        taken.append(path.parent.with_name(f"{number}-{len(taken)}"))
        shutil.copytree(path.parent, taken[-1])

    class Watched:
        def __getattr__(self, name: str) -> Any:
            call = getattr(os, name)
            if name not in ("fsync", "chmod", "replace"):
                return call

            def watched(*arguments: Any) -> None:
                take()
                call(*arguments)
                take()

            return watched

    with monkeypatch.context() as patch:
        patch.setattr("ht_bench.files.os", Watched())
        checkpoint.save(path, MINE, state(number))
    assert len(taken) == 8
    return (folder / path.name for folder in taken)


def test_a_kill_at_any_instant_leaves_a_whole_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for copy in snapshots(path, 3, monkeypatch):
        found.append(read(copy))
        assert names(copy) <= {path.name, f"{path.name}.old"}  # what was half written is gone
        checkpoint.save(copy, MINE, state(4))
        assert read(copy) == 4
    assert found == [2] * 7 + [3]


def test_so_does_a_kill_after_the_newest_was_of_no_use(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="goes on from the one before"):
        assert read(path) == 1
    assert [read(copy) for copy in snapshots(path, 3, monkeypatch)] == [1] * 7 + [3]


# ---- damage ----


@contextmanager
def damaged(path: Path, change: Callable[[bytes], bytes]) -> Iterator[None]:
    """Damage the newest of two; both are as they were afterwards."""
    files = {file: file.read_bytes() for file in (path, checkpoint.before(path))}
    path.write_bytes(change(files[path]))
    yield
    for file, content in files.items():
        file.write_bytes(content)


def assert_the_one_before_is_used(path: Path) -> None:
    fault = "(unreadable|of another machine, of other software, code or settings)"
    sentence = f"The checkpoint {path} is {fault}; this run goes on from the one before."
    with pytest.warns(UserWarning, match=sentence):
        assert read(path) == 1
    assert read(path) == 1  # it has taken the other's place


def test_cut_anywhere(path: Path) -> None:
    length = path.stat().st_size
    for twentieth in range(20):
        with damaged(path, lambda whole: whole[: length * twentieth // 20]):  # noqa: B023
            assert_the_one_before_is_used(path)
    for cut in (31, 32, 33, length - 1):
        with damaged(path, lambda whole: whole[:cut]):  # noqa: B023
            assert_the_one_before_is_used(path)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.randoms(use_true_random=False))
def test_changed_anywhere(path: Path, draw: random.Random) -> None:
    def change(whole: bytes) -> bytes:
        changed = bytearray(whole)
        place = draw.randrange(len(whole))
        kind = draw.randrange(3)
        if kind == 0:
            changed[place] ^= 1 << draw.randrange(8)
        elif kind == 1:
            changed[place : place + draw.randrange(1, 600)] = draw.randbytes(draw.randrange(600))
        else:
            changed += draw.randbytes(draw.randrange(1, 600))
        return bytes(changed) if changed != whole else b""

    with damaged(path, change):
        assert_the_one_before_is_used(path)


def test_both_damaged_or_foreign_start_anew_with_one_sentence(path: Path) -> None:
    for content, fault in ((b"", "unreadable"), (path.read_bytes(), "of another machine, .*")):
        checkpoint.before(path).write_bytes(content)
        path.write_bytes(b"no checkpoint")
        fingerprint = MINE if content == b"" else "another"
        told = f"{path} is unreadable, the one before is {fault}; this run starts anew"
        with pytest.warns(UserWarning, match=told) as warned:
            assert read(path, fingerprint) is None
        assert len(warned) == 1


def test_a_foreign_one_does_not_hide_ones_own(path: Path) -> None:
    checkpoint.save(path, "another", state(3))
    with pytest.warns(
        UserWarning, match="software, code or settings; this run goes on from the one b"
    ):
        assert read(path) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": "2"}, "other code of the method"),
        ({"hardware": {"cpu": 2}, "source": "2"}, "another machine and other code of the method"),
        ({"software": {}, "version": "2"}, "other software"),
        ({"split": "validation", "seeds": [2]}, "other settings"),
        ({"task": "2"}, "another task"),
        ({"data": "2"}, "other data"),
        ({"unheard": 2}, "another machine, of other software, code or settings"),
    ],
)
def test_what_a_foreign_one_differs_in_is_named(
    path: Path, changes: dict[str, Any], words: str
) -> None:
    keys = ("hardware", "source", "software", "version", "split", "seeds", "task", "data")
    theirs = dict.fromkeys(keys, "1")
    checkpoint.remove(path)
    checkpoint.save(path, json.dumps(theirs), state(1))
    told = f"The checkpoint {path} is of {words}; this run starts anew"
    with pytest.warns(UserWarning, match=told):
        assert read(path, json.dumps({**theirs, **changes})) is None


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("evil",)


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


WHOSE = [checkpoint.LAYOUT, MINE]


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Evil(), protocol=2),
        saved({"whose": WHOSE, "state": Evil()}),
        saved([WHOSE]),
        saved({"whose": torch.zeros(2), "state": {}}),
        saved({"whose": WHOSE}),
        saved({"whose": WHOSE, "state": [1]}),
        saved({"state": {}}),
        b"",
        b"PK\x03\x04",
    ],
    ids=itertools.count(),
)
def test_forged_with_the_right_hash(
    content: bytes, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path.write_bytes(hashlib.sha256(content).digest() + content)
    assert_the_one_before_is_used(path)
    assert not (tmp_path / "evil").exists()


def test_another_layout_is_not_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "LAYOUT", checkpoint.LAYOUT + 1)
    with pytest.warns(
        UserWarning, match="other software, code or settings, .*; this run starts anew"
    ):
        assert read(path) is None


# ---- a full disk ----


@pytest.mark.parametrize("size", [0, 10, 100, 1000, 40_000])
def test_a_disk_that_is_full_in_the_middle_leaves_both(size: int, path: Path) -> None:
    large = {**state(3), "buffer": torch.zeros(10_000)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        with pytest.raises(UsageError, match=r"Could not write .*\.pt: File too large"):
            checkpoint.save(path, MINE, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(path) == {path.name, f"{path.name}.old"}
    assert (read(path), read(checkpoint.before(path))) == (2, 1)


def test_results_find_room_beside_a_checkpoint(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = path.stat().st_size
    for free, fits in ((2 * size, True), (2 * size - 100, False)):
        usage = SimpleNamespace(free=free)
        monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda folder: usage)  # noqa: B023
        if fits:
            checkpoint.save(path, MINE, state(3))
            continue
        with pytest.raises(UsageError, match="No space left on device"):
            checkpoint.save(path, MINE, state(4))
    assert read(path) == 3


# ---- which are there ----


def test_they_are_found_and_removed(path: Path) -> None:
    other = path.with_name("stack-102.pt")
    checkpoint.save(other, MINE, state(1))
    path.unlink()  # as after a kill between the two renames
    path.with_name(f".{path.name}.half").write_bytes(b"half")
    assert checkpoint.find(path.parent) == [path, other]
    assert checkpoint.exists(path) and checkpoint.exists(other)
    checkpoint.remove(path)
    checkpoint.remove(path)
    assert not checkpoint.exists(path) and names(path) == {other.name}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert checkpoint.load(path, MINE) is None
