"""A Ray cluster changes no bit, and loses nothing when its workers and nodes do.

Long: one cluster serves all tests here, since it takes ten seconds to start.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ht_bench.errors import UsageError
from ht_bench.records.record import Record, without_cost
from ht_bench.records.runs import locked, read_runs
from ht_bench.running import on_ray, on_ray_worker
from ht_bench.running.evaluate import Finished, run_plan
from ht_bench.running.executor import ExecutorRequest, Outcome
from ht_bench.running.on_ray import RayExecutor
from ht_bench.running.plan import Plan, Request, make_plan
from ht_bench.running.time_limit import NO_LIMIT
from ht_bench.streams.task import Task, parse_task

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # what Ray will change
]
METHODS = '''\
"""Methods that fail, end their process once, and tell that they train."""
import dataclasses
import os
import pathlib
import signal
import time

import ht_bench

HERE = pathlib.Path(__file__).parent

class Raises(ht_bench.Method):
    def after_step(self):
        raise ZeroDivisionError("the sky fell")  # Raises

@dataclasses.dataclass(eq=False)
class Ending(ht_bench.Method):
    """Is ended by a signal in its sixth step, the first time."""
    number: int = signal.SIGKILL
    capturable = False

    def setup(self):
        self.steps = 0

    def after_step(self):
        self.steps += 1
        mark = HERE / f"ended-{int(self.number)}"
        if self.steps == 6 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), self.number)

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]

class Slow(ht_bench.Method):
    """Takes its time, and says in which process it trains."""
    def setup(self):
        (HERE / f"slow-{os.getpid()}").touch()

    def after_step(self):
        time.sleep(0.005)
'''


@pytest.fixture(scope="module", autouse=True)
def _a_busy_machine() -> Iterator[None]:
    """Have Ray wait for its own processes as long as it takes, not for fixed 15 and 30 seconds."""
    services = ray._private.services
    get_node, start_raylet = services.get_node, services.start_raylet

    def patient(*given: Any) -> Any:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            with contextlib.suppress(RuntimeError):
                return get_node(*given)
            time.sleep(0.2)
        return get_node(*given)

    def start(*given: Any, **named: Any) -> Any:
        """Write the port that the dashboard's agent will write when it has started."""
        told = inspect.signature(start_raylet).bind(*given, **named).arguments
        if port := told.get("dashboard_agent_listen_port"):
            name = f"dashboard_agent_listen_port_{told['node_id']}"
            Path(told["session_dir"], name).write_text(str(port))
        return start_raylet(*given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(services, "get_node", patient)
        patch.setattr(services, "start_raylet", start)
        patch.setenv("RAY_worker_register_timeout_seconds", "600")
        patch.setenv("RAY_agent_register_timeout_ms", "600000")
        yield
    # What stands for Ray's processes here warns that they have not been waited for.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.unfreeze()
        gc.collect()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("methods") / "methods_on_ray.py"
    path.write_text(METHODS, encoding="utf-8")
    return path


def tiny(updates: int = 12) -> Task:
    table = {
        "name": "tiny",
        "family": "warm-start",
        "data": {"name": "digits", "train": 60},
        "net": {"name": "mlp", "hidden": [16, 12]},
        "optimizer": {"lr": 1e-2},
        "training": {"batch": 16, "points": 2, "stack": 2},
        "phases": [{"new": 0.5, "wrong": w, "updates": updates} for w in (0.5, 0.0)],
    }
    return parse_task(table, "tiny.toml")


def plan_of(out: Path | None, *methods: str, seeds: int = 4, updates: int = 12) -> Plan:
    return make_plan(
        Request((tiny(updates),), methods, tuple(range(seeds)), out=out, checkpoint_seconds=0.05)
    )


def by_run(records: list[Record]) -> dict[tuple[str, int], Record]:
    runs = {(record["method"], record["seed"]): without_cost(record) for record in records}
    assert len(runs) == len(records), "a run came twice"
    return runs


def execute(
    plan: Plan,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int], None] = lambda steps: None,
    **request: Any,
) -> Outcome:
    executor = RayExecutor(ExecutorRequest("ray", **request), lambda sentence: None)
    return executor.execute(plan.jobs, progress, NO_LIMIT, stop)


# ---- one node ----


