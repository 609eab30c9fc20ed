"""What is left of a round: nothing lost, nothing done twice, every bit as undisturbed."""

from __future__ import annotations

import contextlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ht_bench.errors import UsageError
from ht_bench.files import fcntl
from ht_bench.records.record import read_record, without_cost
from ht_bench.views.live import COORDINATES, EVENTS
from tests.faults.scene import Scene

_OURS = re.compile(
    r"[\w-]+/task\.json|[\w-]+/[\w-]+/seed\d+/(result\.json|\.lock|events\.out\.tfevents\.[^/]+)"
)


@dataclass
class Verdict:
    """Sentences about results that are lost, were trained twice, or differ; and about the rest."""

    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    def faults(self) -> list[str]:
        """Return all sentences, each with what it is about."""
        return [f"{kind}: {sentence}" for kind, found in vars(self).items() for sentence in found]


def judge(scene: Scene) -> Verdict:
    """Compare what lies in the round's folder with the undisturbed run."""
    verdict = Verdict(other=list(scene.complaints))
    for name, wanted in scene.reference.results.items():
        file = scene.out / name
        try:
            record = without_cost(read_record(file))
        except UsageError as error:
            verdict.lost.append(str(error))
            continue
        if record != wanted:
            keys = [key for key in wanted if record.get(key) != wanted[key]]
            verdict.different.append(f"{name} in {', '.join(keys)}")
        damaged = any(path.parent == file.parent for path in scene.damaged)
        verdict.other += _events(file.parent, record, damaged)
    verdict.duplicated += trained_twice(scene.log)
    verdict.other += _left_over(scene.out, set(scene.reference.results))
    return verdict


# ---- who trained what ----


def trained_twice(log: Path) -> Iterator[str]:
    """Yield a sentence for each seed that was trained though finished, or by two at once."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    lines.sort(key=lambda line: line[2])
    by_process, by_seed = defaultdict(list), defaultdict(list)
    for what, process, _, had_result, folder in lines:
        by_process[process].append((what, had_result, folder))
        by_seed[folder].append((what, process))
    for own in by_process.values():
        for stack in _stacks(own):
            if all(had_result for _, had_result, _ in stack):  # with a mate without, it goes on
                yield f"{stack[0][2]} was finished and trained again"
    for folder, events in by_seed.items():
        if _is_shared(events):
            yield f"{folder} was trained by two processes at once"


def _stacks(lines: list[tuple[str, bool, str]]) -> Iterator[list[tuple[str, bool, str]]]:
    """Cut what one process began into stacks: seeds of one group, begun one after the other."""
    stack: list[tuple[str, bool, str]] = []
    for line in lines:
        what, _, folder = line
        is_next = (
            what == "begin"
            and all(folder != other for _, _, other in stack)
            and all(Path(folder).parent == Path(other).parent for _, _, other in stack)
        )
        if stack and not is_next:
            yield stack
            stack = []
        if what == "begin":
            stack.append(line)
    if stack:
        yield stack


def _is_shared(events: list[tuple[str, int]]) -> bool:
    """Whether another process begins between a process's last beginning and its result."""
    for index, (what, process) in enumerate(events):
        if what != "result":
            continue
        starts = [i for i, event in enumerate(events[:index]) if event == ("begin", process)]
        if starts and any(what == "begin" for what, _ in events[starts[-1] + 1 : index]):
            return True
    return False


# ---- event files ----


def _events(folder: Path, record: Mapping[str, Any], damaged: bool) -> Iterator[str]:
    """Yield what TensorBoard shows otherwise than the record; of a damaged file only a part."""
    found = _scalars(folder)
    for table in ("curve", "diagnostics"):
        columns = record[table]
        for key in columns.keys() - set(COORDINATES):
            points = zip(columns["step"], columns[key], strict=True)
            wanted = [(step, value) for step, value in points if value is not None]
            series = found.get(key, [])
            if damaged:
                wanted = wanted[: len(series)]
            if [step for step, _ in series] != [step for step, _ in wanted] or any(
                abs(one - other) > 1e-6 * abs(other)
                for (_, one), (_, other) in zip(series, wanted, strict=True)
            ):
                yield f"{folder}: TensorBoard shows {len(series)} of {len(wanted)} points of {key}"


def _scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


# ---- what must not be left ----


def _left_over(out: Path, requested: set[str]) -> Iterator[str]:
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.is_file() and not _OURS.fullmatch(name):
            yield f"{name} is left over"
        if path.name == "result.json" and name not in requested:
            yield f"{name} was not asked for"
        if path.name == ".lock" and _is_held(path):
            yield f"{name} is held"
        if path.name == "result.json" and len(list(path.parent.glob(EVENTS))) > 2:
            yield f"{path.parent.relative_to(out)} has the event files of several runs"


def _is_held(lock: Path) -> bool:
    if fcntl is None:
        return False
    with lock.open("rb") as file, contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    return True
