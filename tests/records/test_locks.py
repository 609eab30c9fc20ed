"""Locks: one process trains a run at a time, and a dead process holds none."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ht_bench.errors import UsageError
from ht_bench.records import runs as locks
from ht_bench.records.runs import locked

HOLD = """
import sys
import threading
import time
from pathlib import Path
from ht_bench.records.runs import locked

with locked([Path(sys.argv[1])]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of tmp_path/seed1 until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "seed1")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def free(folder: Path) -> bool:
    try:
        with locked([folder]):
            return True
    except UsageError:
        return False


def test_another_process_is_named(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"Another process is training .*seed1; wait"),
        locked([tmp_path / "seed0", tmp_path / "seed1"]),
    ):
        pytest.fail("the body ran without the lock")
    assert free(tmp_path / "seed0")  # what was taken before the refusal is given back


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_a_dead_process_holds_nothing(
    holder: subprocess.Popen[str], tmp_path: Path, end: str
) -> None:
    assert not free(tmp_path / "seed1")
    if end == "exit":
        assert holder.stdin is not None
        holder.stdin.close()
    else:
        holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert free(tmp_path / "seed1")


def test_a_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    def fail() -> None:
        with locked([tmp_path / "seed1"]):
            assert not free(tmp_path / "seed1")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert free(tmp_path / "seed1")


def test_no_folder_no_lock() -> None:
    with locked([]):
        pass


def test_a_system_without_locks_trains_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "fcntl", None)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(locked([tmp_path / "seed1"]))


def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    with (
        pytest.raises(UsageError, match="keeps no locks .*HT_BENCH_NO_LOCKS=1"),
        locked([tmp_path]),
    ):
        pass
    monkeypatch.setenv(locks.NO_LOCKS, "1")
    with locked([tmp_path]):
        pass


def test_evaluate_waits_for_who_trains(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    """A run that another process has claimed is trained only when that has ended without it."""
    import ht_bench
    from ht_bench.streams.task import parse_task

    table = {
        "name": "locked-v1",
        "family": "warm-start",
        "data": {"name": "digits", "train": 40},
        "net": {"name": "mlp", "hidden": [4]},
        "optimizer": {"lr": 1e-3},
        "phases": [{"new": 1.0, "updates": 1}],
    }
    task = parse_task(table, "locked")
    (tmp_path / "runs").mkdir()
    out = tmp_path / "runs"
    ht_bench.evaluate("none", task, [1], out=out, progress=False)
    [group] = out.glob("locked-v1/none-*")
    (group / "seed1" / "result.json").unlink()
    (group / "seed1").rename(tmp_path / "unused")
    (group / "seed1").symlink_to(tmp_path / "seed1")
    ends = threading.Timer(4.0, holder.kill)
    ends.start()
    began = time.monotonic()
    ht_bench.evaluate("none", task, [1], out=out, progress=False)
    assert time.monotonic() - began > 3.0
    assert (tmp_path / "seed1" / "result.json").exists()
