"""KEY=VALUE options: several at a time, given once or often, and none of them lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ht_bench.commands.settings import read_settings
from ht_bench.errors import UsageError

Call = Callable[..., Any]
Write = Callable[..., Path]


@pytest.mark.parametrize(
    "words",
    [
        ("--set", "decay=0.5", "reset_every=1 epochs", "fade=2"),
        ("--set", "decay=0.5", "--set", "reset_every=1 epochs", "--set", "fade=2"),
        ("--set", "decay=0.5", "reset_every=1 epochs", "--seeds", "3", "--set", "fade=2"),
    ],
)
def test_every_setting_arrives(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the option is given; `make_plan` is where they are to arrive."""
    from ht_bench.cli import main

    got: dict[str, Any] = {}

    def kept(request: Any) -> Any:
        got.update(request.overrides)
        raise UsageError("seen")

    monkeypatch.setattr("ht_bench.running.plan.make_plan", kept)
    main(["run", "--task", "warm-start-digits-v1", "--method", "none", *words])
    assert got == {"decay": 0.5, "reset_every": "1 epochs", "fade": 2}


def test_settings_of_slurm_arrive_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from ht_bench.cli import main

    got: dict[str, Any] = {}

    def kept(*given: Any, options: Any, **others: Any) -> Any:
        got.update(options)
        raise UsageError("seen")

    monkeypatch.setattr("ht_bench.running.executor.ExecutorRequest", kept)
    words = ("--executor", "slurm", "--slurm", "partition=gpu", "time=120", "--slurm", "mem_gb=16")
    main(["run", "--task", "warm-start-digits-v1", "--method", "none", *words])
    assert got == {"partition": "gpu", "time": 120, "mem_gb": 16}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["a=1", "b=2", "a=3"], "--set gives a twice, 1 and 3; leave one of them out."),
        (["a=1", "a=true"], "--set gives a twice, 1 and True"),
        (
            ["factor=0.3,decay=0.9"],
            "--set factor=0.3,decay=0.9: separate settings by spaces, not commas: "
            "--set factor=0.3 decay=0.9.",
        ),
        (["factor=0.3, decay=0.9"], "--set factor=0.3 decay=0.9."),
        (["factor"], "--set factor: write key=value, e.g. --set decay=0.99."),
    ],
)
def test_what_is_refused(words: list[str], sentence: str) -> None:
    for given in ([words], [[word] for word in words]):
        with pytest.raises(UsageError) as error:
            read_settings(given)
        assert sentence in str(error.value)


def test_what_stays_as_it_is() -> None:
    """The same value twice, lists, texts with commas, and a quoted text that looks like two."""
    given = [["a=1", "a=1"], ["b=[1,2]", "c=x,y", 'd="e=1,f=2"']]
    assert read_settings(given) == {"a": 1, "b": [1, 2], "c": "x,y", "d": "e=1,f=2"}
    assert read_settings([["setup=a=1,b=2"]], "--slurm") == {"setup": "a=1,b=2"}


def test_help_names_a_setting_once(call: Call) -> None:
    text = " ".join(call("run", "--help").out.split())
    assert "--set KEY=VALUE …" in text and "--slurm KEY=VALUE …" in text
    assert "KEY=VALUE … KEY" not in text and "(repeatable)" in text


def test_the_command_that_goes_on_has_them_all(call: Call, write_task: Write) -> None:
    words = ["run", "--task", str(write_task()), "--method", "hare-tortoise", "--jobs", "1"]
    words += ["--set", "decay=0.5", "--for", "0.001s", "--set", "reset_every=1 epochs"]
    answer = call(*words, "--out", write_task().parent / "runs")
    assert "--set decay=0.5 'reset_every=1 epochs'" in answer.out, answer
