"""Two runners in one folder, workers that end before their work: nothing lost, nothing twice."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ht_bench.records.record import Record, without_cost
from ht_bench.records.runs import is_claimed, locked
from ht_bench.running.evaluate import BETWEEN_LOOKS, Finished, evaluate, run_plan
from ht_bench.running.executor import ExecutorRequest
from ht_bench.running.job import run_stack
from ht_bench.running.plan import Request, make_plan
from ht_bench.streams.task import Task, parse_task
from ht_bench.training.history import Observer

TRACED = '''\
"""A method that says when it trains, and one that ends its process the first time."""
import dataclasses
import os
import pathlib
import signal

import ht_bench

HERE = pathlib.Path(__file__).parent

class Traced(ht_bench.Method):
    def setup(self):
        with open(HERE / "trained", "a") as file:
            file.write(f"{self.name}\\n")

@dataclasses.dataclass(eq=False)
class Ending(Traced):
    number: int = signal.SIGKILL
    steps: int = 0
    capturable = False

    def after_step(self):
        self.steps += 1
        mark = HERE / "ended"
        if self.steps == 6 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), self.number)

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]
'''


def tiny(updates: int = 12) -> Task:
    table = {
        "name": "tiny",
        "family": "warm-start",
        "data": {"name": "digits", "train": 60},
        "net": {"name": "mlp", "hidden": [16, 12]},
        "optimizer": {"lr": 1e-2},
        "training": {"batch": 16, "points": 2, "stack": 2},
        "phases": [{"new": 0.5, "wrong": w, "updates": updates} for w in (0.5, 0.0)],
    }
    return parse_task(table, "tiny.toml")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "traced.py"
    path.write_text(TRACED, encoding="utf-8")
    return path


def plan_of(method: str, out: Path | None, *seeds: int, **overrides: Any) -> Any:
    request = Request((tiny(),), (method,), seeds, out=out, tensorboard=False, overrides=overrides)
    return make_plan(request)


def times_trained(file: Path) -> int:
    trained = file.with_name("trained")
    return len(trained.read_text(encoding="utf-8").splitlines()) if trained.exists() else 0


def by_seed(records: list[Record]) -> dict[int, Record]:
    return {record["seed"]: without_cost(record) for record in records}


def test_what_another_runner_finished_since_is_read_not_trained(file: Path, tmp_path: Path) -> None:
    """Two plans were made before either trained; the second trains seed 3 alone."""
    first = plan_of(f"{file}:Traced", tmp_path / "runs", 1, 2)
    second = plan_of(f"{file}:Traced", tmp_path / "runs", 1, 2, 3)
    done = run_plan(first, 1, progress=False)
    assert times_trained(file) == 1
    steps: list[int] = []
    records = [run_stack(job, Observer(steps.append)) for job in second.jobs]
    assert times_trained(file) == 2 and sum(steps) == second.steps
    assert [record["seed"] for stack in records for record in stack] == [1, 2, 3]
    assert by_seed(records[0]) == by_seed(done.records)


def test_a_stack_overlapped_by_another_runners_trains_the_rest(file: Path, tmp_path: Path) -> None:
    run_plan(plan_of(f"{file}:Traced", tmp_path / "alone", 1, 2), 1, progress=False)
    overlapping = plan_of(f"{file}:Traced", tmp_path / "runs", 1, 2)
    run_plan(plan_of(f"{file}:Traced", tmp_path / "runs", 1), 1, progress=False)
    before = (result := next(tmp_path.glob("runs/*/*/seed1/result.json"))).stat().st_mtime_ns
    done = run_plan(overlapping, 1, progress=False)
    assert result.stat().st_mtime_ns == before and len(done.records) == 2
    alone = plan_of(f"{file}:Traced", tmp_path / "alone", 1, 2)
    assert by_seed(done.records) == by_seed(run_plan(alone, 1, progress=False).records)


RUNNER = """
import sys
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[1]).parent))
from tests_claims import plan_of
from ht_bench.running.evaluate import run_plan
plan = plan_of(sys.argv[2] + ":Traced", Path(sys.argv[3]), *range(1, 7))
print("planned", flush=True)
sys.stdin.readline()
done = run_plan(plan, 1, progress=False)
assert not done.failures and len(done.records) == 6, done
"""


def test_two_runners_share_a_folder(file: Path, tmp_path: Path) -> None:
    """Both planned all of it before either began; together they train each stack once."""
    (tmp_path / "tests_claims.py").write_text(Path(__file__).read_text(encoding="utf-8"))
    words = [sys.executable, "-c", RUNNER, str(tmp_path / "tests_claims.py"), str(file)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    runners = [subprocess.Popen([*words, str(tmp_path / "runs")], **pipes) for _ in range(2)]
    for runner in runners:
        assert runner.stdout.readline() == "planned\n"
    for runner in runners:
        runner.stdin.write("go\n")
        runner.stdin.flush()
    for runner in runners:
        runner.communicate()
        assert runner.returncode == 0
    assert times_trained(file) == 3
    assert len(list(tmp_path.glob("runs/*/*/seed*/result.json"))) == 6


HOLD = """
import sys
from pathlib import Path
from ht_bench.records.runs import locked

