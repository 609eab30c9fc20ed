"""What `--slurm key=value …` may say: Slurm's own settings, by submitit's names, and ours."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ht_bench.errors import UsageError, did_you_mean, shown
from ht_bench.running.executor import ExecutorRequest
from ht_bench.running.time_limit import parse_duration

MINUTES = 120
"""The time limit of a job where none is given; what it does not finish goes on in the next."""
MOST_TIMEOUTS = 100
"""How often a job is queued again because its time was up."""
GPU_SETTINGS = ("gpus_per_node", "gpus_per_task", "mem_per_gpu", "cpus_per_gpu")


def _text(value: Any) -> str:
    if isinstance(value, str | int | float) and not isinstance(value, bool) and str(value):
        return str(value)
    raise ValueError("a text")


def _count(value: Any) -> int:
    number = int(str(value))
    if number < 1:
        raise ValueError("a number from 1 on")
    return number


def _amount(value: Any) -> float:
    number = float(str(value))
    if not 0 < number < math.inf:
        raise ValueError("a number above 0")
    return number


def _flag(value: Any) -> bool:
    words = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
    return words[str(value).lower()]


def _flag_or_text(value: Any) -> bool | str:
    return value if isinstance(value, bool) else _text(value)


def _lines(value: Any) -> list[str]:
    return [_text(line) for line in (value if isinstance(value, list | tuple) else [value])]


def _words(value: Any) -> list[str]:
    return shlex.split(_text(value))


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("a table")
    return dict(value)


def _cluster(value: Any) -> str:
    if value not in ("slurm", "local"):
        raise ValueError("slurm or local")
    return str(value)


def minutes(value: Any) -> int:
    """Return the minutes of 120, "2h", "90m", or Slurm's "2:00:00" and "1-12:00:00"; rounded up."""
    text = str(value).strip()
    if clock := re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?", text):
        days, *rest = (int(part or 0) for part in clock.groups())
        hours, mins, seconds = rest if clock[4] or clock[1] else (0, *rest[:2])
        return max(1, math.ceil(days * 1440 + hours * 60 + mins + seconds / 60))
    number = text if re.search("[hms]", text) else f"{text}m"
    return max(1, math.ceil(parse_duration(number, "time") / 60))


Reader = Callable[[Any], Any]
READERS: dict[str, tuple[Reader, str]] = {
    **dict.fromkeys(
        ("partition", "account", "qos", "constraint", "nodelist", "exclude", "comment", "gres"),
        (_text, "a text"),
    ),
    **dict.fromkeys(
        ("name", "wckey", "dependency", "mail_type", "mail_user", "mem", "mem_per_cpu"),
        (_text, "a text"),
    ),
    "mem_per_gpu": (_text, "a text such as 16GB"),
    **dict.fromkeys(
        ("array_parallelism", "signal_delay_s", "cpus_per_task", "cpus_per_gpu", "gpus_per_node"),
        (_count, "a number from 1 on"),
    ),
    **dict.fromkeys(
        ("gpus_per_task", "max_num_timeout", "stacks_per_job", "stacks_at_once"),
        (_count, "a number from 1 on"),
    ),
    "mem_gb": (_amount, "a number above 0"),
    "minutes_per_job": (_amount, "a number above 0"),
    "time": (minutes, "minutes, or a time such as 2h or 1-12:00:00"),
    "exclusive": (_flag_or_text, "true, user or mcs"),
    "setup": (_lines, "a line of shell"),
    "teardown": (_lines, "a line of shell"),
    "srun_args": (_words, "srun's options"),
    "additional_parameters": (_table, 'a table of sbatch\'s options, {"reservation": "x"}'),
    "wait": (_flag, "yes or no"),
    "cluster": (_cluster, "slurm, or local for a trial on this machine"),
}
GENERAL = ("name", "mem_gb", "cpus_per_task", "gpus_per_node")
"""Settings that submitit knows for every cluster; it wants `slurm_` before the others."""


