"""The command line: what it says to wrong input, its help, and one tiny task end to end."""

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ht_bench.cli import COMMANDS

Call = Callable[..., Any]
Write = Callable[..., Path]
Patch = pytest.MonkeyPatch
METHODS = "none,full-reset,hare-tortoise"
ONE_JOB = ("--jobs", "1")


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: Patch) -> None:
    """Work in an empty folder, with an empty data cache and no place to import from."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HT_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HT_BENCH_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "120")


def refused(answer: Any, sentence: str) -> None:
    """The command ended with 2 and one sentence on stderr, and nothing like a traceback."""
    assert answer.code == 2
    assert re.search(sentence, answer.error), answer.error
    assert "Traceback" not in answer.error + answer.out
    assert len(answer.error.strip().splitlines()) == 1
    assert answer.error.startswith("ht-bench: ")


# ---- wrong input, command by command ----


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("run --method none", "Name a task or a suite: --task"),
        ("run --task tiny.toml", "Name a method: --method"),
        ("run --task warm-start-digit-v1 --method none", "Did you mean 'warm-start-digits-v1'"),
        ("run --task tiny.toml --method hare-tortise", "Did you mean 'hare-tortoise'"),
        ("run --suite no-such-suite --method none", "Unknown suite 'no-such-suite'"),
        ("run --task missing.toml --method none", "missing.toml: No such file"),
        ("run --task tiny.toml --method absent.py:Mine", "There is no file .*absent.py"),
        ("run --task tiny.toml --method broken.py:Mine", "was imported: ZeroDivisionError"),
        ("run --task tiny.toml --method none --seeds a", "'a' is not a seed"),
        ("run --task tiny.toml --method ema --set decay", "write key=value"),
        ("run --task tiny.toml --method ema --set decay=fast", "from 0 to 1, or 'auto'"),
        ("run --task tiny.toml --method ema --set decay=null", "decay = None is not of type"),
        ("run --task tiny.toml --method ema --set decay=2", "a decay lies between 0 and 1"),
        ("run --task tiny.toml --method ema --set decya=0.9", "Did you mean 'decay'"),
        ("run --task tiny.toml --method hare-tortoise --set reset_every=1.5", "is not of type int"),
        ("run --task tiny.toml --method none --threads 0", "--threads 0: give 1 or more"),
        ("run --task tiny.toml --method none --jobs -2", "--jobs -2: give 1 or more"),
        ("run --task tiny.toml --method none --out tiny.toml", "tiny.toml cannot be written"),
        ("run --task tiny.toml --method none --out tiny.toml/in", "tiny.toml/in cannot be written"),
        ("compare missing", "There is no folder missing"),
        ("compare empty", "empty holds no finished run"),
        ("compare tiny.toml", "tiny.toml is a file; name a folder"),
        ("compare empty --suite no-such-suite", "empty holds no finished run"),
        ("tensorboard missing --no-serve", "There is no folder missing"),
        ("tensorboard empty --no-serve", "empty holds no finished run"),
        ("data fetch", "Name a dataset: ht-bench data fetch"),
        ("data fetch cifar1", "Did you mean 'cifar10'"),
        ("data fetch digits", "bundled with scikit-learn"),
        ("data import cifar10", "Name the files: ht-bench data import cifar10 PATH"),
        ("data import cifar1 empty", "Did you mean 'cifar10'"),
        ("data import cifar10 missing", "There is no folder missing"),
        ("data verify cifar1", "Did you mean 'cifar10'"),
        ("tune --method l2", "Name a task"),
        ("tune --task tiny.toml", "Name a method"),
        ("tune --task tiny.toml --method l2 --regime first --share 0", "a share lies above 0"),
        ("tune --task warm-start-digit-v1 --method l2", "Did you mean 'warm-start-digits-v1'"),
        ("tune --task tiny.toml --method l2-ini", "Did you mean 'l2-init'"),
        ("tune --task tiny.toml --method l2 --seeds 100-104", "tuning uses seeds 0 to 99 only"),
        ("tune --task tiny.toml --method l2 --jobs -1", "--jobs -1: give 1 or more"),
        ("tune --task tiny.toml --method l2 --out tiny.toml", "tiny.toml cannot be written"),
        ("freeze --suite mine --task tiny.toml --title t", "name begins with 'suite-'"),
        ("freeze --suite suite-a-v1 --task , --title t --runs empty", "Name the suite's tasks"),
        ("freeze --suite suite-a-v1 --task tiny.toml --title t --runs missing", "no folder miss"),
    ],
)
def test_wrong_input_is_one_sentence(
    call: Call, write_task: Write, tmp_path: Path, words: str, sentence: str
) -> None:
    write_task()
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.py").write_text("1 / 0", encoding="utf-8")
    refused(call(*words.split()), sentence)
    assert not list(tmp_path.rglob("result.json"))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("net = {", "net = [", "is not valid TOML"),
        ("seeds =", "seedz =", "unknown key 'seedz'. Did you mean 'seeds'"),
        ("hidden", "hiden", r"tiny.toml \[net\]: unknown key 'hiden'.* Did you mean 'hidden'"),
        ('"digits"', '"digit"', "Unknown dataset 'digit'. Did you mean 'digits'"),
        ('"digits"', '"cifar10"', "run `ht-bench data fetch cifar10`"),
        ("train = 60", "train = 5000", "digits has 1297 training examples"),
    ],
)
def test_a_wrong_task_file_is_one_sentence(
    call: Call, write_task: Write, old: str, new: str, sentence: str
) -> None:
    words = ("run", "--task", write_task(change=(old, new)), "--method", "none", *ONE_JOB)
    refused(call(*words), sentence)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_cuda_without_cuda(call: Call, write_task: Write) -> None:
    answer = call("run", "--task", write_task(), "--method", "none", "--device", "cuda")
    refused(answer, "torch sees no CUDA device here; use --device cpu")


@pytest.mark.parametrize(
    "words", [["no-such-command"], ["run", "--no-such-option"], ["compare", "--format", "xml"]]
)
def test_what_the_parser_refuses(call: Call, words: list[str]) -> None:
    answer = call(*words)
    assert answer.code == 2 and "--help" in answer.error and "Traceback" not in answer.error


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(call: Call, command: str) -> None:
    answer = call(command, "--help")
    assert answer.code == 0
    assert f"ht-bench {command}" in answer.out.partition("Example")[2]


def test_no_command_is_a_question_for_help(call: Call) -> None:
    answer = call()
    assert answer.code == 0 and all(command in answer.out for command in COMMANDS)
    assert call("--version").out.startswith("ht-bench ")


# ---- a runs folder ----


def a_result(runs: Path) -> Path:
    return next(runs.glob("*/hare-tortoise-*/seed101/result.json"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"task": "tiny-v2"}, "Unknown task 'tiny-v2'"),
        ({"data_sha256": "0" * 64}, "two data hashes do not compare"),
    ],
)
def test_a_changed_result_is_refused(call: Call, runs: Path, changes: Any, sentence: str) -> None:
    path = a_result(runs)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes), encoding="utf-8")
    refused(call("compare", runs), sentence)


def test_a_corrupt_result_is_trained_again(call: Call, runs: Path, write_task: Write) -> None:
    path = a_result(runs)
    before = json.loads(path.read_text())
    path.write_text("{", encoding="utf-8")
    words = ("run", "--task", write_task(), "--method", METHODS, "--out", runs, *ONE_JOB)
    answer = call(*words)
    assert (answer.code, "12 runs, 11 finished already" in answer.error) == (0, True)
    after = json.loads(path.read_text())
    assert {**after, "cost": 0} == {**before, "cost": 0}


def test_a_changed_spec_does_not_mix(call: Call, runs: Path, write_task: Write) -> None:
    changed = write_task("changed", rate=("lr = 1e-2", "lr = 1e-3"))
    words = ("run", "--task", changed, "--out", runs, *ONE_JOB)
    assert "4 runs, 0 finished already" in call(*words, "--method", "none").error
    answer = call("compare", runs)
    said = " ".join(answer.out.split())
    assert "8 result(s) on 'tiny-v1' are left out: they are of another version" in said
    assert answer.code == 0 and "hare-tortoise" not in answer.out
    call(*words, "--method", METHODS)
    answer = call("compare", runs)
    assert answer.code == 0 and "hare-tortoise" in answer.out and "left out" not in answer.out


def test_a_broken_spec_is_named(call: Call, runs: Path) -> None:
    spec = runs / "tiny-v1" / "task.json"
    spec.write_text("{", encoding="utf-8")
    refused(call("compare", runs), f"{spec} is not valid JSON")


def test_an_unknown_suite_or_a_file_for_figures_is_named(call: Call, runs: Path) -> None:
    refused(call("compare", runs, "--suite", "suite-x"), "Unknown suite 'suite-x'")
    answer = call("compare", runs, "--figures", a_result(runs))
    assert answer.code == 2 and "result.json cannot be written" in answer.error


# ---- end to end ----


def test_run_then_run_again(call: Call, write_task: Write, tmp_path: Path) -> None:
    words = ("run", "--task", write_task(), "--method", METHODS, *ONE_JOB)
    first = call(*words)
    assert first.code == 0
    assert "1 task(s) × 3 method(s): 12 runs, 0 finished already, 3 stack(s)" in first.error
    assert first.out == "12 results under runs/; next: ht-bench compare runs\n"
    files = sorted(tmp_path.glob("runs/tiny-v1/*/seed10[0-3]/result.json"))
    assert len(files) == 12
    assert not list(tmp_path.rglob("*.pt"))
    before = [(file.read_bytes(), file.stat().st_mtime_ns) for file in files]
    second = call(*words)
    assert (second.code, second.out) == (0, first.out)
    assert "12 finished already" in second.error and "nothing is left to train" in second.error
    assert [(file.read_bytes(), file.stat().st_mtime_ns) for file in files] == before


def test_settings_seeds_and_split(call: Call, write_task: Write, tmp_path: Path) -> None:
    """--set is JSON where it can be, text otherwise; negative seeds and lists are seeds."""
    words = ("run", "--task", write_task(), "--method", "hare-tortoise", *ONE_JOB)
    words += ("--set", "decay=0.5", "reset_every=1 epochs", "--seeds=-5,7-8")
    assert call(*words, "--split", "validation", "--no-tensorboard").code == 0
    records = [json.loads(p.read_text()) for p in tmp_path.rglob("result.json")]
    assert sorted(record["seed"] for record in records) == [-5, 7, 8]
    for record in records:
        assert record["split"] == "validation"
        assert {"decay": 0.5, "reset_every": "1 epochs"}.items() <= record[
            "hyperparameters"
        ].items()
    assert not list(tmp_path.rglob("events.out.tfevents.*"))


def test_compare_in_four_formats(call: Call, runs: Path) -> None:
    formats = ("table", "markdown", "json", "csv")
    answers = [call("compare", runs, "--format", name) for name in formats]
    for answer in answers:
        assert answer.code == 0 and all(method in answer.out for method in METHODS.split(","))
    table, markdown, text, rows = (answer.out for answer in answers)
    assert "gap closed" in table and max(map(len, table.splitlines())) <= 120
    assert "|" in markdown and "---" in markdown
    assert isinstance(json.loads(text), dict | list)
    assert len(rows.splitlines()) == 4
    assert len({line.count(",") for line in rows.splitlines()}) == 1


def test_figures_are_drawn_and_the_same_twice(call: Call, runs: Path, tmp_path: Path) -> None:
    for path in runs.glob("*/full-reset-*/*/result.json"):  # six updates open no gap for sure
        record = json.loads(path.read_text(encoding="utf-8"))
        record["curve"]["test/accuracy"][-1] = 0.99
        path.write_text(json.dumps(record), encoding="utf-8")
    for name in ("first", "second"):
        answer = call("compare", runs, "--figures", tmp_path / name)
        assert answer.code == 0 and f"{name}/curves-tiny-v1.png" in answer.error
    drawn = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert {"curves-tiny-v1.png", "curves-tiny-v1.svg", "ranking-tiny-v1.svg"} <= set(drawn)
    assert {Path(name).suffix for name in drawn} == {".png", ".svg"}
    for name in drawn:
        first, second = ((tmp_path / folder / name).read_bytes() for folder in ("first", "second"))
        assert len(first) > 1000
        assert first == second or name.endswith(".png")


def test_verify_tells_intact_from_damaged(call: Call, tmp_path: Path) -> None:
    answer = call("data", "verify")
    assert answer.code == 0
    assert "digits: intact, sha256" in answer.out and "mnist: not on this machine" in answer.out
    (tmp_path / "cache" / "mnist").mkdir(parents=True)
    (tmp_path / "cache" / "mnist" / "meta.json").write_text("{}")
    damaged = call("data", "verify")
    assert damaged.code == 1 and "mnist" in damaged.out and "is unreadable" in damaged.out
    assert call("data", "verify", "digits").out.count("\n") == 1
    assert call("data", "verify", "mnist").code == 1


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("tasks", "warm-start-digits-v1"),
        ("methods", "hare-tortoise"),
        ("suites", "what it scores"),
        ("data", "tiny-imagenet"),
    ],
)
def test_list(call: Call, kind: str, shown: str) -> None:
    alone, everything = call("list", kind), call("list")
    assert (alone.code, everything.code) == (0, 0)
    assert shown in alone.out and shown in everything.out


def test_tune_and_write(call: Call, write_task: Write, tmp_path: Path, monkeypatch: Patch) -> None:
    """A search tries the grid, marks the best, and writes it where `run` finds it."""
    baselines = tmp_path / "baselines"
    baselines.mkdir()
    (baselines / "l2.toml").write_text(
        'method = "l2"\nsummary = "s"\nsource = "s"\n[grid]\nstrength = [0.0, 0.1]\n'
    )
    monkeypatch.setattr("ht_bench.methods.recipe.folder", lambda name: baselines)
    words = ("tune", "--task", write_task(), "--method", "l2", "--seeds", "0-1", *ONE_JOB)
    assert call(*words).code == 0
    assert "[search" not in (baselines / "l2.toml").read_text()
    answer = call(*words, "--write")
    assert answer.code == 0 and "4 finished already" in answer.error
    assert len(re.findall(r"^ [* ] 0\.\d{4} ± ", answer.out, re.MULTILINE)) == 2
    assert answer.out.count(" * ") == 1

    from ht_bench.methods.recipe import get_recipe

    recipe = get_recipe("l2")
    assert recipe is not None
    best = max(recipe.search["tiny-v1"]["tried"], key=lambda trial: trial["mean"])
    assert recipe.tasks["tiny-v1"] == {"strength": best["strength"]}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_says_how_to_go_on(
    number: int, code: int, call: Call, write_task: Write, monkeypatch: Patch
) -> None:
    from ht_bench.running.job import run_stack

    def interrupted(*given: Any) -> Any:
        os.kill(os.getpid(), number)
        return run_stack(*given)

    monkeypatch.setattr("ht_bench.running.executor.run_stack", interrupted)
    answer = call("run", "--task", write_task(), "--method", "none", *ONE_JOB)
    assert answer.code == code
    assert "Stopped with 0 of 4 runs finished; the same command goes on" in answer.error


def test_a_failing_method_leaves_the_others(call: Call, write_task: Write, tmp_path: Path) -> None:
    path = tmp_path / "failing.py"
    path.write_text("import ht_bench\nclass Failing(ht_bench.Method):\n def after_step(_): 1 / 0\n")
    words = ("run", "--task", write_task(), "--method", f"{path}:Failing,none", *ONE_JOB)
    answer = call(*words)
    assert answer.code == 2 and "Traceback" not in answer.error
    error = f"ZeroDivisionError: division by zero ({path}, line 3)"
    assert f"'Failing' failed on tiny-v1 with {error}" in answer.error
    assert len(list(tmp_path.glob("runs/tiny-v1/none-*/*/result.json"))) == 4
    alone = call(*words[:-3], f"{path}:Failing", *ONE_JOB, "--out", "alone")
    assert (alone.code, alone.out) == (2, "0 results under alone/.\n") and error in alone.error
