"""Seeds as text, keys of draws, the catalogue of tasks and suites."""

from pathlib import Path
from typing import Any

import pytest

from ht_bench import registry
from ht_bench.errors import UsageError
from ht_bench.streams import suite
from ht_bench.streams.catalog import get_task, task_names
from ht_bench.streams.randomness import generator, key, torch_seed
from ht_bench.streams.seeds import format_seeds, parse_seeds


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("3", (3,)), ("100-103,7", (100, 101, 102, 103, 7)), ("-5", (-5,)), ("-3--1", (-3, -2, -1)),
     (4, (4,)), (range(2), (0, 1)), ([5, 5, 6], (5, 6))],
)  # fmt: skip
def test_seeds_are_read(text: Any, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(text) == seeds
    assert parse_seeds(format_seeds(seeds)) == seeds


@pytest.mark.parametrize("text", ["", "a", "1-", "5-3", "1,,2", "1.5", None, []])
def test_what_is_no_seed_is_refused(text: Any) -> None:
    with pytest.raises(UsageError):
        parse_seeds(text)


def test_every_part_of_a_key_counts() -> None:
    keys = {
        key("a", 1, "split"),
        key("b", 1, "split"),
        key("a", 2, "split"),
        key("a", 1, "arrival"),
        key("a", 1, "split", 1),
        key("a", 1, "split", 0, 1),
    }
    assert len(keys) == 6
    assert 0 <= torch_seed("a", -1, "method") < 2**63
    first, second = (generator("a", 1, "split").integers(2**62) for _ in range(2))
    assert first == second


def test_draws_are_the_same_on_every_machine() -> None:
    found = key("warm-start-digits-v1", 100, "batch order", 1, 2)
    assert found == 214134384633877088851059897236638261277


def test_a_task_by_path_by_itself_and_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = get_task("warm-start-digits-v1")
    assert get_task(task) is task
    monkeypatch.setitem(registry.tasks._entries, "mine-v1", lambda: task)
    assert get_task("mine-v1") is task
    assert "mine-v1" in task_names()
    with pytest.raises(UsageError, match="Did you mean 'permuted-digits-v1'"):
        get_task("permutd-digits-v1")


def test_unknown_and_broken_suites_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="Did you mean 'suite-core-v1'"):
        suite.get_suite("suite-cor-v1")
    monkeypatch.setattr(suite, "folder", lambda name: tmp_path)
    (tmp_path / "suite-a-v1.toml").write_text('name = "suite-a-v1"\ntasks = 3\n', encoding="utf-8")
    with pytest.raises(UsageError, match=r"suite-a-v1\.toml: 'tasks' is 3"):
        suite.get_suite("suite-a-v1")
