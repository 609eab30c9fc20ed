"""The runs of the open questions: what they need, what is there, and their final metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ht_bench.files import write_atomically
from ht_bench.ranking.entries import epoch
from ht_bench.ranking.pairs import FULL_RESET, NONE
from ht_bench.ranking.questions import ANSWERS, Cell, Question, Runs
from ht_bench.records.metrics import final_metric
from ht_bench.records.record import read_record
from ht_bench.running.compute import ComputeRequest
from ht_bench.running.plan import Plan, Request, make_plan
from ht_bench.streams.catalog import get_task
from ht_bench.streams.seeds import parse_seeds


@dataclass(frozen=True)
class Asked:
    """A cell's runs on one task. name: the cell's, or an anchor's."""

    question: str
    name: str
    task: str
    family: str
    plan: Plan


def plans(question: Question, folder: Path, compute: ComputeRequest, out: Path) -> list[Asked]:
    """Return the plan of every cell on every task, and of the anchors where they are needed.

    folder: the question's, from which paths of tasks and methods are taken. Raises UsageError as
    `make_plan` does.
    """
    anchors = {name: Cell(name, tuple(question.anchored())) for name in (NONE, FULL_RESET)}
    found = []
    for name, cell in {**anchors, **question.cells}.items():
        for task in cell.tasks:
            spec = get_task(_beside(task, folder))
            request = Request(
                tasks=(spec,),
                methods=(_beside(cell.method, folder),),
                seeds=parse_seeds(question.seeds, "seeds") if question.seeds else None,
                compute=compute,
                out=out,
                overrides=cell.set or None,
                tensorboard=False,
            )
            found.append(Asked(question.name, name, task, spec.family, make_plan(request)))
    return found


def _beside(name: str, folder: Path) -> str:
    """Return a file's name from where the question's file stands; other names as they are."""
    file, colon, inside = name.partition(":")
    if file.endswith((".toml", ".py")):
        return f"{folder / file}{colon}{inside}"
    return name


def joined(asked: Sequence[Asked]) -> Plan:
    """Return one plan of all that is asked, every stack once: questions share cells."""
    jobs = {(str(job.folder), job.seeds): job for one in asked for job in one.plan.jobs}
    finished = {path: None for one in asked for path in one.plan.finished}
    left = [one.plan for one in asked]
    steps = {
        (str(job.folder), job.seeds): plan.steps // len(plan.jobs)
        for plan in left
        for job in plan.jobs
    }
    return Plan(
        tuple(jobs.values()),
        tuple(finished),
        len(finished) + sum(len(job.seeds) for job in jobs.values()),
        sum(steps.values()),
        tuple(dict.fromkeys(note for plan in left for note in plan.notes)),
        tuple(dict.fromkeys(note for plan in left for note in plan.remarks)),
    )


def collect(question: Question, asked: Sequence[Asked]) -> Runs:
    """Return the final metrics of a question's finished runs, and what they were made on."""
    finals: dict[str, dict[str, dict[int, float]]] = {}
    record: dict[str, Any] = {}
    for one in asked:
        for path in one.plan.finished:
            record = read_record(path)
            value = final_metric(record, one.family, record["classes"])
            finals.setdefault(one.name, {}).setdefault(one.task, {})[record["seed"]] = value
    software, hardware = record.get("software", {}), record.get("hardware", {})
    return Runs(finals, question.sha256, epoch(record) if record else "", software, hardware)


def write_answers(folder: Path, runs: Mapping[str, Runs]) -> Path:
    """Write what was found beside the questions; returns the file."""
    content = {
        name: {
            "sha256": each.sha256,
            "benchmark": each.benchmark,
            "software": dict(each.software),
            "hardware": dict(each.hardware),
            "finals": each.finals,
        }
        for name, each in runs.items()
    }
    path = folder / ANSWERS
    write_atomically(path, json.dumps(content, indent=1, sort_keys=True) + "\n")
    return path