def node_of_one_cpu() -> dict[str, Any]:
    """Return a node's settings: with ports chosen, it need not wait for its agents to start."""
    kinds = ("metrics_agent", "metrics_export", "dashboard_agent_listen", "runtime_env_agent")
    with contextlib.ExitStack() as sockets:
        free = [sockets.enter_context(socket.socket()) for _ in kinds]
        for each in free:
            each.bind(("", 0))
        ports = {
            f"{kind}_port": each.getsockname()[1] for kind, each in zip(kinds, free, strict=True)
        }
    spared = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
    return {"num_cpus": 1, **spared, **ports}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that trains one stack at a time; tests add nodes."""
    made = cluster_utils.Cluster(initialize_head=True, head_node_args=node_of_one_cpu())
    yield made
    made.shutdown()


@dataclass
class Ran:
    """What ran on Ray, what it announced, the same here, and the folder."""

    ray: Finished
    here: Finished
    said: list[str]
    out: Path


@pytest.fixture(scope="module")
def ran(file: Path, cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Two sound methods, one that fails, and one whose worker is killed once."""
    out, said = tmp_path_factory.mktemp("ray"), list[str]()
    ending = [f"{file}:Ending"]
    plan = plan_of(out, "none", "hare-tortoise", f"{file}:Raises", *ending)
    request = ExecutorRequest("ray", address=cluster.address)
    done = run_plan(plan, request, progress=False, announce=said.append)
    here = run_plan(plan_of(None, "none", "hare-tortoise", *ending), 1, progress=False)
    return Ran(done, here, said, out)


def test_ray_equals_one_process_bit_for_bit(ran: Ran) -> None:
    """The stack whose worker was killed too, which was trained on."""
    here = by_run(ran.here.records)
    assert len(here) == 12
    assert by_run(ran.ray.records) == here == by_run(read_runs(ran.out)[0])
    assert len(list(ran.out.rglob("events.out.tfevents.*"))) >= 12
    assert not list(ran.out.rglob("*.pt*")) and not list(ran.out.rglob(".shared*"))
    assert not ray.is_initialized()


def test_a_killed_worker_is_announced(ran: Ran) -> None:
    [sentence] = ran.said
    assert "Ray worker" in sentence and "'Ending'" in sentence and "trained on" in sentence


