"""Folders, disks and locks with planted faults."""

from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ht_bench.doctor import datasets, storage
from ht_bench.streams import bundled, cache
from ht_bench.streams.dataset import make_dataset

Found = Callable[[Any], dict[str, list[Any]]]
Patch = pytest.MonkeyPatch
Usage = namedtuple("Usage", "total used free")


def test_a_folder_that_cannot_be_written_is_named(
    found: Found, tmp_path: Path, monkeypatch: Patch
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    monkeypatch.setenv("HT_BENCH_CACHE", str(locked))
    kept = storage.tempfile.mkdtemp

    def refused(*, dir: Path, prefix: str) -> str:  # a root user may write everywhere
        if dir == locked:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return kept(dir=dir, prefix=prefix)

    monkeypatch.setattr(storage.tempfile, "mkdtemp", refused)
    answer = found(storage.writing)
    [fault] = answer["fault"]
    assert f"The data cache {locked} cannot be written: Permission denied." == fault.sentence
    assert fault.remedy == "export HT_BENCH_CACHE=FOLDER" and len(answer["ok"]) == 2


def test_a_file_in_place_of_the_runs_folder(found: Found, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("", encoding="utf-8")
    [fault] = found(storage.writing)["fault"]
    assert "runs cannot be written: Not a directory" in fault.sentence
    assert fault.remedy == "--out FOLDER"


def test_a_disk_that_is_full_when_written(found: Found, monkeypatch: Patch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("ht_bench.files.os.fsync", full)
    faults = found(storage.writing)["fault"]
    assert len(faults) == 3 and all("No space left" in fault.sentence for fault in faults)


@pytest.mark.parametrize(("free", "state"), [(10**6, "fault"), (10**9, "warning"), (10**11, "ok")])
def test_disk_space(found: Found, monkeypatch: Patch, free: int, state: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(10**12, 10**12 - free, free))
    monkeypatch.setattr(storage, "_free_files", lambda place: None)
    answer = found(storage.space)
    assert list(answer) == [state] and len(answer[state]) == 3
    assert (
        f"{free / 2**30:.1f} of 931 GiB are free for the runs folder" in answer[state][0].sentence
    )
    assert (answer[state][0].remedy == "free some space, or --out FOLDER") is (state != "ok")


def test_a_disk_without_free_files(found: Found, monkeypatch: Patch) -> None:
    monkeypatch.setattr(storage, "_free_files", lambda place: 12)
    warnings = found(storage.space)["warning"]
    assert any("12 files are free for the runs folder" in each.sentence for each in warnings)


# ---- locks ----


def refusing(number: int) -> Any:
    """Return a flock that fails with an error number."""

    def flock(file: Any, how: int) -> None:
        raise OSError(number, os.strerror(number))

    return flock


@pytest.mark.parametrize("variable", ["", "1"])
def test_a_file_system_without_locks(found: Found, monkeypatch: Patch, variable: str) -> None:
    monkeypatch.setenv("HT_BENCH_NO_LOCKS", variable)
    monkeypatch.setattr(storage.fcntl, "flock", refusing(errno.ENOLCK))
    answer = found(storage.locks)
    [finding] = answer["warning" if variable else "fault"]
    assert "keeps no locks (No locks available)." in finding.sentence
    assert "HT_BENCH_NO_LOCKS=1" in finding.remedy and "ok" not in answer


def test_locks_that_do_not_hold_between_processes(found: Found, monkeypatch: Patch) -> None:
    monkeypatch.setattr(storage.fcntl, "flock", lambda file, how: None)
    [finding] = found(storage.locks)["fault"]
    assert "gives one lock to two processes." in finding.sentence


def test_locks_that_outlive_their_process(found: Found, monkeypatch: Patch) -> None:
    monkeypatch.setattr(storage.fcntl, "flock", refusing(errno.EAGAIN))
    [finding] = found(storage.locks)["fault"]
    assert "keeps the lock of a process that is dead." in finding.sentence


def test_another_process_that_cannot_lock(found: Found, monkeypatch: Patch) -> None:
    monkeypatch.setattr(storage, "HOLDER", "raise OSError(38, 'Function not implemented')")
    [finding] = found(storage.locks)["fault"]
    assert "keeps no locks." in finding.sentence


def test_a_system_without_locks(found: Found, monkeypatch: Patch) -> None:
    monkeypatch.setattr(storage, "fcntl", None)
    [finding] = found(storage.locks)["warning"]
    assert "one `ht-bench run` at a time" in finding.sentence


MOUNTS = """\
/dev/vda / ext4 rw,relatime 0 0
server:/a /data/shared nfs4 rw,local_lock=none 0 0
server:/b /data/my\\040runs lustre rw,localflock 0 0
"""


@pytest.mark.parametrize(
    ("place", "kind"), [("/data", "ext4"), ("/data/shared/x", "nfs4"), ("/data/my runs", "lustre")]
)
def test_the_mount_of_a_folder(tmp_path: Path, place: str, kind: str) -> None:
    table = tmp_path / "mounts"
    table.write_text(MOUNTS, encoding="utf-8")
    assert storage.mount_of(Path(place), table)[0] == kind
    assert storage.mount_of(Path(place), tmp_path / "absent") == ("", ())


@pytest.mark.parametrize(
    ("mount", "state", "words"),
    [
        (("nfs4", ("rw", "local_lock=none")), "note", "tried on this machine alone"),
        (("nfs", ("rw", "nolock")), "warning", "another machine does not see its locks"),
        (("lustre", ("localflock",)), "warning", "another machine does not see its locks"),
        (("ext4", ("rw",)), "ok", "hold between processes"),
    ],
)
def test_locks_of_network_folders(
    found: Found, monkeypatch: Patch, mount: Any, state: str, words: str
) -> None:
    monkeypatch.setattr(storage, "mount_of", lambda place: mount)
    answer = found(storage.locks)
    assert words in answer[state][0].sentence and "fault" not in answer


# ---- data ----


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: Patch) -> Path:
    monkeypatch.setenv("HT_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fill(name: str) -> None:
    """Put a dataset of 12 images into the cache under a name."""
    draw = np.random.default_rng(0)
    part = draw.integers(0, 256, (12, 1, 28, 28), dtype=np.uint8), np.arange(12) % 10
    cache.write(make_dataset(name, part, part, 10))


def test_absent_data_come_with_the_command(found: Found, own_cache: Path) -> None:
    answer = found(datasets.datasets)
    assert [each.sentence for each in answer["ok"]] == ["digits is here.", "noise is here."]
    assert [each.remedy for each in answer["note"]] == [
        f"ht-bench data fetch {name}"
        for name in ("mnist", "fashion-mnist", "cifar10", "cifar100", "tiny-imagenet")
    ]
    assert [each.sentence.split()[0] for each in found(datasets.contents)["ok"]] == [
        "digits",
        "noise",
    ]


def test_data_that_lie_ready_are_named(
    found: Found, own_cache: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    (tmp_path / "raw" / "MNIST").mkdir(parents=True)
    monkeypatch.setenv("HT_BENCH_DATA", str(tmp_path / "raw"))
    answer = found(datasets.datasets)
    said = [each.sentence for each in answer["ok"]]
    assert f"mnist will be imported from {tmp_path / 'raw' / 'MNIST'}" in said[2]
    assert len(answer["note"]) == 4


@pytest.mark.parametrize("harm", ["foreign", "flipped", "truncated", "meta"])
def test_damaged_data_are_named(found: Found, own_cache: Path, harm: str) -> None:
    fill("mnist")
    images, meta = (own_cache / "mnist" / name for name in ("train_images.npy", "meta.json"))
    content = images.read_bytes()
    if harm == "flipped":
        images.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif harm == "truncated":
        images.write_bytes(content[:-40])
    elif harm == "meta":
        meta.write_text("{", encoding="utf-8")
    [finding] = found(datasets.contents)["fault"]
    assert "mnist" in finding.sentence
    assert finding.remedy == f"rm -r {own_cache / 'mnist'} && ht-bench data fetch mnist"


def test_broken_digits_are_named(found: Found, own_cache: Path, monkeypatch: Patch) -> None:
    changed = replace(bundled.BUNDLED["digits"], sha256="0" * 64)
    monkeypatch.setitem(bundled.BUNDLED, "digits", changed)
    [finding] = found(datasets.contents)["fault"]
    assert "scikit-learn's digits" in finding.sentence and "scikit-learn" in finding.remedy


def test_a_half_made_cache_is_found(found: Found, own_cache: Path) -> None:
    left, new = own_cache / ".mnist.abc", own_cache / ".mnist.new"
    for place in (left, new):
        (place / "new").mkdir(parents=True)
    os.utime(left, (0, 0))
    [finding] = [each for each in found(datasets.datasets)["note"] if "half-made" in each.sentence]
    assert finding.remedy == f"rm -r {left}"
