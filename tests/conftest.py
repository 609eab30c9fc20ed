"""A task of a few updates on digits, the command line called in this process, real data."""

import fcntl
import gc
import os
import shutil
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ht_bench.version import EPOCH

TINY = """\
name = "tiny-v1"
family = "warm-start"
seeds = "100-103"
data = { name = "digits", train = 60 }
net = { name = "mlp", hidden = [4] }
optimizer = { lr = 1e-2 }
training = { batch = 16, stack = 4, points = 2 }

[[phases]]
new = 0.5
wrong = 0.5
updates = 4

[[phases]]
new = 0.5
updates = 2
"""


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests away from the user's data cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HT_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test registers is forgotten after it."""
    from ht_bench import loading, registry

    monkeypatch.setattr(loading, "_imported", {})
    for names in registry.KINDS.values():
        monkeypatch.setattr(names, "_entries", dict(names._entries))


@pytest.fixture(scope="module", autouse=True)
def _quick_collections() -> None:
    """Spare what is alive, torch above all: every run collects garbage, and that took seconds."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def _real_data(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """The cache of MNIST and CIFAR-10, decoded once for all workers, and kept for later test runs.

    Loading checks the content's hash; --evidence decodes anew.
    """
    from ht_bench.streams.data import load

    raw = os.environ.get("HT_BENCH_DATA", "")
    lacking = [n for n in ("mnist", "cifar10") if not raw or not (Path(raw) / n).is_dir()]
    if lacking:
        pytest.skip(f"HT_BENCH_DATA names no folder with {' and '.join(lacking)}")
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    kept = getattr(pytestconfig, "cache", None)  # none under -p no:cacheprovider
    anew = pytestconfig.getoption("--evidence") or kept is None
    cache = shared / "real-data" if anew else kept.mkdir("real-data")
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / ".lock", "w") as lock, pytest.MonkeyPatch.context() as patch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        patch.setenv("HT_BENCH_CACHE", str(cache))
        for name in ("mnist", "cifar10"):
            load(name)
    return cache


@pytest.fixture
def real_data_cache(_real_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use the cache of real MNIST and CIFAR-10; skips where HT_BENCH_DATA names none."""
    monkeypatch.setenv("HT_BENCH_CACHE", str(_real_data))
    return _real_data


@dataclass(frozen=True)
class Answer:
    """What a command said and how it ended."""

    code: int
    out: str
    error: str


Call = Callable[..., Answer]
Write = Callable[..., Path]


@pytest.fixture
def write_task(tmp_path: Path) -> Write:
    """Write the tiny task to tmp_path/<name>.toml, with `old` texts replaced by new ones."""

    def write(name: str = "tiny", **changes: tuple[str, str]) -> Path:
        text = TINY
        for old, new in changes.values():
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / f"{name}.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def _finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ht_bench.running.evaluate import run_plan
    from ht_bench.running.plan import Request, make_plan
    from ht_bench.streams.task import parse_task

    out = tmp_path_factory.mktemp("finished") / "runs"
    task = parse_task(tomllib.loads(TINY), "tiny")
    methods = ("none", "full-reset", "hare-tortoise")
    run_plan(make_plan(Request(tasks=(task,), methods=methods, out=out)), 1, progress=False)
    return out


@pytest.fixture
def runs(_finished: Path, tmp_path: Path) -> Path:
    """A copy of the folder of three methods' runs on the tiny task: tmp_path/runs."""
    return Path(shutil.copytree(_finished, tmp_path / "runs"))


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command line in this process; fails on anything that is not an exit code."""
    from ht_bench.cli import main

    def run(*words: str | Path) -> Answer:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    return run


Make = Callable[..., dict[str, Any]]


@pytest.fixture
def make_record() -> Make:
    """Build a record from the accuracies of its phases, e.g. [[0.1, 0.5], [0.9]].

    The first number is the untrained network's; the points stand 10 steps apart.
    """

    def make(
        phases: Sequence[Sequence[float]], method: str = "none", seed: int = 100, **changes: Any
    ) -> dict[str, Any]:
        phase = [index for index, values in enumerate(phases) for _ in values]
        accuracy = [value for values in phases for value in values]
        record = {
            "schema": 1,
            "benchmark": EPOCH,
            "task": "digits-v1",
            "task_sha256": "a" * 64,
            "data_sha256": "b" * 64,
            "method": method,
            "hyperparameters": {},
            "source_sha256": "c" * 64,
            "seed": seed,
            "split": "test",
            "precision": "fp32",
            "device": "cpu",
            "stack": 10,
            "classes": 10,
            "status": "finished",
            "curve": {
                "phase": phase,
                "step": [10 * index for index in range(len(phase))],
                "test/accuracy": accuracy,
                "train/accuracy": [value / 2 for value in accuracy],
            },
            "diagnostics": {},
            "retention": None,
            "steps": 10 * (len(phase) - 1),
            "extra_parameters": 0,
            "cost": {"seconds": 2.0, "peak_memory_bytes": 1000},
            "software": {"torch": "2.13.0"},
            "hardware": {"cpu": "one"},
        }
        return record | changes

    return make


@pytest.fixture
def one_thread_and_own_random_state() -> Iterator[None]:
    """Leave torch's generator and number of threads as they were."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_num_threads(threads)
