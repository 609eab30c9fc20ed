"""Seeds until it is decided: stages of runs, and after each a look at the paired tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ht_bench.errors import UsageError
from ht_bench.methods.resolve import Named
from ht_bench.ranking.entries import Entry, TaskInfo, read_groups
from ht_bench.ranking.influence import Statistic
from ht_bench.ranking.pairs import FULL_RESET, NONE, PairedTask, measure, suite_score
from ht_bench.ranking.sequential import Verdict, looks, verdicts
from ht_bench.running.evaluate import Finished
from ht_bench.running.plan import Plan, Request, make_plan
from ht_bench.streams.reinforcement import ReinforcementTask
from ht_bench.streams.task import AnyTask

Train = Callable[[Plan], Finished]


@dataclass(frozen=True)
class Decision:
    """How one entry stands to the anchors and to the leader after `seen` of `seeds` seeds.

    leader: the best of the others; against: of it and the anchors, but the entry itself.
    """

    label: str
    seen: int
    seeds: int
    leader: str
    against: tuple[Verdict, ...]

    @property
    def stands(self) -> bool:
        """Whether nothing that was asked is open."""
        return all(verdict.standing != "open" for verdict in self.against)


@dataclass(frozen=True)
class Stage:
    """A look: the plan that led to it, what came of it, and the decisions, none if runs lack."""

    plan: Plan
    done: Finished
    decisions: tuple[Decision, ...]


def until_decided(request: Request, train: Train) -> Iterator[Stage]:
    """Train the methods and both anchors on more and more of the tasks' seeds; yield every look.

    Ends when every decision stands, when all evaluation seeds are there, or when a stage could not
    be finished. Looks are few and fixed by the tasks (`sequential.looks`), so the same command
    after an interruption comes to the same decisions. Raises UsageError where there is no folder,
    where seeds are named, and where tasks have different numbers of them.
    """
    seeds = _seeds(request)
    step = max(_stack(task) for task in request.tasks)
    planned = looks(len(seeds), step)
    methods = (*request.methods, *(m for m in (NONE, FULL_RESET) if m not in request.methods))
    tests = 0
    for seen in planned:
        asked = replace(request, methods=methods, seeds=None)
        plan = _plan(asked, seen)
        done = train(plan)
        if done.failures or done.left:
            yield Stage(plan, done, ())
            return
        asked_for, statistics = _standings(request, _plan(asked, seen))
        tests = tests or _tests(asked_for, statistics)  # of the first look, which has the most
        decisions = tuple(_decide(label, statistics, (seen, planned), tests) for label in asked_for)
        yield Stage(plan, done, decisions)
        if all(decision.stands for decision in decisions):
            return


def _seeds(request: Request) -> tuple[int, ...]:
    if request.out is None:
        raise UsageError("--until-decided needs a folder; name one with --out.")
    if request.seeds is not None:
        raise UsageError("--until-decided chooses the seeds; leave --seeds out.")
    if request.split != "test":
        raise UsageError("--until-decided decides on the test split; leave --split out.")
    numbers = {len(task.seeds): task.name for task in request.tasks}
    if len(numbers) > 1:
        words = " and ".join(f"{name} {count}" for count, name in sorted(numbers.items()))
        raise UsageError(f"Tasks have different numbers of seeds ({words}); decide them apart.")
    return request.tasks[0].seeds


def _stack(task: AnyTask) -> int:
    return 1 if isinstance(task, ReinforcementTask) else task.training.stack


def _plan(request: Request, seen: int) -> Plan:
    """Return one plan for every task's first `seen` seeds."""
    plans = [
        make_plan(replace(request, tasks=(task,), seeds=task.seeds[:seen]))
        for task in request.tasks
    ]
    return Plan(
        jobs=tuple(job for plan in plans for job in plan.jobs),
        finished=tuple(path for plan in plans for path in plan.finished),
        requested=sum(plan.requested for plan in plans),
        steps=sum(plan.steps for plan in plans),
        notes=tuple(dict.fromkeys(note for plan in plans for note in plan.notes)),
        remarks=tuple(dict.fromkeys(note for plan in plans for note in plan.remarks)),
    )


