"""Seeds are added until a method stands surely above or below, and no further."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ht_bench.cli import main
from ht_bench.errors import UsageError
from ht_bench.running.decided import Stage, in_words, until_decided
from ht_bench.running.evaluate import run_plan
from ht_bench.running.plan import Request
from ht_bench.streams.task import Task, parse_task

METHODS = """\
import ht_bench

class Broken(ht_bench.Method):
    def after_step(self):
        for parameter in self.module.parameters():
            parameter.zero_()

class Same(ht_bench.Method):
    pass
"""


def tiny(name: str = "tiny", seeds: str = "100-107") -> Task:
    table = {
        "name": name,
        "family": "warm-start",
        "seeds": seeds,
        "data": {"name": "digits", "train": 200},
        "net": {"name": "mlp", "hidden": [32]},
        "optimizer": {"lr": 1e-2},
        "training": {"batch": 32, "points": 2, "stack": 2},
        "phases": [{"new": 0.5, "wrong": w, "updates": 30} for w in (0.5, 0.0)],
    }
    return parse_task(table, f"{name}.toml")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(METHODS, encoding="utf-8")
    return path


def stages(out: Path, *methods: str, tasks: tuple[Task, ...] = (tiny(),)) -> list[Stage]:
    request = Request(tasks, methods, out=out, tensorboard=False)
    return list(until_decided(request, lambda plan: run_plan(plan, 1, progress=False)))


def results(out: Path, method: str) -> int:
    return len(list(out.glob(f"*/{method}-*/seed*/result.json")))


def test_it_stops_when_the_decision_stands_and_goes_on_while_it_is_open(
    file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    broken = stages(out, f"{file}:Broken")
    assert [stage.decisions[0].seen for stage in broken] == [2, 4, 6]
    [decision] = broken[-1].decisions
    assert decision.stands and {v.standing for v in decision.against} == {"below"}
    assert {v.other for v in decision.against} == {"none", "full-reset"}
    assert results(out, "Broken") == results(out, "none") == 6

    same = stages(out, f"{file}:Same")
    assert [stage.decisions[0].seen for stage in same] == [2, 4, 6, 8]
    by_other = {v.other: v for v in same[-1].decisions[0].against}
    assert by_other["none"].standing == "open" and by_other["none"].p_value == 1
    assert not same[-1].decisions[0].stands
    assert results(out, "Same") == results(out, "full-reset") == 8

    words = in_words(decision)
    assert words.startswith("Broken after 6 of 8 seeds: surely below none (p = ")
    again = stages(out, f"{file}:Broken")  # nothing is trained, and Broken's pairs are more now
    assert again[-1].decisions[0].stands and again[0].done.records


def test_several_tasks_are_decided_by_their_common_score(file: Path, tmp_path: Path) -> None:
    tasks = (tiny("one"), tiny("two", "200-207"))
    found = stages(tmp_path / "runs", f"{file}:Broken", tasks=tasks)
    assert found[-1].decisions[0].seen <= 8
    assert results(tmp_path / "runs", "Broken") == 2 * found[-1].decisions[0].seen


def test_what_cannot_be_decided_is_refused_in_a_sentence(tmp_path: Path) -> None:
    def refused(**changes: object) -> str:
        settings = {"tasks": (tiny(),), "methods": ("ema",), "out": tmp_path} | changes
        with pytest.raises(UsageError) as caught:
            list(until_decided(Request(**settings), lambda plan: run_plan(plan, 1)))  # type: ignore[arg-type]
        return str(caught.value)

    assert "name one with --out" in refused(out=None)
    assert "leave --seeds out" in refused(seeds=(1, 2))
    assert "test split" in refused(split="validation")
    assert "two 4" in refused(tasks=(tiny(), tiny("two", "100-103")))


def test_the_command_says_each_look_and_ends(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = tmp_path / "tiny.toml"
    task.write_text(
        'name = "tiny"\nfamily = "warm-start"\nseeds = "100-107"\n'
        'data = {name = "digits", train = 200}\nnet = {name = "mlp", hidden = [32]}\n'
        "optimizer = {lr = 1e-2}\ntraining = {batch = 32, points = 2, stack = 4}\n"
        "phases = [{new = 0.5, wrong = 0.5, updates = 30}, {new = 0.5, updates = 30}]\n",
        encoding="utf-8",
    )
    words = ["run", "--task", str(task), "--method", f"{file}:Broken", "--until-decided"]
    words += ["--out", str(tmp_path / "runs"), "--jobs", "1"]
    assert main(words) == 0
    printed = capsys.readouterr()
    assert "Broken after 4 of 8 seeds: " in printed.out
    assert "Broken after 8 of 8 seeds: surely below none" in printed.out
    assert printed.out.rstrip().endswith("Decided.")
    assert main([*words, "--dry-run"]) == 2
    assert "leave --dry-run out" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "runs")
    assert main([*words, "--seeds", "1"]) == 2
