"""The processors that a process may use are those it was given, not the machine's."""

import os
from pathlib import Path

import pytest

from ht_bench.running.cores import available_cores


@pytest.fixture(autouse=True)
def _large_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(48)), raising=False)
    monkeypatch.delattr(os, "process_cpu_count", raising=False)


def groups(root: Path, line: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": line, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="ascii")
    return root


V1 = "sys/fs/cgroup/cpu/job/cpu.cfs_{}_us"


@pytest.mark.parametrize(
    ("line", "files", "cores"),
    [
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000\n"}, 48),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ("0::/a/b\n", {"sys/fs/cgroup/a/cpu.max": "200000 100000\n"}, 2),
        ("0::/gone/in/here\n", {"sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3),
        ("4:cpu,cpuacct:/job\n", {V1.format("quota"): "500000", V1.format("period"): "100000"}, 5),
        ("4:cpu,cpuacct:/job\n", {V1.format("quota"): "-1", V1.format("period"): "100000"}, 48),
        ("7:memory:/job\n", {}, 48),
    ],
)
def test_a_containers_quota_counts(
    line: str, files: dict[str, str], cores: int, tmp_path: Path
) -> None:
    assert available_cores({}, groups(tmp_path, line, files)) == cores


@pytest.mark.parametrize(
    ("environment", "cores"),
    [
        ({"SLURM_CPUS_PER_TASK": "6", "SLURM_CPUS_ON_NODE": "32"}, 6),
        ({"SLURM_CPUS_ON_NODE": "32"}, 32),
        ({"NSLOTS": "3"}, 3),
        ({"SLURM_CPUS_PER_TASK": "many"}, 48),
    ],
)
def test_a_schedulers_share_counts(environment: dict[str, str], cores: int, tmp_path: Path) -> None:
    assert available_cores(environment, tmp_path) == cores


def test_where_the_system_tells_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows and macOS know no affinity, Python 3.13 has its own count."""
    monkeypatch.delattr(os, "sched_getaffinity")
    assert available_cores({}, tmp_path) == 64
    monkeypatch.setattr(os, "process_cpu_count", lambda: 7, raising=False)
    assert available_cores({}, tmp_path) == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores({}, tmp_path) == 1
