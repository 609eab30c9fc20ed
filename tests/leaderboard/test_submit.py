"""`ht-bench submit`: what it writes, and everything that it refuses with the next step to take."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ht_bench.leaderboard.choosing import Choice, choose_runs
from ht_bench.leaderboard.reading import CURVES
from ht_bench.leaderboard.valid import read_submission
from ht_bench.methods.recipe import get_recipe
from ht_bench.ranking.entries import read_groups
from ht_bench.version import EPOCH

Content = dict[str, Any]
Call = Callable[..., Any]
TASK, METHOD = "quick-digits-v1", "early-stop"
ABOUT = ("--authors", "A. Author, B. Author", "--tuning", "by hand", "--tuning-runs", "3")


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """A copy of the 20 runs, to be damaged."""
    return Path(shutil.copytree(trained, tmp_path / "my runs"))


@pytest.fixture
def submit(call: Call, copied: Path, tmp_path: Path) -> Call:
    """Submit the copied runs to tmp_path/mine.json."""

    def run(*words: str | Path, method: str = METHOD, out: str = "mine.json") -> Any:
        return call("submit", copied, "--method", method, *ABOUT, "--out", tmp_path / out, *words)

    return run


def results(runs: Path) -> list[Path]:
    return sorted(runs.glob("*/*/seed*/result.json"))


def change(path: Path, **values: Any) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**record, **values}), encoding="utf-8")


def test_runs_of_an_earlier_epoch_are_no_submission(submit: Call, copied: Path) -> None:
    for path in results(copied):
        change(path, benchmark="0.1")
    answer = submit()
    assert answer.code == 2 and not (copied.parent / "mine.json").exists()
    assert "cannot be submitted: $.benchmark: is 0.1, this is" in answer.error
    change(results(copied)[0], benchmark=EPOCH)
    answer = submit()
    assert answer.code == 2 and "19 result(s) of ht-bench 0.1 are left out" in answer.error


def test_an_entry_of_an_earlier_epoch_is_not_written_over(submit: Call, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('{"benchmark": "0.1"}', encoding="utf-8")
    answer = submit("--replace", "--summary", "Stops early.")
    assert answer.code == 2 and path.read_text(encoding="utf-8") == '{"benchmark": "0.1"}'
    assert f"git mv {path} {tmp_path / '0.1' / 'mine.json'}" in answer.error
    path.write_text("{", encoding="utf-8")
    assert submit("--replace", "--summary", "Stops early.").code == 0
    assert submit("--replace", "--summary", "Stops early.").code == 0


def test_a_round_trip(submit: Call, call: Call, tmp_path: Path, records: Any) -> None:
    answer = submit("--link", "https://example.org", "--summary", "Stops early.")
    assert answer.code == 0
    path = tmp_path / "mine.json"
    assert f"Wrote {path}: 1 task(s), 20 runs, " in answer.out
    assert answer.out.endswith(f"Next: ht-bench verify {path}\n")
    assert call("verify", path).out == "mine: consistent\n"
    submission, _ = read_submission(path)
    assert submission is not None
    content = submission.content
    assert (content["name"], content["method"]["name"]) == ("mine", METHOD)
    assert content["authors"] == ["A. Author", "B. Author"]
    assert content["tuning"] == {"how": "by hand", "runs": 3}
    assert content["method"]["summary"] == "Stops early."
    assert content["method"]["needs_boundaries"] is True
    for seed, record in records.items():
        run = content["tasks"][TASK]["seeds"][str(seed)]
        assert run["curve"] == {"test/accuracy": record["curve"]["test/accuracy"]}
        assert (run["status"], run["steps"]) == (record["status"], record["steps"])
        copy = submission.record(TASK, seed)
        assert copy["curve"]["step"] == record["curve"]["step"]


def test_no_score_and_a_line_for_each_curve(submit: Call, tmp_path: Path) -> None:
    submit()
    text = (tmp_path / "mine.json").read_text(encoding="utf-8")
    assert "score" not in text and "nan" not in text.lower()
    assert len([line for line in text.splitlines() if CURVES[0] in line]) == 20
    assert max(map(len, text.splitlines())) < 500


def test_what_a_recipe_knows_need_not_be_said(call: Call, copied: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.json"
    words = ("--method", METHOD, "--authors", "A", "--out", out)
    assert call("submit", copied, *words).code == 0
    content = json.loads(out.read_text(encoding="utf-8"))
    assert content["tuning"]["runs"] == 0 and "no search" in content["tuning"]["how"]
    recipe = get_recipe(METHOD)
    assert recipe is not None
    how, runs = recipe.searched(("warm-start-digits-v1",))
    assert runs == 6 * 5 and "grid search" in how and "tuning seeds 0-4" in how
    assert content["method"]["summary"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Name the method"),
        (("--method", METHOD), "Name the file to write"),
        (("--method", METHOD, "--out", "x.txt"), "write x.json"),
        (("--method", METHOD, "--out", "x.json", "--name", "y"), "write --out y.json"),
        (("--method", METHOD, "--out", "x.json"), "Say who submits"),
        (("--method", "early-stopp", "--out", "x.json", "--authors", "A"), "Did you mean"),
        (("--method", "none", "--out", "x.json", "--authors", "A"), "no test-split runs of 'none'"),
        (("--method", "no.py:No", "--out", "x.json", "--authors", "A"), "There is no file"),
    ],
)
def test_what_must_be_said(
    words: tuple[str, ...],
    said: str,
    call: Call,
    copied: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(copied.parent)
    answer = call("submit", copied, *words)
    assert answer.code == 2 and said in answer.error
    assert not Path("x.json").exists()


def test_an_existing_file_is_kept(submit: Call, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text("precious", encoding="utf-8")
    answer = submit()
    assert answer.code == 2 and "add --replace" in answer.error
    assert (tmp_path / "mine.json").read_text(encoding="utf-8") == "precious"
    assert submit("--replace").code == 0


def test_the_command_for_missing_seeds_makes_them(submit: Call, call: Call, copied: Path) -> None:
    """The sentence's own command, run as it stands, completes the runs."""
    before = {path: path.read_bytes() for path in results(copied)}
    for path in results(copied)[3:5]:
        shutil.rmtree(path.parent)
    answer = submit()
    assert answer.code == 2
    assert f"'{METHOD}' lacks seeds 103-104 of {TASK}" in answer.error
    [command] = re.findall("`ht-bench (.*)`", answer.error)
    assert call(*shlex.split(command)).code == 0
    assert submit().code == 0
    curves = [json.loads(old)["curve"] for old in before.values()]
    assert [json.loads(path.read_text())["curve"] for path in results(copied)] == curves


