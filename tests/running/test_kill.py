"""Real processes, killed and interrupted at chosen instants, go on to equal results."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import pytest

from ht_bench.cli import main
from ht_bench.records.record import read_record, without_cost

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="looks for processes in /proc"
)
TASK = """
name = "tiny"
family = "warm-start"
[data]
name = "digits"
train = 60
[net]
name = "mlp"
hidden = [16, 12]
[optimizer]
lr = 1e-3
[training]
batch = 16
stack = 2
points = 5
[[phases]]
new = 0.5
wrong = 0.5
updates = 200
[[phases]]
new = 0.5
updates = 200
"""
METHODS = "none,hare-tortoise"
Results = dict[str, dict[str, Any]]
PATIENCE = 600.0


def command(task: Path, out: Path, jobs: int, methods: str, seeds: str) -> list[str]:
    words = ["run", "--task", str(task), "--method", methods, "--seeds", seeds, "--out", str(out)]
    words += ["--jobs", str(jobs), "--device", "cpu", "--no-tensorboard"]
    return [*words, "--checkpoint-seconds", "0.05"]


def run_in_a_session_of_its_own(words: list[str], said: Path) -> None:
    os.setsid()
    sys.stdout = sys.stderr = log = said.open("w", encoding="utf-8", buffering=1)
    for descriptor in (1, 2):  # its workers' too
        os.dup2(log.fileno(), descriptor)
    sys.exit(main(words))


class Runner:
    """`ht-bench run` on the tiny task: forked, since a fresh Python takes seconds to load torch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.task = folder / "tiny.toml"
        self.task.write_text(TASK, encoding="utf-8")
        self.started: list[ForkProcess] = []

    def start(
        self, out: Path, jobs: int = 1, methods: str = METHODS, seeds: str = "100-103"
    ) -> ForkProcess:
        words = command(self.task, out, jobs, methods, seeds)
        process = ForkProcess(target=run_in_a_session_of_its_own, args=(words, self.said()))
        process.start()
        self.started.append(process)
        return process

    def said(self, process: ForkProcess | None = None) -> Path:
        """The file of what a process, or the next one, says."""
        return self.folder / str(self.started.index(process) if process else len(self.started))

    def end(self, process: ForkProcess) -> str:
        """Wait for its end; returns what it said."""
        process.join(PATIENCE)
        assert process.exitcode is not None, "never ended"
        return self.said(process).read_text(encoding="utf-8")

    def finish(self, out: Path) -> None:
        """Run the same command in this process."""
        assert main(command(self.task, out, 1, METHODS, "100-103")) == 0

    def wait_until(self, happened: Callable[[], bool], process: ForkProcess) -> None:
        deadline = time.monotonic() + PATIENCE
        while not happened():
            if not process.is_alive():
                pytest.fail(f"ended too early: {self.end(process)}")
            assert time.monotonic() < deadline, "never happened"
            time.sleep(0.002)

    def clean_up(self) -> None:
        for process in self.started:
            if process.is_alive():
                process.kill()
                process.join()


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    made = Runner(tmp_path_factory.mktemp("runner"))
    yield made
    made.clean_up()


