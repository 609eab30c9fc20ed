"""ht-bench tune: choose hyperparameters on tuning seeds and the validation split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ht_bench.commands.naming import find_methods, find_tasks
from ht_bench.commands.run import announce
from ht_bench.errors import UsageError

if TYPE_CHECKING:
    from ht_bench.running.tune import Search


def tune(
    task: str = "",
    method: str = "",
    seeds: str = "0-4",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto",
    jobs: int = 0,
    out: Path = Path("runs-tuning"),
    write: bool = False,
) -> int:
    """Search each method's grid on tuning seeds (0 to 99), scored on the validation split.

    Every method gets the same budget: at most 12 configurations on the same seeds.
    Example: ht-bench tune --task warm-start-digits-v1 --method hare-tortoise,l2 --write.

    Args:
        task: one task's name or TOML file.
        method: methods with a recipe, separated by commas, or "all".
        seeds: tuning seeds.
        device: where to train; auto takes a CUDA device if the task gains from one.
        precision: fp32, tf32 (CUDA alone), or bf16 by autocast; auto is the task's own.
        jobs: processes; 0 takes one per core that the process may use, on CUDA as many as a short
            trial finds to fill the card.
        out: the folder for the runs; the same command goes on from it.
        write: record the search and its choice in baselines/<method>.toml.

    """
    tasks = find_tasks(task, "")
    if len(tasks) != 1:
        raise UsageError("Tune one task at a time: --task NAME.")
    methods = find_methods(method)

    from ht_bench.running.compute import ComputeRequest, choose
    from ht_bench.running.plan import Request
    from ht_bench.running.tune import search, write_recipe
    from ht_bench.streams.seeds import parse_seeds
    from ht_bench.training.device import software

    if jobs < 0:
        raise UsageError(f"--jobs {jobs}: give 1 or more, or 0 to have it chosen.")
    compute = ComputeRequest(device, precision)
    request = Request(
        tasks=tuple(tasks),
        methods=(),
        seeds=parse_seeds(seeds),
        compute=compute,
        out=out,
        tensorboard=False,
    )
    for found in search(methods, request, jobs, announce=announce):
        _print(found)
        if write:
            versions = software(choose(tasks[0], compute))
            path = write_recipe(found, {k: versions[k] for k in ("torch", "numpy")})
            print(f"Recorded in {path}.")
    return 0


def _print(found: Search) -> None:
    print(f"{found.method} on {found.task.name}:")
    for trial in found.trials:
        mark = "*" if trial is found.best else " "
        settings = ", ".join(f"{k} = {v}" for k, v in trial.hyperparameters.items()) or "(none)"
        print(f" {mark} {trial.mean:.4f} ± {trial.standard_error:.4f}  {settings}")
