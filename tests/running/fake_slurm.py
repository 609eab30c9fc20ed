"""Slurm's commands as scripts that note what they are told; jobs run in this process when asked."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shlex
import signal
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from submitit.core.submission import process_job

IDS = itertools.count(7000)
"""submitit remembers the states of jobs by their ids, for the whole process."""
SCRIPTS = {
    "sbatch": """
        if [ -e "$FAKE/refuses" ]; then cat "$FAKE/refuses" >&2; exit 1; fi
        read -r id < "$FAKE/next"; echo $((id + 1)) > "$FAKE/next"
        cp "$1" "$FAKE/$id.sh"
        last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$1")
        if [ -z "$last" ]; then echo "$id"; else seq -f "${id}_%g" 0 "$last"; fi >> "$FAKE/queue"
        echo "Submitted batch job $id"
    """,
    "squeue": """
        if [ -e "$FAKE/mute" ]; then exit 1; fi
        cat "$FAKE/queue"
    """,
    "sacct": """
        echo 'JobID|State|NodeList'; cat "$FAKE/states"
    """,
    "scontrol": """
        echo "$@" >> "$FAKE/requeued"
    """,
    "srun": "",
    "scancel": "",
}


@dataclass
class FakeSlurm:
    """A queue in a folder; `run` plays the node."""

    folder: Path
    ended: set[str] = field(default_factory=set)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Put the commands first on the PATH."""
        bin_folder = self.folder / "bin"
        bin_folder.mkdir(parents=True)
        for name, text in SCRIPTS.items():
            path = bin_folder / name
            path.write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        for name in ("queue", "states", "requeued"):
            (self.folder / name).write_text("", encoding="utf-8")
        (self.folder / "next").write_text(f"{next(IDS) * 100}\n", encoding="utf-8")
        patch.setenv("PATH", f"{bin_folder}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("FAKE", str(self.folder))

    @property
    def scripts(self) -> dict[str, str]:
        """The submitted scripts by the ids of their arrays, or jobs."""
        files = sorted(self.folder.glob("*.sh"), key=lambda file: int(file.stem))
        return {file.stem: file.read_text(encoding="utf-8") for file in files}

    @property
    def jobs(self) -> list[str]:
        """The ids of all jobs, those of an array apart."""
        found = []
        for job, text in self.scripts.items():
            array = re.search(r"--array=0-(\d+)", text)
            found += [f"{job}_{n}" for n in range(int(array[1]) + 1)] if array else [job]
        return found

    @property
    def waiting(self) -> list[str]:
        return [job for job in self.jobs if job not in self.ended]

    def update(self) -> None:
        """Let squeue know of what was submitted."""
        (self.folder / "queue").write_text("".join(f"{j}\n" for j in self.waiting), "utf-8")

    def end(self, job: str, state: str, says: str = "") -> None:
        """Let a job vanish from the queue."""
        self.ended.add(job)
        self.update()
        with (self.folder / "states").open("a", encoding="utf-8") as file:
            file.write(f"{job}|{state}|node1\n")
        if says:
            log = self.logs(job) / f"{job}_0_log.err"
            log.write_text(says, encoding="utf-8")

    def logs(self, job: str) -> Path:
        """The folder that submitit's part in the script names."""
        [line] = [
            line
            for line in self.scripts[job.split("_")[0]].splitlines()
            if "submitit.core._submit" in line
        ]
        return Path(shlex.split(line)[-1])

    @contextlib.contextmanager
    def on_node(self, job: str) -> Iterator[None]:
        """The environment of a job; signal handlers are as before afterwards."""
        array, _, task = job.partition("_")
        environment = {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": job.replace("_", "0")}
        if task:
            environment |= {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": task}
        numbers = (signal.SIGUSR2, signal.SIGTERM, signal.SIGCONT, signal.SIGINT)
        handlers = {number: signal.getsignal(number) for number in numbers}
        with pytest.MonkeyPatch.context() as patch:
            for key, value in environment.items():
                patch.setenv(key, value)
            try:
                yield
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)

    def run(self, job: str) -> bool:
        """Run a job as its script would; returns whether it ended, for it may queue again."""
        with self.on_node(job):
            try:
                process_job(self.logs(job))
            except SystemExit:
                return False
        self.end(job, "COMPLETED")
        return True

    def requeued(self) -> list[str]:
        return (self.folder / "requeued").read_text(encoding="utf-8").split("\n")[:-1]


def directives(script: str) -> dict[str, str]:
    """The options of a batch script."""
    found = re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", script, re.MULTILINE)
    return {name: " ".join(shlex.split(value)) for name, value in found}