@pytest.fixture(scope="module")
def uninterrupted(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> Results:
    out = tmp_path_factory.mktemp("uninterrupted")
    runner.finish(out)
    assert len(results(out)) == 8
    return results(out)


# ---- what lies in a folder, who is alive ----


def results(out: Path) -> Results:
    """Every result below `out` without its cost, by path."""
    files = sorted(out.rglob("result.json"))
    return {str(file.relative_to(out)): without_cost(read_record(file)) for file in files}


def training(out: Path) -> bool:
    """A seed's folder is there: training begins."""
    return any(out.rglob(".lock"))


def saved(out: Path) -> bool:
    """A checkpoint is there."""
    return any(out.rglob("stack-*.pt"))


def some_finished(out: Path) -> bool:
    """A result is there."""
    return any(out.rglob("result.json"))


def parents() -> dict[int, int]:
    """The parent of every living process; zombies do not live."""
    living = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text(encoding="utf-8").rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if state != "Z":
            living[int(stat.parent.name)] = int(parent)
    return living


def descendants(ancestor: int) -> set[int]:
    table, family = parents(), {ancestor}
    while more := {pid for pid, parent in table.items() if parent in family} - family:
        family |= more
    return family - {ancestor}


def workers(process: ForkProcess) -> set[int]:
    """The descendants that train, not multiprocessing's resource tracker."""
    assert process.pid is not None
    return {pid for pid in descendants(process.pid) if "spawn_main" in command_line(pid)}


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")
    except OSError:
        return ""


def kill(process: ForkProcess) -> None:
    """SIGKILL to the parent alone; its workers must vanish by themselves."""
    assert process.pid is not None
    left = descendants(process.pid)
    process.kill()
    process.join()
    deadline = time.monotonic() + PATIENCE
    while left & set(parents()):
        assert time.monotonic() < deadline, f"outlived their parent: {left & set(parents())}"
        time.sleep(0.01)


# ---- SIGKILL ----


@pytest.mark.parametrize(
    ("jobs", "instants"),
    [
        (1, (training, saved, some_finished)),
        (2, (some_finished,)),
        pytest.param(2, (saved, some_finished), marks=pytest.mark.evidence),
    ],
    ids=["1", "2", "2 twice"],
)
def test_killed_at_chosen_instants(
    jobs: int, instants: Any, runner: Runner, uninterrupted: Results, tmp_path: Path
) -> None:
    for instant in instants:
        process = runner.start(tmp_path, jobs)
        runner.wait_until(lambda reached=instant: reached(tmp_path), process)  # type: ignore[misc]
        assert len(workers(process)) == (jobs if jobs > 1 else 0)
        kill(process)
        said = runner.end(process)
        assert "Traceback" not in said and "resource_tracker" not in said, said
    assert 0 < len(results(tmp_path)) < 8
    assert results(tmp_path).items() <= uninterrupted.items()
    runner.finish(tmp_path)
    assert results(tmp_path) == uninterrupted
    assert not saved(tmp_path)


@pytest.mark.evidence
@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_at_twenty_random_instants(
    jobs: int, runner: Runner, uninterrupted: Results, tmp_path: Path
) -> None:
    draw, kills, folder = random.Random(jobs), 0, 0
    while kills < 20:
        process = runner.start(tmp_path / str(folder), jobs)
        runner.wait_until(lambda: training(tmp_path / str(folder)), process)  # noqa: B023
        process.join(draw.uniform(0, 1))
        if process.is_alive():
            kill(process)
            kills += 1
            continue
        assert results(tmp_path / str(folder)) == uninterrupted
        folder += 1
    runner.finish(tmp_path / str(folder))
    assert results(tmp_path / str(folder)) == uninterrupted


# ---- Ctrl-C ----


def sentences(said: str) -> list[str]:
    lines = said.replace("\r", "\n").splitlines()
    return [line for line in lines if line.startswith("ht-bench:")]


@pytest.mark.parametrize(
    ("jobs", "instant"),
    [(1, "saved"), (2, "workers start"), pytest.param(2, "saved", marks=pytest.mark.evidence)],
)
def test_ctrl_c_stops_with_one_sentence_and_goes_on(
    jobs: int, instant: str, runner: Runner, uninterrupted: Results, tmp_path: Path
) -> None:
    process = runner.start(tmp_path, jobs)
    reached = {
        "saved": lambda: saved(tmp_path),
        "workers start": lambda: len(workers(process)) == jobs,
    }
    runner.wait_until(reached[instant], process)
    assert process.pid is not None
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to parent and workers
    said = runner.end(process)
    assert process.exitcode == 130, said
    assert len(sentences(said)) == 1 and "Traceback" not in said, said
    assert "of 8 runs finished; the same command goes on" in said
    assert not workers(process)
    runner.finish(tmp_path)
    assert results(tmp_path) == uninterrupted


# ---- two at once ----


def test_a_second_process_on_the_same_runs_waits_for_them(
    runner: Runner, uninterrupted: Results, tmp_path: Path
) -> None:
    options = {"methods": "none", "seeds": "100-101"}
    first = runner.start(tmp_path, **options)
    runner.wait_until(lambda: saved(tmp_path), first)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGSTOP)
    second = runner.start(tmp_path, **options)
    log = runner.said(second)
    runner.wait_until(lambda: log.is_file() and "by another runner" in log.read_text(), second)
    assert not results(tmp_path)
    os.kill(first.pid, signal.SIGCONT)
    assert "2 results" in runner.end(second) and second.exitcode == 0
    runner.end(first)
    assert first.exitcode == 0
    assert results(tmp_path).items() <= uninterrupted.items()
    assert len(results(tmp_path)) == 2 and not saved(tmp_path)
