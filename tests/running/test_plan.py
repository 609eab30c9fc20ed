"""A plan: what is left to train, in which stacks, and what is finished already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ht_bench
from ht_bench.errors import Unsuitable, UsageError
from ht_bench.running.evaluate import describe, run_plan
from ht_bench.running.plan import Request, make_plan
from ht_bench.streams.task import Task, load_task

Write = Callable[..., Path]


@pytest.fixture
def task(write_task: Write) -> Task:
    """Return the tiny task in stacks of two seeds."""
    return load_task(write_task(stack=("stack = 4", "stack = 2")))


@pytest.mark.parametrize(
    ("begun", "finished", "seeds", "planned"),
    [
        ([], [], (0, 1, 2), [(0, 1), (2,)]),
        ([], [1], (0, 1, 2), [(0, 2)]),
        (["0-1"], [], (0,), [(0, 1)]),
        (["1-2"], [], (0, 1, 2, 3), [(1, 2), (0, 3)]),
        (["0-1", "1-2"], [], (0, 1, 2), [(0, 1), (2,)]),
        (["0-1"], [0], (0, 1), [(0, 1)]),
        (["0-2"], [], (0, 1, 2), [(0, 1), (2,)]),
        (["notes", "-3--2"], [], (-3, 0), [(-3, -2), (0,)]),
    ],
)
def test_a_begun_stack_keeps_its_seeds_and_no_seed_is_trained_twice(
    begun: list[str], finished: list[int], seeds: Any, planned: Any, task: Task, tmp_path: Path
) -> None:
    request = Request((task,), ("none",), seeds, out=tmp_path)
    if finished:
        ht_bench.evaluate("none", task, finished, out=tmp_path, progress=False)
    folder = make_plan(request).jobs[0].folder
    assert folder is not None
    folder.mkdir(parents=True, exist_ok=True)
    for name in begun:
        (folder / f"stack-{name}.pt").write_bytes(b"")
    plan = make_plan(request)
    assert [job.seeds for job in plan.jobs] == planned
    trained = {seed for stack in planned for seed in stack}
    skipped = {int(path.parent.name.removeprefix("seed")) for path in plan.finished}
    assert not skipped & trained and skipped | trained >= set(seeds)
    assert plan.requested == len(seeds) and plan.steps == 6 * len(planned)


def test_a_finished_stacks_checkpoint_is_deleted(task: Task, tmp_path: Path) -> None:
    """A kill between the last result and the checkpoint's deletion leaves it."""
    request = Request((task,), ("none",), (0, 1), out=tmp_path)
    run_plan(make_plan(request), 1, progress=False)
    [group] = tmp_path.glob("tiny-v1/none-*")
    for name in ("0-1", "1-2"):
        (group / f"stack-{name}.pt").write_bytes(b"")
    assert not make_plan(request).jobs
    assert [file.name for file in group.glob("*.pt")] == ["stack-1-2.pt"]


def test_a_finished_mate_of_a_begun_stack_is_told_once(task: Task, tmp_path: Path) -> None:
    request = Request((task,), ("none",), (0, 1), out=tmp_path)
    run_plan(make_plan(request), 1, progress=False)
    [begun] = tmp_path.glob("tiny-v1/none-*")
    (begun / "seed1" / "result.json").unlink()
    (begun / "stack-0-1.pt").write_bytes(b"")
    with pytest.warns(UserWarning, match="unreadable; this run starts anew"):
        done = run_plan(make_plan(request), 1, progress=False)
    assert [record["seed"] for record in done.records] == [0, 1]


def test_everything_that_decides_a_number_makes_another_run(task: Task, tmp_path: Path) -> None:
    request = Request((task,), ("l2",), (0, 1), out=tmp_path)
    run_plan(make_plan(request), 1, progress=False)
    assert make_plan(request).jobs == ()
    others = [
        replace(request, overrides={"strength": 0.3}),
        replace(request, split="validation"),
        replace(request, tasks=(replace(task, tolerance=0.5),)),
        replace(request, methods=("l2-init",)),
        replace(request, seeds=(1, 2)),
    ]
    assert [len(make_plan(other).jobs) for other in others] == [1] * 5
    renamed = replace(task, title="another title")
    assert make_plan(replace(request, tasks=(renamed,))).jobs == ()


def test_a_plan_says_what_it_will_do(task: Task) -> None:
    timed = replace(task, minutes_per_stack=3.0)
    plan = make_plan(Request((timed,), ("none", "l2")))
    assert describe(plan, 2) == {"runs": 8, "finished": 0, "stacks": 4, "minutes": 6.0}
    assert plan.minutes(1) == 12 and plan.minutes(99) == 3
    assert make_plan(Request((task,), ("none",))).minutes(1) is None


def test_methods_of_one_name_in_one_request_are_refused(task: Task, tmp_path: Path) -> None:
    """They would share a folder; the same class twice is one method."""
    text = "import ht_bench\nclass Mine(ht_bench.Method):\n    factor = {}\n"
    paths = [tmp_path / f"{name}.py" for name in ("one", "other")]
    for path in paths:
        path.write_text(text.format(path.stem == "one"), encoding="utf-8")
    named = [f"{path}:Mine" for path in paths]
    out = tmp_path / "runs"
    with pytest.raises(UsageError, match=r"one.py:Mine and .*other.py:Mine are both called 'Mine'"):
        make_plan(Request((task,), tuple(named), (0, 1), out=out))
    twice = Request((task,), (named[0], f"{tmp_path}/./one.py:Mine"), (0, 1), out=out)
    plan = make_plan(twice)
    assert plan.requested == 2 and len(plan.jobs) == 1


def test_what_a_network_cannot_have_is_refused_before_training_and_left_out_of_all(
    task: Task,
) -> None:
    """A network without hidden units has none to recycle, and no second layer to inject."""
    bare = replace(task, net={**task.net, "hidden": []})
    methods = ("none", "redo", "plasticity-injection", "l2")
    with pytest.raises(Unsuitable, match="method 'redo': StackedMLP has no hidden units"):
        make_plan(Request((bare,), methods, (0,)))
    plan = make_plan(Request((bare,), methods, (0,), skip_unsuitable=True))
    assert [job.method.name for job in plan.jobs] == ["none", "l2"]
    assert len([note for note in plan.notes if note.startswith("Left out on")]) == 2


@pytest.mark.parametrize(
    ("methods", "settings", "sentence"),
    [
        (
            ("ema", "none"),
            {"decay": 0.5},
            "Method 'none' has no hyperparameter 'decay', nor any other. --set is for every "
            "method that is named: run the methods that have 'decay' in a command of their own",
        ),
        (("l2", "ema"), {"decay": 0.5}, "has no hyperparameter 'decay'. It has: strength. .*own"),
        (("none",), {"decay": 0.5}, "has no hyperparameter 'decay', nor any other. Leave the"),
        (("ema",), {"decya": 0.5}, r"Did you mean 'decay'\? It has: [a-z, _]*\.$"),
        (("redo+ema", "l2"), {"decay": 0.5}, "'l2' has no .* run the methods that have 'decay'"),
        (("redo+ema", "none"), {"decay": 2}, r"^((?!--set is for).)*$"),
    ],
)
def test_a_setting_that_one_of_the_methods_has_not(
    methods: tuple[str, ...], settings: dict[str, Any], sentence: str, task: Task
) -> None:
    """What to do is said; a value that a method refuses is another matter."""
    with pytest.raises(UsageError, match=sentence):
        make_plan(Request((task,), methods, (0,), overrides=settings))
