"""When a checkpoint is written: where it pays, by what the last one took, on a clock of its own."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import ht_bench
from ht_bench.training import run
from ht_bench.training.checkpoint import CheckpointPlan
from ht_bench.training.history import Interrupted, Observer
from ht_bench.training.run import PAYS, Run


class Clock:
    """Seconds that pass when they are told to."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Steps(Run):
    """Training of which every step takes `step_seconds`."""

    def __init__(self, planned: Sequence[int], clock: Clock, step_seconds: float) -> None:
        super().__init__((100,), planned, None)
        self.clock, self.step_seconds = clock, step_seconds

    def train_phase(self, index: int) -> None:
        while self.position.step < self.planned[index]:
            self.clock.now += self.step_seconds
            self.position.step += 1
            self.pause_if_due()

    def tensor_bytes(self) -> int:
        return 0

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(run, "time", made)
    return made


class Saved:
    """Trains a plan, saving in `cost` seconds; times[k]: when checkpoint k was begun."""

    def __init__(
        self, clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cost: float
    ) -> None:
        self.times: list[float] = []
        self.positions: list[tuple[int, int]] = []
        self.cost, self.clock = cost, clock
        self.file = tmp_path / "stack-100.pt"
        monkeypatch.setattr(run.checkpoint, "save", self.save)

    def save(self, path: Path, fingerprint: str, state: dict[str, Any]) -> None:
        self.times.append(self.clock.now)
        self.positions.append((state["position"]["phase"], state["position"]["step"]))
        self.clock.now += self.cost

    def train(
        self,
        planned: Sequence[int],
        step_seconds: float,
        seconds: float = 120.0,
        observer: Observer | None = None,
    ) -> float:
        """Return the seconds that training took."""
        steps = Steps(planned, self.clock, step_seconds)
        steps.train(CheckpointPlan(self.file, "", seconds), observer)
        return steps.seconds


@pytest.fixture
def saved(clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Saved:
    return Saved(clock, monkeypatch, tmp_path, cost=0.05)


def gaps(saved: Saved) -> list[float]:
    return [later - earlier for earlier, later in pairwise(saved.times)]


def test_a_short_run_has_none(saved: Saved) -> None:
    saved.train([30] * 5, 0.01)
    assert saved.times == []


@pytest.mark.parametrize("cost", [0.01, 0.2, 7.0])
def test_short_phases_pay_a_fiftieth_at_most(saved: Saved, cost: float) -> None:
    saved.cost = cost
    taken = saved.train([100] * 300, 0.01)
    assert all(step == 0 for _, step in saved.positions[1:])  # at boundaries alone
    assert 1 <= len(saved.times) <= 1 + taken / PAYS / cost
    assert not gaps(saved) or min(gaps(saved)) >= PAYS * cost


def test_long_phases_are_saved_at_every_boundary_and_as_often_as_asked(saved: Saved) -> None:
    saved.train([1000, 1000, 1000], 1.0, seconds=120.0)
    assert {(1, 0), (2, 0), (3, 0)} < set(saved.positions)
    assert max(gaps(saved)) <= 122.0


def test_saving_that_takes_long_is_done_less_often(saved: Saved) -> None:
    saved.cost = 30.0
    taken = saved.train([20_000], 1.0, seconds=120.0)
    assert saved.times[0] == 1121.0  # nothing is known of it before
    assert taken / (PAYS + 2) / 30.0 - 1 < len(saved.times) < 2 + taken / PAYS / 30.0
    assert min(gaps(saved)) >= PAYS * 30.0


def test_a_stop_saves_at_once(saved: Saved) -> None:
    saved.cost = 30.0
    steps = iter(range(100))
    with pytest.raises(Interrupted):
        saved.train([20_000], 1.0, observer=Observer(stop=lambda: next(steps) == 5))
    assert saved.positions == [(0, 6)]


def test_saving_counts_as_no_training(saved: Saved) -> None:
    saved.cost = 7.0
    assert saved.train([100] * 10, 1.0) == pytest.approx(1000.0)
    assert saved.times


# ---- the clock on the wall ----


def test_nothing_is_decided_by_a_clock_that_may_be_moved() -> None:
    """TensorBoard's events carry the time of day; the rest measures with monotonic clocks.

    Besides, only the name of a folder of notes, and how old a stray file is, which may be wrong.
    """
    package = Path(ht_bench.__file__).parent
    readers = set()
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            named = node.attr if isinstance(node, ast.Attribute) else ""
            owner = node.value.id if named and isinstance(node.value, ast.Name) else ""  # type: ignore[attr-defined]
            if (owner, named) in CLOCKS:
                readers.add(str(file.relative_to(package)))
    ages = {"doctor/datasets.py", "doctor/leftovers.py", "running/on_ray_cluster.py"}
    assert readers == {"views/live.py", "running/on_slurm.py", *ages}


CLOCKS = {
    *(("time", name) for name in ("time", "time_ns", "localtime", "gmtime", "strftime")),
    *(("datetime", name) for name in ("now", "utcnow", "today")),
    *(("date", name) for name in ("today",)),
}
