"""Training a stranger's seeds again: whose code runs, and what its numbers can do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ht_bench.leaderboard.known import find_known
from ht_bench.leaderboard.verify import Report
from ht_bench.methods.resolve import resolve
from ht_bench.networks.disturbance import disturb
from ht_bench.running import reruns
from ht_bench.running.kinds import make_run
from ht_bench.running.reruns import reference
from ht_bench.training.device import Compute

Call = Callable[..., Any]
TASK = "quick-digits-v1"
MINE = """\
from pathlib import Path
from dataclasses import dataclass
from ht_bench.methods.early_stop import EarlyStop

Path(__file__).with_suffix(".imported").touch()

@dataclass(eq=False)
class Mine(EarlyStop):
    name = "mine"
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A file that leaves a trace when it is imported, and holds the method `mine`."""
    path = tmp_path / "mine.py"
    path.write_text(MINE, encoding="utf-8")
    return path


def test_named_code_is_run_and_its_source_noted(call: Call, mine: Path, entry: Any) -> None:
    entry.content["method"]["name"] = "mine"
    answer = call("verify", entry.write(), "--seeds", "107", "--code", mine, "--trust-code")
    assert answer.code == 0
    assert answer.out.startswith("early-stop: reproduced\n")
    assert "another source hash" in answer.out and "agree bit for bit" in answer.out


@pytest.mark.parametrize("name", ["mine", "mine.py", "mine.Mine", "os.system", "Mine"])
def test_code_that_was_not_named_is_never_imported(
    name: str, call: Call, mine: Path, monkeypatch: pytest.MonkeyPatch, entry: Any
) -> None:
    monkeypatch.chdir(mine.parent)
    monkeypatch.syspath_prepend(str(mine.parent))
    entry.content["method"]["name"] = name
    answer = call("verify", entry.write(), "--rerun", 1)
    assert answer.code == 2
    assert f"The package has no method '{name}'" in answer.out and "--code" in answer.out
    assert not mine.with_suffix(".imported").exists() and "mine" not in sys.modules


@pytest.mark.parametrize("name", ["mine.py:Mine", "./mine.py", "os:system", "a/../mine", "~mine"])
def test_references_are_no_names(name: str, mine: Path, entry: Any) -> None:
    from ht_bench.leaderboard.valid import read_submission

    entry.content["method"]["name"] = name
    submission, [fault] = read_submission(entry.write())
    assert submission is None and fault.path == "$.method.name"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("absent.py", "There is no file"),
        ("broken.py", "failed while it was imported"),
        ("mine.py:Absent", "has no 'Absent'"),
        ("mine.py:Path", "is not a subclass"),
        ("unknown", "Unknown method"),
        ("os:system", "is not a subclass"),
        ("other.py", "has no method 'mine' (it has: none)"),
    ],
)
def test_code_that_does_not_serve_is_the_verifiers_matter(
    code: str, said: str, call: Call, mine: Path, monkeypatch: pytest.MonkeyPatch, entry: Any
) -> None:
    """Exit code 2, no fault of the submission."""
    monkeypatch.chdir(mine.parent)
    (mine.parent / "broken.py").write_text("1 / 0", encoding="utf-8")
    (mine.parent / "other.py").write_text("x = 1", encoding="utf-8")
    entry.content["method"]["name"] = "mine"
    answer = call("verify", entry.write(), "--rerun", 1, "--code", code, "--trust-code")
    assert answer.code == 2 and said in answer.out


HYPERPARAMETERS: list[tuple[str, dict[str, Any], int, str]] = [
    ("l2", {"strength": 1e308}, 2, "failed"),
    ("l2", {"strength": -1}, 1, "zero or more"),
    ("l2", {"strength": "1"}, 1, "not of type float"),
    ("l2", {"strength": True}, 1, "not of type float"),
    ("l2", {"strength": None}, 1, "not of type float"),
    ("l2", {"strength": [1.0] * 100}, 1, "strength = [1.0, "),
    ("l2", {"strength": "\n" * 300}, 1, "strength = '\\n"),
    ("l2", {"score": 0.9}, 1, "no hyperparameter 'score'"),
    ("l2", {"module": None}, 1, "no hyperparameter 'module'"),
    ("l2", {"a\nb": 1}, 1, "no hyperparameter 'a\\nb'"),
    ("ema", {"decay": 1e308}, 1, "between 0 and 1"),
    ("ema", {"buffers": ["average"]}, 1, "must be 'average' or 'copy'"),
    ("hare-tortoise", {"reset_every": -1}, 1, "1 step or more"),
    ("hare-tortoise", {"reset_every": "9" * 300}, 1, "again: '9999"),
    ("hare-tortoise", {"reset_every": "nan epochs"}, 1, "no interval"),
    ("head-reset", {"layers": 10**18}, 1, "weight layers"),
    ("head-reset", {"layers": -(2**62)}, 1, "weight layers"),
    ("self-distillation", {"temperature": 1e308}, 2, "failed"),
    ("shrink-perturb", {"amount": -0.5}, 1, "between 0 and 1"),
]


@pytest.mark.parametrize(("method", "changes", "code", "said"), HYPERPARAMETERS)
def test_a_strangers_numbers(
    method: str, changes: dict[str, Any], code: int, said: str, entry: Any
) -> None:
    entry.content["method"]["name"] = method
    entry.table["hyperparameters"] = changes
    report = entry.verify("reproduced", rerun=reruns.Trainer(), seeds=(100,))
    assert (report.level, report.exit_code) == ("consistent", code)
    [sentence] = [*map(str, report.faults), *report.could_not]
    assert said in sentence
    assert sentence.isascii() and sentence.isprintable() and len(sentence) < 700


@pytest.mark.parametrize("threads", [0, -1, 65, 2**62, "8", "x" * 200])
def test_threads_are_bounded(threads: Any, entry: Any) -> None:
    entry.table["software"]["threads"] = threads
    report = entry.verify("reproduced", rerun=reruns.Trainer(), seeds=(100,))
    assert report.exit_code == 1 and "1 to 64 can be re-run" in report.faults[0].sentence


def test_a_device_that_is_not_here(call: Call, monkeypatch: pytest.MonkeyPatch, entry: Any) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    entry.content["device"] = "cuda"
    answer = call("verify", entry.write(), "--rerun", 1)
    assert answer.code == 2 and "torch sees no CUDA device" in answer.out


def test_a_crash_of_named_code_is_a_sentence(mine: Path, entry: Any) -> None:
    body = '    def after_step(self):\n        raise KeyError("\\x1b[31m")\n'
    mine.write_text(MINE + body, encoding="utf-8")
    entry.content["method"]["name"] = "mine"
    trainer = reruns.Trainer(code=str(mine))
    report = entry.verify("reproduced", rerun=trainer, seeds=(100,))
    assert report.exit_code == 2
    assert "Method 'mine' failed: KeyError" in report.could_not[0]
    assert "\x1b" not in report.could_not[0]


def test_code_runs_only_where_it_is_trusted(call: Call, mine: Path, entry: Any) -> None:
    entry.content["method"]["name"] = "mine"
    answer = call("verify", entry.write(), "--rerun", 1, "--code", mine)
    assert answer.code == 2 and "--trust-code" in answer.error
    assert not mine.with_suffix(".imported").exists()
    answer = call("verify", entry.write(), "--rerun", 1, "--code", mine, "--trust-code")
    assert answer.code == 0 and f"Running the code of {mine}" in answer.error


# ---- rounding twins ----


def test_a_twin_differs_in_the_last_bit_and_then_in_more() -> None:
    known = find_known("quick-digits-v1")
    assert not isinstance(known, str)
    runs = []
    for twin in (0, 0, 1, 2):
        run = make_run(known.task, resolve("full-reset"), (100,), "test", Compute())
        run.twin = twin
        run.train()
        runs.append(run)
    losses = [[point["test/loss"][0] for point in run.history.points] for run in runs]
    weights = [torch.nn.utils.parameters_to_vector(run.module.parameters()) for run in runs]
    assert losses[0] == losses[1] and torch.equal(weights[0], weights[1])
    np.testing.assert_allclose(losses[2], losses[0], rtol=1e-4)
    # The last phase began with redrawn weights: they are disturbed too, and each twin's its own.
    assert not torch.equal(weights[2], weights[0]) and not torch.equal(weights[2], weights[3])


def test_disturbed_weights_are_neighbours_and_draws_stay() -> None:
    module = torch.nn.Linear(40, 40)
    before, state = module.weight.clone(), torch.get_rng_state()
    disturb(module, 3)
    ulps = (module.weight.view(torch.int32) - before.view(torch.int32)).abs()
    assert ulps.tolist() == torch.ones_like(ulps).tolist()
    assert (module.weight > before).any() and (module.weight < before).any()
    assert torch.equal(torch.get_rng_state(), state)


def test_the_class_of_a_method_tuned_on_the_first_share(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mine.parent)
    assert reference("mine.py", "mine@first") == reference("mine.py", "mine") == "mine.py:Mine"


def test_what_several_tasks_lack_is_said_once() -> None:
    """An unknown method is refused at every task in the same words."""
    report = Report("x.json")
    for sentence in ("The package has no method 'mine'.", "b needs data.") * 2:
        report.fail(sentence)
    assert report.could_not == ["The package has no method 'mine'.", "b needs data."]
