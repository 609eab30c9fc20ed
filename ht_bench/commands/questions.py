"""ht-bench questions: the open questions, their runs and their answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from ht_bench.errors import UsageError, did_you_mean


def questions(
    folder: Annotated[Path, tyro.conf.Positional] = Path("docs/questions"),
    name: str = "",
    run: bool = False,
    write: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "cpu",
    jobs: int = 0,
    time_limit: Annotated[str, tyro.conf.arg(name="for", metavar="TIME")] = "",
    out: Path = Path("runs/questions"),
    details: bool = False,
) -> int:
    """Answer questions that were written down before their runs: effect, interval, n, verdict.

    FOLDER holds a TOML file for each: its hypothesis, cells (a method on tasks), contrasts of
    cells, and when it stops. Without --run the answers come from the runs committed beside them in
    answers.json.

    Example: ht-bench questions

    Example, what fifteen minutes answer: ht-bench questions --run --for 14m --write

    Args:
        folder: where the questions are.
        name: of the questions, separated by commas; all that the device can answer if left out.
        run: train what is missing, and answer from the runs in --out.
        write: write the final metrics of --out's runs into FOLDER/answers.json.
        device: where to train; questions that need CUDA are left out on a CPU.
        jobs: processes; 0 takes one per core that the process may use.
        time_limit: stop in time, e.g. after 12m; the same command goes on.
        out: the folder of the runs.
        details: also print each task's effect, and what every cell ended at.

    """
    from ht_bench.views.answers import tell, to_text

    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder of questions; name one, as docs/questions.")
    _check(folder, name)
    if not run and not write:
        shown = [one for one in tell(folder) if _is_asked(one.question.name, name)]
        print(to_text(shown, details), end="")
        return 0
    return _from_runs(folder, name, (run, write, details), device, (jobs, time_limit), out)


def _check(folder: Path, names: str) -> None:
    from ht_bench.ranking.questions import read_questions

    known = read_questions(folder)
    for each in filter(None, (word.strip() for word in names.split(","))):
        if each not in known:
            raise UsageError(
                f"There is no question '{each}' in {folder}.{did_you_mean(each, known)} It holds "
                f"{', '.join(known)}."
            )


def _is_asked(name: str, names: str) -> bool:
    return not names or name in [each.strip() for each in names.split(",")]


def _from_runs(
    folder: Path,
    names: str,
    acts: tuple[bool, bool, bool],
    device: Literal["auto", "cpu", "cuda"],
    effort: tuple[int, str],
    out: Path,
) -> int:
    from ht_bench.commands.run import announce, report
    from ht_bench.ranking.questions import read_answers, read_questions
    from ht_bench.running.asking import collect, joined, plans, write_answers
    from ht_bench.running.compute import ComputeRequest
    from ht_bench.running.evaluate import run_plan
    from ht_bench.running.time_limit import NO_LIMIT, TimeLimit, parse_duration
    from ht_bench.views.answers import tell, to_text

    known = read_questions(folder)
    able = {"cpu"} if device == "cpu" else {"cpu", "cuda"}
    asked = {
        question.name: question
        for question in known.values()
        if (_is_asked(question.name, names) if names else question.needs in able)
    }
    compute = ComputeRequest(device)
    code, (run, write, details), (jobs, time_limit) = 0, acts, effort
    if run:
        limit = TimeLimit(parse_duration(time_limit, "--for")) if time_limit else NO_LIMIT
        plan = joined([one for q in asked.values() for one in plans(q, folder, compute, out)])
        cells = sum(len(question.cells) for question in asked.values())
        announce(plan, len({job.task.name for job in plan.jobs}), cells, jobs)
        done = run_plan(plan, jobs, limit=limit, brief=True)
        code = report(done.records, done.failures, out)
    runs = {q.name: collect(q, plans(q, folder, compute, out)) for q in asked.values()}
    answered = read_answers(folder)
    if write:
        print(f"Wrote {write_answers(folder, {**answered, **runs})}.")
    # Verdicts hold one error over all that were answered, not over those of this command alone.
    shown = [one for one in tell(folder, {**answered, **runs}) if one.question.name in asked]
    print(to_text(shown, details), end="")
    return code
