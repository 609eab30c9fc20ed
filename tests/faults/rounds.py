"""One round: a fresh folder, faults at random instants, the same command until it ends, a verdict.

Everything is drawn from the seed and the round's number; only the machine's own timing is not.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.faults.check import Verdict, judge
from tests.faults.faults import FAULTS, KINDS, SEVERAL, UNHARMED
from tests.faults.scene import Scene
from tests.faults.work import WORKLOADS, Reference

TRIES = 4
"""How often a round is played whose faults come too late."""


@dataclass(frozen=True)
class Report:
    """What came of a round. struck: faults that hit. folder: kept where something is wrong."""

    number: int
    kind: str
    jobs: int
    workload: str
    struck: int
    verdict: Verdict
    folder: Path


def play(
    number: int,
    seed: int,
    kind: str,
    references: dict[str, Reference],
    files: Path,
    folder: Path,
    can_mount: bool,
) -> Report:
    """Play round `number`, again with other draws while no fault hits; kind "" takes them in turn.

    A fault misses where the commands end before its instant comes.
    """
    kind = kind or KINDS[number % len(KINDS)]
    for again in range(TRIES):
        draw = random.Random(f"{seed} {number} {again}")
        report = _play(number, draw, kind, references, files, folder, can_mount)
        if report.struck or report.verdict.faults():
            break
    return report


def _play(
    number: int,
    draw: random.Random,
    kind: str,
    references: dict[str, Reference],
    files: Path,
    folder: Path,
    can_mount: bool,
) -> Report:
    workload = draw.choices(sorted(references), (1, 2)[-len(references) :])[0]
    reference = references[workload]
    jobs = 2 if kind == "worker-killed" else min(draw.choice((1, 1, 2)), len(reference.seconds))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    scene = Scene(folder, files, WORKLOADS[workload], reference, draw, jobs, can_mount)
    scene.mount(limit=kind == "disk-full" and draw.random() < 0.3)
    assert scene.disk is not None
    try:
        for _ in range(draw.randint(1, 3 if kind == SEVERAL else 2)):
            scene.attempt(list(_faults(scene, kind)))
            if kind in UNHARMED:
                scene.complaints += [
                    f"a command that was not killed ends with exit code {driver.exit_code}"
                    for driver in scene.drivers
                    if driver.exit_code and driver not in scene.killed
                ]
        _finish(scene, kind)
        verdict = judge(scene)
        if verdict.faults():
            _keep_what_tells(scene)
    finally:
        scene.disk.close()
    if not verdict.faults():
        shutil.rmtree(folder, ignore_errors=True)
    return Report(number, kind, jobs, workload, scene.struck, verdict, folder)


def _faults(scene: Scene, kind: str) -> Iterator[Iterator[None]]:
    if kind != SEVERAL:
        yield FAULTS[kind](scene)
        return
    names = scene.draw.sample(sorted(FAULTS), scene.draw.randint(1, 2))
    yield from (FAULTS[name](scene) for name in names)


def _finish(scene: Scene, kind: str) -> None:
    """Run the command undisturbed; look at the folder as TensorBoard's users do."""
    code = scene.attempt()
    if code:
        scene.complaints.append(f"the last, undisturbed attempt ends with exit code {code}")
    if kind == "events-damaged":
        if scene.attempt(words=["tensorboard", str(scene.out), "--no-serve"]):
            scene.complaints.append("`ht-bench tensorboard` fails")
        shutil.rmtree(scene.out / "aggregate", ignore_errors=True)


def _keep_what_tells(scene: Scene) -> None:
    """Copy what lies in the folder out of the file system that is about to go."""
    (scene.folder / "said").write_text(scene.said, encoding="utf-8")
    shutil.copytree(scene.out, scene.folder / "kept", dirs_exist_ok=True)
