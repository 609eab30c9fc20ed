"""One honest submission of real training, and checks that train nothing."""

import contextlib
import fcntl
import importlib.util
import json
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ht_bench.version import EPOCH

SUBMISSIONS = Path(__file__).parents[2] / "leaderboard" / "submissions"
TASK, METHOD = "quick-digits-v1", "early-stop"
Content = dict[str, Any]


@contextlib.contextmanager
def registered() -> Iterator[Any]:
    """Register TASK, warm-start-digits-v1 in 60 updates instead of 2,100; yield it."""
    from ht_bench import registry
    from ht_bench.files import folder
    from ht_bench.streams.task import parse_task

    text = (folder("tasks") / "warm-start-digits-v1.toml").read_text(encoding="utf-8")
    table = {**tomllib.loads(text), "name": TASK}
    table["phases"] = [
        {**phase, "updates": updates}
        for phase, updates in zip(table["phases"], (40, 20), strict=True)
    ]
    task = parse_task(table, TASK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.tasks._entries, TASK, task)
        yield task


@pytest.fixture(autouse=True)
def _quick_task() -> Iterator[None]:
    """Let these tests, and no others, know the quick task by its name."""
    with registered():
        yield


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of 20 runs of early-stop, trained once for all worker processes; read only."""
    from ht_bench import evaluate

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    runs = shared / "trained-for-submissions"
    with open(shared / "trained.lock", "w") as lock, registered() as task:
        fcntl.flock(lock, fcntl.LOCK_EX)
        evaluate(METHOD, task, device="cpu", out=runs, progress=False)
    return runs


@pytest.fixture(scope="session")
def honest_bytes(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What `ht-bench submit` writes of these runs."""
    from ht_bench.leaderboard.choosing import Choice
    from ht_bench.leaderboard.submit import About, make_submission, write_submission

    about = About(METHOD, ("A. Author", "Ø. Författare"), "https://example.org/paper")
    path = tmp_path_factory.mktemp("honest") / f"{METHOD}.json"
    with registered():
        write_submission(path, make_submission(trained, Choice(METHOD), about))
    return path.read_bytes()


@pytest.fixture
def content(honest_bytes: bytes) -> Content:
    """The honest submission, to be changed at will."""
    return dict(json.loads(honest_bytes))


@pytest.fixture
def table(content: Content) -> Content:
    """Its one task's table, part of `content`."""
    found: Content = content["tasks"][TASK]
    return found


Write = Callable[..., Path]


def committed(name: str) -> Content:
    """Return a committed submission's content as if it were made today, to be changed at will."""
    content = json.loads((SUBMISSIONS / "0.1" / f"{name}.json").read_text(encoding="utf-8"))
    return {**content, "benchmark": EPOCH}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a content, text or bytes to tmp_path/early-stop.json."""

    def put(what: Content | str | bytes, name: str = f"{METHOD}.json") -> Path:
        path = tmp_path / name
        text = json.dumps(what) if isinstance(what, dict) else what
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return put


@pytest.fixture(scope="session")
def records(trained: Path) -> Mapping[int, Content]:
    """The honest runs' records by seed."""
    from ht_bench.records.runs import read_runs

    return {record["seed"]: record for record in read_runs(trained)[0]}


@pytest.fixture(scope="session")
def replay(records: Mapping[int, Content]) -> Callable[..., Mapping[int, Content]]:
    """A rerun that answers with the honest records instead of training."""

    def rerun(
        known: Any, submission: Any, seeds: Sequence[int], twin: int
    ) -> Mapping[int, Content]:
        return {seed: records[seed] for seed in seeds}

    return rerun


@pytest.fixture(scope="session")
def first_points(honest_bytes: bytes) -> Callable[..., Mapping[int, Mapping[str, float]]]:
    """What untrained networks give: recomputed once for the task's own network."""
    from ht_bench.leaderboard.known import find_known
    from ht_bench.leaderboard.reading import Submission
    from ht_bench.running import reruns

    with registered():
        own = reruns.first_points(find_known(TASK), Submission(json.loads(honest_bytes)))

    def recompute(known: Any, submission: Any) -> Mapping[int, Mapping[str, float]]:
        if submission.method["network"]:
            return reruns.first_points(known, submission)
        return own

    return recompute


@pytest.fixture(scope="session")
def mutations() -> ModuleType:
    """The file mutations.py beside this one."""
    path = Path(__file__).with_name("mutations.py")
    spec = importlib.util.spec_from_file_location("submission_mutations", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Entry:
    """The honest submission, to be changed at will and verified; reruns are replayed."""

    def __init__(self, content: Content, path: Path, checks: Mapping[str, Any]) -> None:
        self.content, self._path, self._checks = content, path, checks
        self.table: Content = content["tasks"][TASK]

    def curve(self, seed: int = 100) -> list[float]:
        """The accuracies of a seed, to be changed."""
        values: list[float] = self.table["seeds"][str(seed)]["curve"]["test/accuracy"]
        return values

    def write(self) -> Path:
        """Write the file as it now is."""
        self._path.write_text(json.dumps(self.content), encoding="utf-8")
        return self._path

    def verify(self, level: str = "consistent", path: Path | None = None, **changes: Any) -> Any:
        """Write and verify the file, or another; `changes` to what it is checked with."""
        from ht_bench.leaderboard.verify import Checks, verify

        rerun = self._checks["rerun"] if level == "reproduced" else None
        return verify(path or self.write(), Checks(**{**self._checks, "rerun": rerun, **changes}))


@pytest.fixture
def entry(content: Content, tmp_path: Path, first_points: Any, replay: Any) -> Entry:
    """The honest submission as tmp_path/early-stop.json."""
    from ht_bench.running import reruns

    checks = {"machine": reruns.machine, "first_points": first_points, "rerun": replay}
    return Entry(content, tmp_path / f"{METHOD}.json", {**checks, "seeds": tuple(range(100, 120))})
