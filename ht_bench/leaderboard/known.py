"""What a checker knows of a task without trusting the file: spec, data, curve grid, sizes."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from ht_bench.errors import UsageError
from ht_bench.streams import data as datasets
from ht_bench.streams.catalog import get_task, task_names
from ht_bench.streams.dataset import Dataset
from ht_bench.streams.families import get_family
from ht_bench.streams.points import curve_grid
from ht_bench.streams.reinforcement import ReinforcementTask
from ht_bench.streams.stream import Stream
from ht_bench.streams.suite import known_suites
from ht_bench.streams.task import AnyTask, Task


@dataclass(frozen=True, eq=False)
class KnownTask:
    """A released task. data: None for environments, and for data that are not on this machine.

    data_sha256: the content that the task's data must have ("" for environments); None where
    neither the benchmark nor this machine knows it.
    """

    task: AnyTask
    classes: int
    data: Dataset | None
    data_sha256: str | None

    @property
    def is_control(self) -> bool:
        """Whether the task is one of environments."""
        return isinstance(self.task, ReinforcementTask)

    @property
    def random(self) -> float | None:
        """A uniform policy's return, for tasks of environments."""
        return self.task.reference.random if isinstance(self.task, ReinforcementTask) else None

    def retains(self, status: str) -> bool:
        """Whether a run that ended with `status` says what the final network keeps of each phase.

        As the loops do (`training`): where phases have test views, or environments, of their own.
        """
        return self.task.retains and (status == "finished" or not self.is_control)

    @functools.cached_property
    def grid(self) -> tuple[list[int], list[int]] | None:
        """`phase` and `step` of a curve's points; None where the data would have to be here."""
        budgets_known = not isinstance(self.task, Task) or all(
            phase.updates is not None for phase in self.task.phases
        )
        return curve_grid(self.task, self.data) if budgets_known or self.data else None

    def sizes(self, seed: int, key: str) -> list[int] | None:
        """Return, per phase, how many examples curve `key` is measured on; None if not known."""
        if self.data is None or not isinstance(self.task, Task):
            return None
        stream = Stream(self.task, self.data, seed)
        phases = range(len(self.task.phases))
        if key == "train/accuracy":
            return [len(stream.phase(index).indices) for index in phases]
        if not get_family(self.task.family).by_class:
            return [len(stream.evaluation)] * len(phases)
        return [len(stream.test(index).indices) for index in phases]


def find_known(name: str) -> KnownTask | str:
    """Return a released task by its name, or a sentence that says why there is none."""
    # `get_task` would also open a path: an untrusted name is looked up, never followed.
    if name not in task_names():
        return (
            "is no task of this benchmark; `ht-bench list tasks` shows them, and `ht-bench verify` "
            "and `ht-bench page` take a file's with --task"
        )
    task = get_task(name)
    if task.status == "draft":
        return "is a draft, which may still change; only released tasks are compared"
    return known_task(task)


def known_task(task: AnyTask) -> KnownTask:
    """Return what is known of a task; its data are loaded where they are on this machine."""
    if task.sha256 not in _MET:
        _MET[task.sha256] = _known(task)
    return _MET[task.sha256]


_MET: dict[str, KnownTask] = {}


def _known(task: AnyTask) -> KnownTask:
    if isinstance(task, ReinforcementTask):
        return KnownTask(task, 0, None, "")
    data = _load(task.data.name)
    if data is not None:
        return KnownTask(task, data.classes, data, data.sha256)
    return KnownTask(task, datasets.classes(task.data.name), None, _frozen_sha256(task))


@functools.lru_cache(maxsize=3)
def _load(name: str) -> Dataset | None:
    try:
        return datasets.load(name)
    except UsageError:
        return None


def _frozen_sha256(task: Task) -> str | None:
    for suite in known_suites().values():
        if task.name in suite.anchors:
            return suite.anchors[task.name].data_sha256
    return datasets.content_sha256(task.data.name)