def _standings(request: Request, plan: Plan) -> tuple[list[str], dict[str, Statistic]]:
    """Return the labels asked for, and what entries with all of the plan's seeds are ranked by."""
    assert request.out is not None
    groups, infos = _entries(request.out, plan)
    seen = {task.name: {int(p.parent.name[4:]) for p in plan.finished} for task in request.tasks}
    pairs = [
        _paired(groups[name], infos[name], sorted(seeds & set(infos[name].seeds)))
        for name, seeds in seen.items()
    ]
    folders = {path.parent.parent.name for path in plan.finished}
    return _labels(request.methods, groups, folders), _statistics(pairs)


def _tests(labels: Sequence[str], statistics: Mapping[str, Statistic]) -> int:
    """Return the number of pairs of which one is asked for."""
    count = len(labels)
    return count * (len(statistics) - 1) - count * (count - 1) // 2


def _decide(
    label: str,
    statistics: Mapping[str, Statistic],
    look: tuple[int, Sequence[int]],
    tests: int,
) -> Decision:
    seen, planned = look
    others = {name: one for name, one in statistics.items() if name != label}
    leader = max(others, key=lambda name: others[name].value)
    shown = dict.fromkeys(name for name in (NONE, FULL_RESET, leader) if name in others)
    against = {name: others[name] for name in shown}
    found = verdicts(statistics[label], against, seen, planned, tests)
    return Decision(label, seen, planned[-1], leader, tuple(found))


def _entries(
    out: Path, plan: Plan
) -> tuple[Mapping[str, Mapping[str, Entry]], Mapping[str, TaskInfo]]:
    """Return the folder's entries by task and label, in the setting that the plan's runs have."""
    runs = read_groups(out, scored=True)
    paths = {path.parent.parent.name for path in plan.finished}
    for by_task in runs.groups.values():
        if any(_folder(e) in paths for entries in by_task.values() for e in entries.values()):
            return by_task, runs.infos
    raise UsageError(f"{out} does not hold the runs that were just made; run the command again.")


def _folder(entry: Entry) -> str:
    return f"{entry.method}-{entry.variant}"


def _labels(
    methods: Sequence[Named], groups: Mapping[str, Mapping[str, Entry]], folders: set[str]
) -> list[str]:
    """Return the labels of the entries that were asked for, the anchors only if they were."""
    anchors = {NONE, FULL_RESET} - {name for name in methods if isinstance(name, str)}
    found = {
        entry.label: None
        for entries in groups.values()
        for entry in entries.values()
        if _folder(entry) in folders and entry.method not in anchors
    }
    return list(found)


def _paired(entries: Mapping[str, Entry], info: TaskInfo, seeds: Sequence[int]) -> PairedTask:
    """Return the entries that have all of the seeds, on these alone."""
    measured = {
        label: measure([record for seed, record in entry.records.items() if seed in seeds], info)
        for label, entry in entries.items()
        if set(seeds) <= set(entry.records)
    }
    return PairedTask(replace(info, seeds=tuple(seeds)), measured)


def _statistics(pairs: Sequence[PairedTask]) -> dict[str, Statistic]:
    """Return what entries are ranked by: one task's metric, or the score over several."""
    labels = [label for label in pairs[0].entries if all(label in p.entries for p in pairs)]
    if len(pairs) == 1:
        return {label: pairs[0].metric(label) for label in labels}
    scores = {label: suite_score(pairs, label) for label in labels}
    return {label: score.statistic for label, score in scores.items() if score is not None}


STANDING = {"above": "surely above", "below": "surely below", "open": "not told apart from"}


def in_words(decision: Decision) -> str:
    """Return a line for the terminal."""
    parts = []
    for verdict in decision.against:
        role = verdict.other
        if role == decision.leader and role not in (NONE, FULL_RESET):
            role += ", the best of the others"
        asked = f"p = {verdict.p_value:.2g}, asked {verdict.level:.2g}"
        parts.append(f"{STANDING[verdict.standing]} {role} ({asked})")
    seen = f"{decision.label} after {decision.seen} of {decision.seeds} seeds"
    return f"{seen}: {'; '.join(parts)}."
