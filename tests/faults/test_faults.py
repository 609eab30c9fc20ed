"""Rounds of fault injection lose nothing, and their judge sees what is lost, doubled or different.

All kinds 20 times over: `make faults`.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.check import judge, trained_twice
from tests.faults.faults import KINDS
from tests.faults.rounds import play
from tests.faults.run import import_what_rounds_use, main
from tests.faults.scene import Scene
from tests.faults.work import WORKLOADS, Reference, Workload, make_reference, write_tasks

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="looks for processes in /proc"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("faults")
    write_tasks(made / "tasks")
    import_what_rounds_use()
    return made


@pytest.fixture(scope="module")
def reference(folder: Path) -> Reference:
    return make_reference(WORKLOADS["data"], folder / "undisturbed", folder / "tasks", (1,))


@pytest.mark.parametrize("kind", ["driver-killed", "disk-full"])
def test_a_round_loses_nothing(kind: str, folder: Path, reference: Reference) -> None:
    place = folder / kind
    report = play(0, 0, kind, {"data": reference}, folder / "tasks", place, can_mount=False)
    assert not report.verdict.faults(), (place / "said").read_text(encoding="utf-8")
    assert not place.exists()


@pytest.mark.evidence
def test_every_kind_of_round_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--rounds", "12", "--jobs", "2"])
    said = capsys.readouterr().out
    assert code == 0, said
    assert "| all | 12 | " in said and all(f"| {kind} | 1 | " in said for kind in KINDS[2:])


# ---- the judge ----


@pytest.fixture
def scene(folder: Path, reference: Reference, tmp_path: Path) -> Scene:
    """Return the scene of a round in which nothing happened."""
    shutil.copytree(folder / "undisturbed" / "1", tmp_path / "runs")
    made = Scene(tmp_path, folder, Workload((), "", ""), reference, random.Random(0), 1)
    made.log.touch()
    return made


def some(scene: Scene, pattern: str) -> Path:
    return sorted(scene.out.rglob(pattern))[0]


def lose(scene: Scene) -> None:
    some(scene, "result.json").unlink()


def cut_short(scene: Scene) -> None:
    file = some(scene, "result.json")
    file.write_bytes(file.read_bytes()[:-9])


def change(scene: Scene) -> None:
    file = some(scene, "result.json")
    record = json.loads(file.read_text(encoding="utf-8"))
    losses = record["curve"]["test/loss"]
    losses[1] = math.nextafter(losses[1], 9.0)
    file.write_text(json.dumps(record), encoding="utf-8")


def leave_a_checkpoint(scene: Scene) -> None:
    (some(scene, "seed100").parent / "stack-100-101.pt.old").touch()


def leave_half_a_result(scene: Scene) -> None:
    (some(scene, "seed100") / ".result.json.abc").touch()


def lose_events(scene: Scene) -> None:
    file = some(scene, "events.out.tfevents.*")
    file.write_bytes(file.read_bytes()[:400])


def double_events(scene: Scene) -> None:
    file = some(scene, "events.out.tfevents.*")
    file.write_bytes(file.read_bytes() * 2)


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (lose, "lost"),
        (cut_short, "lost"),
        (change, "different"),
        (leave_a_checkpoint, "other"),
        (leave_half_a_result, "other"),
        (lose_events, "other"),
        (double_events, "other"),
    ],
)
def test_the_judge_sees(plant: Callable[[Scene], None], found: str, scene: Scene) -> None:
    assert not judge(scene).faults()
    plant(scene)
    assert [kind for kind, faults in vars(judge(scene)).items() if faults] == [found]


BEGIN, END = "begin", "result"


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        ([(BEGIN, 1, 0, False, "a"), (END, 1, 5, True, "a")], 0),
        ([(BEGIN, 1, 0, False, "a"), (BEGIN, 2, 4, False, "a"), (END, 2, 5, True, "a")], 0),
        ([(BEGIN, 1, 0, False, "a"), (BEGIN, 2, 4, False, "a"), (END, 1, 5, True, "a")], 1),
        ([(BEGIN, 1, 0, False, "a"), (END, 1, 5, True, "a"), (BEGIN, 1, 9, True, "a")], 1),
        ([(BEGIN, 1, 0, False, "b"), (BEGIN, 1, 1, True, "a"), (END, 1, 5, True, "a")], 0),
    ],
    ids=["once", "a killed one", "two at once", "again", "beside an unfinished mate"],
)
def test_training_twice_is_seen(
    lines: list[tuple[str, int, int, bool, str]], count: int, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert len(list(trained_twice(log))) == count