@pytest.fixture
def other(trained: Path, tmp_path: Path, submit: Call) -> Callable[[str, dict[str, Any]], str]:
    """Rewrite the copied runs as those of other hyperparameters; returns the command named."""

    def command(named: str, changes: dict[str, Any], **values: Any) -> str:
        runs = tmp_path / "my runs"
        for path in results(runs):
            old = json.loads(path.read_text(encoding="utf-8"))["hyperparameters"]
            change(path, hyperparameters={**old, **changes}, **values)
        shutil.rmtree(results(runs)[0].parent)
        answer = submit(method=named)
        assert answer.code == 2
        [found] = re.findall("`ht-bench run (.*)`", answer.error)
        return str(found)

    return command


def test_the_command_repeats_settings(other: Any, tmp_path: Path) -> None:
    runs = shlex.quote(str(tmp_path / "my runs"))
    words = f"--task {TASK} --method {METHOD}"
    assert other(METHOD, {}) == f"{words} --device cpu --out {runs}"


def test_the_command_repeats_other_settings(other: Any, tmp_path: Path) -> None:
    command = shlex.split(other(METHOD, {"fraction": 0.05}, precision="bf16"))
    assert command[4:8] == ["--set", "fraction=0.05", "--precision", "bf16"]


def test_the_command_names_a_file_as_it_was_named(
    other: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (
        "from dataclasses import dataclass\nfrom ht_bench import Method\n"
        "@dataclass(eq=False)\nclass Mine(Method):\n    rate: float | None = 0.5\n"
        "    kind: str = 'slow'\n"
    )
    (tmp_path / "my file.py").write_text(text, encoding="utf-8")
    values = {"rate": None, "kind": "10 epochs", "fraction": 0.05, "size": "1"}
    command = shlex.split(other("my file.py:Mine", values, method="Mine"))
    assert command[2:4] == ["--method", "my file.py:Mine"]
    at = command.index("--set")
    assert sorted(command[at + 1 : at + 5]) == [
        *("fraction=0.05", "kind=10 epochs", "rate=null", 'size="1"'),
    ]


def test_a_task_without_runs(submit: Call) -> None:
    answer = submit("--task", f"{TASK},permuted-digits-v1")
    assert answer.code == 2
    assert "no test-split runs on permuted-digits-v1" in answer.error
    assert f"`ht-bench run --task permuted-digits-v1 --method {METHOD} " in answer.error


def test_a_task_of_ones_own(call: Call, submit: Call, runs: Path, tmp_path: Path) -> None:
    answer = call("submit", runs, "--method", "none", *ABOUT, "--out", tmp_path / "mine.json")
    assert "name its file with --task FILE.toml" in answer.error
    assert answer.code == 2 and "tiny-v1 is no task of this benchmark" in answer.error
    assert "tiny-v1 is no task of this benchmark" in submit("--task", "tiny-v1").error


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"source_sha256": "a" * 64}, "differ in source_sha256"),
        ({"software": {"torch": "1.0"}}, "differ in software"),
        ({"hardware": {"processor": "abacus"}}, "differ in hardware"),
        ({"stack": 1}, "differ in stack"),
        ({"precision": "bf16"}, "was run in 2 settings"),
        ({"device": "cuda:0"}, "was run in 2 settings"),
        ({"hyperparameters": {"fraction": 0.06}}, "has 2 set(s) of hyperparameters"),
        ({"data_sha256": "b" * 64}, "two data hashes do not compare"),
        ({"split": "validation"}, "lacks seeds 100"),
    ],
)
def test_mixed_runs(values: dict[str, Any], said: str, submit: Call, copied: Path) -> None:
    change(results(copied)[0], **values)
    answer = submit()
    assert answer.code == 2 and said in answer.error


