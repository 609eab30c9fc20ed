"""Who trains the stacks: failures stay where they are, and a pool changes no bit."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ht_bench.cli import main
from ht_bench.errors import UsageError
from ht_bench.methods.resolve import Named
from ht_bench.records.record import Record, without_cost
from ht_bench.records.runs import read_runs
from ht_bench.running.evaluate import Finished, run_plan
from ht_bench.running.plan import Request, make_plan
from ht_bench.streams.task import Task, parse_task

METHODS = '''\
"""Methods that misbehave in a stack that holds seed 101."""
import dataclasses
import os
import sys

from ht_bench.methods.base import Method
from ht_bench.streams.randomness import torch_seed

SICK = torch_seed("tiny", 101, "method")


@dataclasses.dataclass(eq=False)
class Misbehaving(Method):
    def setup(self):
        self.sick = any(g.initial_seed() == SICK for g in self.generator)
        self.steps = 0

    def after_step(self):
        self.steps += 1
        if self.sick and self.steps == 5:
            self.misbehave()


class Raises(Misbehaving):
    def misbehave(self):
        raise ZeroDivisionError("the sky fell")  # here


class Dies(Misbehaving):
    def misbehave(self):
        os._exit(int(os.environ["EXIT_CODE"]))


class Leaves(Misbehaving):
    def misbehave(self):
        sys.exit(0)
'''


@pytest.fixture
def task() -> Task:
    table = {
        "name": "tiny",
        "family": "warm-start",
        "data": {"name": "digits", "train": 60},
        "net": {"name": "mlp", "hidden": [16, 12]},
        "optimizer": {"lr": 1e-2},
        "training": {"batch": 16, "points": 2},
        "phases": [{"new": 0.5, "wrong": 0.5, "updates": 12}, {"new": 0.5, "updates": 12}],
    }
    return parse_task(table, "tiny.toml")


@pytest.fixture
def method(tmp_path: Path) -> Callable[[str], str]:
    """Return method(name): the reference of a class in a file of a user's own."""
    file = tmp_path / "mine.py"
    file.write_text(METHODS, encoding="utf-8")
    return lambda name: f"{file}:{name}"


def run(
    task: Task, methods: Sequence[Named], out: Path | None, workers: int, seeds: str = "100-102"
) -> Finished:
    first, _, last = seeds.partition("-")
    chosen = tuple(range(int(first), int(last) + 1))
    request = Request((task,), tuple(methods), chosen, out=out, tensorboard=False)
    return run_plan(make_plan(request), workers, progress=False)


def by_run(records: list[Record]) -> dict[tuple[str, int], Record]:
    return {(r["method"], r["seed"]): without_cost(r) for r in records}


def test_a_pool_equals_one_process_bit_for_bit(task: Task, tmp_path: Path) -> None:
    methods = ["none", "hare-tortoise"]
    pool = run(task, methods, tmp_path, 2, "100-101")
    alone = run(task, methods, None, 1, "100-101")
    assert by_run(pool.records) == by_run(alone.records) == by_run(read_runs(tmp_path))
    assert len(pool.records) == 4 and not pool.failures


@pytest.mark.parametrize("workers", [1, 2])
def test_a_method_that_raises_ends_its_own_stack_only(
    workers: int, task: Task, method: Callable[[str], str], tmp_path: Path
) -> None:
    reference = method("Raises")
    out = tmp_path / "out"
    done = run(task, [reference, "none"], out, workers)
    assert sorted(by_run(done.records)) == [
        ("Raises", 100),
        ("Raises", 102),
        ("none", 100),
        ("none", 101),
        ("none", 102),
    ]
    assert by_run(read_runs(out)) == by_run(done.records)
    [sentence] = done.failures
    file = Path(reference.rpartition(":")[0])
    lines = file.read_text(encoding="utf-8").splitlines()
    line = next(n for n, text in enumerate(lines, 1) if text.endswith("# here"))
    for part in ("'Raises'", "tiny", "ZeroDivisionError", "the sky fell", f"{file}, line {line}"):
        assert part in sentence
    assert sentence.count("\n") == 0


@pytest.mark.parametrize(
    ("name", "code"), [("Dies", 3), ("Leaves", 0)], ids=["os._exit(3)", "sys.exit(0)"]
)
def test_a_worker_that_dies_is_reported(
    name: str,
    code: int,
    task: Task,
    method: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EXIT_CODE", str(code))
    out = tmp_path / "out"
    done = run(task, ["none", method(name)], out, 2, "101-102")
    [sentence] = done.failures
    assert f"A worker process died (exit code {code};" in sentence
    assert "run the same command again to go on" in sentence
    run(task, ["none"], out, 1, "101-102")
    kept = set(by_run(read_runs(out)))
    assert kept - {(name, 102)} == {("none", 101), ("none", 102)}


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_one_sentence_and_earlier_results_stay(
    call: str, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    earlier = run(task, ["none"], tmp_path, 1, "100-101")
    with monkeypatch.context() as patch:
        patch.setattr(f"ht_bench.files.os.{call}", full)
        done = run(task, ["none"], tmp_path, 1, "100-102")
    [sentence] = done.failures
    assert sentence.startswith("Could not write ") and "No space left on device" in sentence
    assert by_run(done.records) == by_run(earlier.records) == by_run(read_runs(tmp_path))
    assert not [file for file in tmp_path.rglob("*") if file.name.startswith((".result", ".stack"))]
    assert len(run(task, ["none"], tmp_path, 1, "100-102").records) == 3


def test_an_out_folder_that_is_a_file_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "runs"
    file.write_text("mine", encoding="utf-8")
    command = ["run", "--task", "warm-start-digits-v1", "--method", "none", "--out", str(file)]
    assert main(command) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ht-bench: The folder {file} cannot be written") and "--out" in line
    assert file.read_text(encoding="utf-8") == "mine"


def test_evaluate_raises_the_sentence(
    task: Task, method: Callable[[str], str], tmp_path: Path
) -> None:
    from ht_bench.running.evaluate import evaluate

    with pytest.raises(UsageError, match="'Raises' failed on tiny with ZeroDivisionError"):
        evaluate(method("Raises"), task, (101,), out=tmp_path / "out", progress=False)
