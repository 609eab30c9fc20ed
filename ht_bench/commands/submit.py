"""ht-bench submit: finished runs → one submission file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import tyro

from ht_bench.commands.naming import words
from ht_bench.errors import UsageError


def submit(
    runs: Annotated[Path, tyro.conf.Positional] = Path("runs"),
    method: str = "",
    out: Path | None = None,
    authors: str = "",
    name: str = "",
    link: str = "",
    summary: str = "",
    citation: str = "",
    tuning: str = "",
    tuning_runs: int | None = None,
    task: str = "",
    variant: str = "",
    replace: bool = False,
    extend: bool = False,
) -> int:
    """Write a leaderboard submission from finished runs: raw curves per seed, and no score.

    Runs must be on the test split and hold all evaluation seeds of every task; what is missing is
    named with the command that makes it.

    Example: ht-bench submit runs --method my_method.py:MyMethod --authors "A. Author, B. Author"
    --link https://example.org/paper --tuning "grid of 12 on seeds 0-4, validation split"
    --tuning-runs 180 --out leaderboard/submissions/my-method.json

    Args:
        runs: the folder that `ht-bench run --out` filled.
        method: the method's name, or file.py:Class or a recipe's file as given to `ht-bench run`.
        out: the file to write, leaderboard/submissions/NAME.json; its name is the entry's.
        authors: who submits, separated by commas.
        name: the entry's name; the file's if left out.
        link: a paper or a repository.
        summary: what the method does, in a sentence; a recipe's if there is one.
        citation: how to cite it; a recipe's source if there is one.
        tuning: how the hyperparameters were chosen, in words; a recipe's search if there is one.
        tuning_runs: how many training runs that took.
        task: only these tasks, by name or TOML file, separated by commas; all that the method was
            run on if left out.
        variant: for methods that were run with several sets of hyperparameters, the digits at the
            end of the run folders to take, separated by commas.
        replace: write over an existing file.
        extend: add tasks to an existing file, as when a suite is new: its other tasks are kept,
            and what it says of the method need not be said again.

    """
    from ht_bench.leaderboard.choosing import Choice
    from ht_bench.leaderboard.submit import About, make_submission, write_submission

    if not method:
        raise UsageError("Name the method: --method my_method.py:MyMethod, or a name.")
    if extend and replace:
        raise UsageError("--extend keeps the file's other tasks, --replace drops them: give one.")
    path = _target(out, name, replace or extend)
    own, traits, defaults, source = _find(method)
    files = _own_tasks(task)
    tasks = tuple(
        dict.fromkeys([*(each for each in words(task) if each not in files.values()), *files])
    )
    choice = Choice(own, tasks, words(variant), method, defaults, source, files)
    if not authors and not extend:
        raise UsageError('Say who submits: --authors "A. Author, B. Author".')
    about = About(
        name=path.stem,
        authors=words(authors),
        link=link,
        summary=summary,
        citation=citation,
        how=tuning,
        runs=tuning_runs,
        traits=traits,
        recipe=method if method.endswith(".toml") else "",
    )
    content = make_submission(runs, choice, about, path if extend else None)
    write_submission(path, content)
    seeds = sum(len(table["seeds"]) for table in content["tasks"].values())
    size = path.stat().st_size / 1024
    print(f"Wrote {path}: {len(content['tasks'])} task(s), {seeds} runs, {size:.0f} KiB.")
    named = f" --task {','.join(files.values())}" if files else ""
    print(f"Next: ht-bench verify {path}{named}")
    return 0


def _own_tasks(text: str) -> dict[str, str]:
    """Return a user's own tasks by name, which are known by it from then on, as they were named."""
    from ht_bench.loading import is_reference
    from ht_bench.streams.catalog import adopt_task

    own = [each for each in words(text) if each.endswith(".toml") or is_reference(each)]
    return {adopt_task(each).name: each for each in own}


def _target(out: Path | None, name: str, replace: bool) -> Path:
    if out is None:
        raise UsageError("Name the file to write: --out leaderboard/submissions/NAME.json.")
    if out.suffix != ".json":
        raise UsageError(f"--out {out}: a submission is a .json file; write {out.stem}.json.")
    if name and name != out.stem:
        raise UsageError(
            f"--name {name}: the file carries the entry's name; write --out "
            f"{out.parent / (Path(name).name + '.json')}."
        )
    if out.exists() and not replace:
        raise UsageError(
            f"{out} exists; add --replace to write over it, or --extend to add tasks to it."
        )
    return out


def _find(method: str) -> tuple[str, dict[str, Any] | None, dict[str, Any], str]:
    """Return the name that the runs carry; the class's traits and defaults if it is at hand.

    Last the digest of its code, where it is named by its file.
    """
    from dataclasses import MISSING, fields

    from ht_bench import registry
    from ht_bench.methods.recipe import recipe_names, split_regime
    from ht_bench.methods.resolve import find_class, resolve

    own_file = ":" in method or method.endswith(".toml")
    known = (*registry.methods.names(), *recipe_names())
    if not own_file and split_regime(method)[0] not in known:
        return method, None, {}, ""
    spec = resolve(method)
    own = fields(find_class(method))
    defaults = {f.name: f.default for f in own if f.init and f.default is not MISSING}
    return spec.name, spec.traits(), defaults, spec.source_sha256 if ":" in method else ""