def test_a_search_beside_the_runs_is_no_mixture(submit: Call, copied: Path) -> None:
    """Runs on the validation split have many sets of hyperparameters; they are left aside."""
    group = results(copied)[0].parents[1]
    for name, fraction in (("early-stop-00000001", 0.2), ("early-stop-00000002", 0.3)):
        shutil.copytree(group, group.with_name(name))
        for path in group.with_name(name).glob("seed*/result.json"):
            change(path, split="validation", hyperparameters={"fraction": fraction})
    assert submit().code == 0


def test_a_variant_that_is_not_there_is_named(submit: Call, tmp_path: Path) -> None:
    answer = submit("--variant", "zz")
    assert answer.code == 2 and "has 1 set(s) of hyperparameters" in answer.error
    assert not (tmp_path / "mine.json").exists()


def test_a_name_that_is_a_path_is_refused(submit: Call) -> None:
    answer = submit("--name", "../x")
    assert answer.code == 2 and "the file carries the entry's name" in answer.error


def test_runs_of_other_code_than_the_files_are_refused(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_task: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    write_task()
    own, code = Path("mine.py"), "from ht_bench import Method\nclass Mine(Method):\n    x = 1\n"
    own.write_text(code, encoding="utf-8")
    run = ("run", "--task", "tiny.toml", "--method", "mine.py:Mine", "--out", "runs", "--jobs", "1")
    assert call(*run).code == 0
    words = (*ABOUT, "--summary", "x", "--task", "tiny.toml", "--method", "mine.py:Mine")
    wrote = call("submit", "runs", *words, "--out", "mine.json")
    assert wrote.code == 0 and "Next: ht-bench verify mine.json --task tiny.toml" in wrote.out
    own.write_text(code.replace("1", "2"), encoding="utf-8")
    answer = call("submit", "runs", *words, "--out", "other.json")
    assert answer.code == 2 and "other code than mine.py:Mine holds now" in answer.error
    assert not Path("other.json").exists()


def test_one_of_several_variants_is_chosen(submit: Call, copied: Path, tmp_path: Path) -> None:
    group = results(copied)[0].parents[1]
    shutil.copytree(group, group.with_name("early-stop-00000001"))
    for path in group.with_name("early-stop-00000001").glob("seed*/result.json"):
        change(path, hyperparameters={"fraction": 0.05})
    answer = submit()
    variants = sorted(re.findall(r"\b[0-9a-f]{8}\b", answer.error))
    assert answer.code == 2 and len(variants) == 2
    for variant, out in zip(variants, ("a.json", "b.json"), strict=True):
        assert submit("--variant", variant, out=out).code == 0
    tables = [json.loads((tmp_path / name).read_text())["tasks"] for name in ("a.json", "b.json")]
    fractions = {table[TASK]["hyperparameters"]["fraction"] for table in tables}
    assert fractions == {0.05, 0.5}


@pytest.mark.parametrize(
    ("words", "out", "said"),
    [
        ((), "my entry.json", "$.name"),
        ((), "a\u202eb.json", "$.name"),
        (("--link", "javascript:alert(1)"), "mine.json", "$.link"),
        (("--summary", "x" * 301), "mine.json", "$.method.summary"),
        (("--citation", "\x1b[31m"), "mine.json", "$.method.citation: holds a control character"),
    ],
)
def test_only_what_is_valid_is_written(
    words: tuple[str, ...], out: str, said: str, submit: Call, tmp_path: Path
) -> None:
    answer = submit(*words, out=out)
    assert answer.code == 2 and "This cannot be submitted: " in answer.error
    assert said in answer.error
    assert not (tmp_path / out).exists()


def test_runs_of_an_altered_task_are_refused(submit: Call, copied: Path) -> None:
    spec = copied / TASK / "task.json"
    table = json.loads(spec.read_text(encoding="utf-8"))
    table["optimizer"]["lr"] = 2e-3
    spec.write_text(json.dumps(table), encoding="utf-8")
    from ht_bench.records.runs import read_spec

    for path in results(copied):
        change(path, task_sha256=read_spec(copied, TASK).sha256)
    answer = submit()
    assert answer.code == 2 and ".task_sha256: is '" in answer.error


def test_choosing_needs_no_file(copied: Path) -> None:
    groups = read_groups(copied).groups
    setting, chosen = choose_runs(groups, Choice(METHOD), copied)
    assert str(setting) == "test split, fp32 on cpu" and list(chosen) == [TASK]