def test_a_failing_method_is_named_with_its_line(ran: Ran, file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    line = next(n for n, text in enumerate(lines, 1) if text.endswith("# Raises"))
    assert len(ran.ray.failures) == 2  # one a stack
    for sentence in ran.ray.failures:
        assert f"failed on tiny with ZeroDivisionError: the sky fell ({file}, line {line})" in (
            sentence
        )
        assert isinstance(sentence.cause, ZeroDivisionError)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'ht-bench\[ray\]'"):
        execute(plan_of(None, "none"))


def test_an_address_where_nothing_listens_is_one_sentence() -> None:
    began = time.monotonic()
    for address in ("127.0.0.1:9", "ray://127.0.0.1:9"):
        with pytest.raises(UsageError, match=f"No Ray cluster answers at {address}"):
            execute(plan_of(None, "none"), address=address)
    assert time.monotonic() - began < 30


def test_parts_of_several_gpus_are_refused() -> None:
    with pytest.raises(UsageError, match="a fraction of one GPU, or whole ones"):
        RayExecutor(ExecutorRequest("ray", gpus=1.5), lambda sentence: None)


# ---- a cluster of two nodes ----


@pytest.fixture
def two(cluster: Any) -> Iterator[Any]:
    """The second node of the cluster."""
    node = cluster.add_node(**node_of_one_cpu())
    cluster.wait_for_nodes()
    yield node
    with contextlib.suppress(Exception):  # it is gone
        cluster.remove_node(node, allow_graceful=False)


def wait_for(happened: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "never happened"
        time.sleep(0.05)


def once(happened: Callable[[], bool], act: Callable[[], None]) -> Callable[[], bool]:
    """Return a stop that never stops, and acts when something has happened."""
    acted: list[bool] = []

    def look() -> bool:
        if not acted and happened():
            acted.append(True)
            act()
        return False

    return look


@pytest.mark.evidence
def test_a_node_is_removed_while_work_runs(
    cluster: Any, two: Any, file: Path, tmp_path: Path
) -> None:
    """Every run is finished exactly once, and its bits are those of a run here."""
    plan = plan_of(tmp_path, f"{file}:Slow", seeds=12, updates=200)
    before = set(file.parent.glob("slow-*"))

    def both_train() -> bool:
        return len(set(file.parent.glob("slow-*")) - before) >= 2 and any(tmp_path.rglob("*.pt"))

    removed: list[bool] = []

    def remove() -> None:
        cluster.remove_node(two, allow_graceful=False)
        removed.append(True)

    told: list[int] = []
    outcome = execute(plan, once(both_train, remove), told.append, address=cluster.address)
    assert sum(told) == plan.steps  # steps that are done once more are told once
    assert removed and not outcome.failures and not outcome.left and not outcome.busy
    here = by_run(run_plan(plan_of(None, f"{file}:Slow", seeds=12, updates=200), 1, False).records)
    assert by_run(outcome.records) == here == by_run(read_runs(tmp_path)[0])


@contextlib.contextmanager
def hidden(folders: Any) -> Iterator[dict[str, str]]:
    """As `marked`, of folders that no node sees."""
    yield {str(folder / ".shared-not"): "elsewhere" for folder in set(folders)}


@pytest.mark.evidence
def test_without_a_shared_folder_results_come_back(
    cluster: Any, two: Any, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle: checkpoints come back too, and the next call goes on from them."""
    monkeypatch.setattr(on_ray, "marked", hidden)
    plan = plan_of(tmp_path, f"{file}:Slow", updates=500)
    before = set(file.parent.glob("slow-*"))
    begun: list[float] = []

    def stop() -> bool:
        if not begun and len(set(file.parent.glob("slow-*")) - before) >= 2:
            begun.append(time.monotonic())
        return bool(begun) and time.monotonic() - begun[0] > 1

    outcome = execute(plan, stop, address=cluster.address)
    assert outcome.interrupted and len(outcome.left) == 2 and not outcome.failures
    assert all(0 < left.share < 1 and left.job in plan.jobs for left in outcome.left)
    assert len(list(tmp_path.rglob("stack-*.pt"))) == 2
    again = execute(plan, address=cluster.address)
    assert not again.failures and not again.left
    assert not list(tmp_path.rglob("*.pt*"))
    assert len(list(tmp_path.rglob("events.out.tfevents.*"))) >= 4
    here = by_run(run_plan(plan_of(None, f"{file}:Slow", updates=500), 1, False).records)
    assert by_run(again.records) == here == by_run(read_runs(tmp_path)[0])
    assert by_run(execute(plan, address=cluster.address).records) == here  # read, not trained


@pytest.mark.evidence
@pytest.mark.parametrize("shared", [True, False])
def test_what_another_runner_trains_is_busy(
    cluster: Any, shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shared:
        monkeypatch.setattr(on_ray, "marked", hidden)
    plan = plan_of(tmp_path, "none")
    with locked(plan.jobs[0].seed_folders[:1]):
        outcome = execute(plan, address=cluster.address)
    assert outcome.busy == [plan.jobs[0]] and len(outcome.records) == 2


@pytest.mark.evidence
def test_a_terminated_worker_saves_and_is_taken_up_again(
    cluster: Any, file: Path, tmp_path: Path
) -> None:
    method = make_plan(
        Request(
            (tiny(),),
            (f"{file}:Ending",),
            (0, 1),
            out=tmp_path,
            overrides={"number": int(signal.SIGTERM)},
            checkpoint_seconds=1000,
        )
    )
    outcome = execute(method, address=cluster.address)
    assert not outcome.failures and not outcome.left and len(outcome.records) == 2
    assert file.with_name("ended-15").exists()


@pytest.mark.evidence
def test_what_no_node_has_is_one_sentence_at_once(cluster: Any) -> None:
    began = time.monotonic()
    with pytest.raises(UsageError, match=r"No node of the Ray cluster has the 64 CPU\(s\)"):
        execute(plan_of(None, "none"), address=cluster.address, cpus=64)
    assert time.monotonic() - began < 30


@pytest.mark.evidence
def test_nodes_of_another_version_train_nothing(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray_worker, "VERSION", "0.1.9")  # the driver's alone
    outcome = execute(plan_of(None, "none"), address=cluster.address)
    assert not outcome.records
    [sentence] = outcome.failures
    assert "2 stack(s) of seeds were not trained" in sentence and "1 left out" in sentence


# ---- the command ----


@pytest.mark.evidence
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("where", ["cluster", "local"])
def test_a_signal_to_the_command(
    where: str, number: int, file: Path, cluster: Any, tmp_path: Path
) -> None:
    """Ctrl-C as a terminal's, to all processes: what trains is saved, and a local Ray is gone."""
    words = ["run", "--task", "permuted-digits-v1", "--method", f"{file}:Slow", "--seeds", "0-19"]
    words += ["--out", str(tmp_path), "--executor", "ray", "--checkpoint-seconds", "0.2"]
    words += ["--address", cluster.address] if where == "cluster" else []
    process = subprocess.Popen(
        [sys.executable, "-m", "ht_bench", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    session = process.pid
    wait_for(lambda: any(tmp_path.rglob("*.pt")))
    if number == signal.SIGINT:
        os.killpg(session, number)
    else:
        process.send_signal(number)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == {2: 130, 15: 143, 9: -9}[number], said
    assert "Traceback" not in said, said
    if number != signal.SIGKILL:
        assert "the same command goes on from the last checkpoints" in said
    assert any(tmp_path.rglob("stack-*.pt"))

    def gone() -> bool:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(session, 0)
            return False
        return True

    wait_for(gone, 180)  # Ray's agents look for their raylet once a minute