@dataclass(frozen=True)
class SlurmSettings:
    """How stacks become Slurm jobs.

    at_once: stacks that one job trains at a time. gpus: of a job whose stacks train on CUDA. cpus:
    of a stack. parallel: jobs that run at a time; 0 leaves it to submitit. stacks_per_job: stacks
    that one job trains in all; 0 has it take what fills `minutes_per_job`. timeouts: how often a
    job is queued again because its time was up. wait: whether to stay until the jobs have ended.
    given: settings by submitit's names, as they were given.
    """

    cluster: str = "slurm"
    wait: bool = True
    at_once: int = 1
    gpus: int = 1
    cpus: int = 1
    parallel: int = 0
    stacks_per_job: int = 0
    minutes_per_job: float = 10.0
    timeouts: int = MOST_TIMEOUTS
    given: Mapping[str, Any] = field(default_factory=dict)

    def parameters(self, device: str, threads: int) -> dict[str, Any]:
        """Return what submitit's AutoExecutor is told for jobs of a device ("cpu" or "cuda").

        threads: CPU threads of a stack. What is given leads over what is derived.
        """
        given = dict(self.given)
        if device == "cpu":
            for key in GPU_SETTINGS:
                given.pop(key, None)
            if str(given.get("gres", "")).startswith("gpu"):
                del given["gres"]
        elif "gpus_per_task" not in given and "gres" not in given:
            given.setdefault("gpus_per_node", self.gpus)
        if "cpus_per_gpu" not in given:
            given.setdefault("cpus_per_task", self.at_once * max(self.cpus, threads))
            # From Slurm 22.05 on srun does not take over what sbatch was told.
            step = ["--cpus-per-task", str(given["cpus_per_task"])]
            given["srun_args"] = [*step, *given.get("srun_args", [])]
        if self.parallel:
            given["array_parallelism"] = self.parallel
        # Preempted jobs and those of failed nodes come back by themselves.
        given["additional_parameters"] = {"requeue": True, **given.get("additional_parameters", {})}
        shared = {"timeout_min": given.pop("time", MINUTES), "name": given.pop("name", "ht-bench")}
        shared |= {key: given.pop(key) for key in GENERAL if key in given}
        return {**shared, **{f"slurm_{key}": value for key, value in given.items()}}


def read_settings(request: ExecutorRequest) -> SlurmSettings:
    """Return the settings of a request; raises UsageError for a key or a value that is none."""
    given = {key: _read(key, value) for key, value in request.options.items()}
    shared = request.gpus is not None and 0 < request.gpus < 1
    if request.gpus is not None and request.gpus > 1 and request.gpus != int(request.gpus):
        raise UsageError(
            f"--gpus-per-run {request.gpus}: Slurm gives whole GPUs; give 1, or a fraction below 1 "
            "to have stacks share one."
        )
    packed = math.floor(1 / request.gpus + 1e-9) if shared and request.gpus else 1
    if request.workers and "array_parallelism" in given:
        raise UsageError("--jobs and --slurm array_parallelism say the same; leave one out.")
    at_once = given.pop("stacks_at_once", packed)
    settings = SlurmSettings(
        cluster=given.pop("cluster", "slurm"),
        wait=given.pop("wait", True),
        at_once=at_once,
        gpus=math.ceil(at_once * (1 if request.gpus is None else request.gpus) - 1e-9),
        cpus=request.cpus,
        parallel=request.workers,
        stacks_per_job=given.pop("stacks_per_job", 0),
        minutes_per_job=given.pop("minutes_per_job", 10.0),
        timeouts=given.pop("max_num_timeout", MOST_TIMEOUTS),
        given=given,
    )
    _check_time(given)
    if settings.cluster == "local" and not settings.wait:
        raise UsageError("--slurm cluster=local wait=no: a trial ends with this process; wait.")
    return settings


def _read(key: str, value: Any) -> Any:
    if key not in READERS:
        raise UsageError(
            f"--slurm {key}: there is no such setting.{did_you_mean(key, READERS)} There are "
            f"{', '.join(sorted(READERS))}; sbatch's other options go into additional_parameters."
        )
    reader, what = READERS[key]
    try:
        return reader(value)
    except (ValueError, KeyError, OverflowError) as error:
        raise UsageError(f"--slurm {key}={shown(value)}: give {what}.") from error


def _check_time(given: Mapping[str, Any]) -> None:
    """Raise UsageError where the signal to save comes before there is anything to save."""
    limit, delay = given.get("time", MINUTES), given.get("signal_delay_s", 90)
    if 60 * limit < 2 * delay:
        raise UsageError(
            f"--slurm time={limit}: too short a time (minutes) for jobs that are told to save "
            f"{delay} seconds before its end; give more, or a smaller signal_delay_s."
        )