with locked([Path(sys.argv[1])]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Start another process that holds a folder's claim until it is killed."""
    with contextlib.ExitStack() as stack:

        def start(folder: Path) -> subprocess.Popen[str]:
            words = [sys.executable, "-c", HOLD, str(folder)]
            pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            process = stack.enter_context(subprocess.Popen(words, **pipes))
            stack.callback(process.kill)
            assert process.stdout is not None and process.stdout.readline() == "held\n"
            return process

        yield start


def test_a_crashed_runners_claim_is_free(hold: Any, file: Path, tmp_path: Path) -> None:
    """The stack of seed 1 waits, what can be trained is, and the crash of its holder frees it."""
    plan = plan_of(f"{file}:Traced", tmp_path / "runs", 1, 2, 3)
    holder = hold(plan.jobs[0].seed_folders[0])
    said: list[str] = []

    def announce(sentence: str) -> None:
        said.append(sentence)
        assert times_trained(file) == 1  # of the other stack
        holder.kill()

    done = run_plan(plan, 1, progress=False, announce=announce)
    assert len(said) == 1 and said[0].startswith("1 stack(s) are being trained by another runner")
    assert len(done.records) == 3 and times_trained(file) == 2


@pytest.mark.parametrize("progress", [True, False])
def test_who_waits_for_another_runner_says_so(
    progress: bool,
    hold: Any,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """On the terminal beside the bar, else in the log: `ht_bench.evaluate` is never mute."""
    holder = hold(plan_of(f"{file}:Traced", tmp_path / "runs", 1).jobs[0].seed_folders[0])
    sleep = time.sleep

    def kill_between_looks(seconds: float) -> None:
        return holder.kill() if seconds == BETWEEN_LOOKS else sleep(seconds)

    monkeypatch.setattr(time, "sleep", kill_between_looks)
    evaluate(f"{file}:Traced", tiny(), [1], out=tmp_path / "runs", progress=progress)
    said = capsys.readouterr().err if progress else caplog.text
    assert "1 stack(s) are being trained by another runner in this folder" in said
    assert bool(caplog.text) is not progress


def test_a_claim_is_seen_without_taking_it(hold: Any, tmp_path: Path) -> None:
    holder = hold(tmp_path / "seed1")
    assert is_claimed([tmp_path / "seed0", tmp_path / "seed1"])
    holder.kill()
    holder.wait()
    assert not is_claimed([tmp_path / "seed0", tmp_path / "seed1"])
    with locked([tmp_path / "seed1"]):
        pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_ends_has_its_stack_trained_on(
    number: int, file: Path, tmp_path: Path
) -> None:
    """In the same call, with the bits of one that nothing happened to, and its steps told once."""
    request = (f"{file}:Ending", tmp_path / "runs", 1, 2, 3)
    said: list[str] = []
    done = run_plan(plan_of(*request, number=number), 2, progress=False, announce=said.append)
    assert not done.failures and len(done.records) == 3
    assert len(said) == 1 and "'Ending' on tiny" in said[0] and "trained on" in said[0]
    whole = run_plan(plan_of(f"{file}:Ending", None, 1, 2, 3, number=number), 1, progress=False)
    assert by_seed(done.records) == by_seed(whole.records)


def test_without_retries_it_fails(file: Path, tmp_path: Path) -> None:
    request: Any = (f"{file}:Ending", tmp_path / "runs", 1, 2, 3)
    done: Finished = run_plan(plan_of(*request), ExecutorRequest(workers=2, retries=0), False)
    [sentence] = done.failures
    assert "'Ending' on tiny" in sentence and "died" in sentence
    assert len(done.records) in (1, 2)
    assert len(run_plan(plan_of(*request), 2, progress=False).records) == 3


RUN = """
import sys
from pathlib import Path
from ht_bench.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_sigterm_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    task = tmp_path / "long.toml"
    task.write_text(
        'name = "long"\nfamily = "warm-start"\n[data]\nname = "digits"\ntrain = 60\n'
        '[net]\nname = "mlp"\nhidden = [8]\n[optimizer]\nlr = 0.01\n[training]\nstack = 1\n'
        "[[phases]]\nnew = 1.0\nupdates = 1000000\n",
        encoding="utf-8",
    )
    words = ["run", "--task", str(task), "--method", "none", "--seeds", "1", "--out"]
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, *words, str(tmp_path / "runs")],
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(tmp_path.glob("runs/long/*/seed1/.lock")):
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGTERM)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "Stopped with 0 of 1 runs finished; the same command goes on" in error
    assert list(tmp_path.glob("runs/long/*/stack-1.pt"))
