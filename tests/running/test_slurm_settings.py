"""`--slurm key=value …`: what is understood, what is refused, and what submitit is told."""

from __future__ import annotations

from typing import Any

import pytest

from ht_bench.errors import UsageError
from ht_bench.running.executor import ExecutorRequest
from ht_bench.running.slurm_settings import SlurmSettings, minutes, read_settings


def settings(gpus: float | None = None, workers: int = 0, cpus: int = 1, **given: Any) -> Any:
    return read_settings(
        ExecutorRequest("slurm", workers=workers, cpus=cpus, gpus=gpus, options=given)
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (120, 120),
        ("120", 120),
        ("2h", 120),
        ("90s", 2),
        ("2:00:00", 120),
        ("1-12:00:00", 2160),
        ("30:00", 30),
        ("2-1:30", 2970),
    ],
)
def test_times(text: Any, expected: int) -> None:
    assert minutes(text) == expected


def test_texts_of_the_command_line_become_submitits_values() -> None:
    read = settings(
        partition="gpu",
        time="4h",
        mem_gb="16",
        array_parallelism="32",
        setup="module load cuda",
        wait="no",
        srun_args="--mpi=none -v",
        nodelist=12,
    )
    assert not read.wait and read.cluster == "slurm"
    parameters = read.parameters("cuda", 1)
    assert parameters["timeout_min"] == 240 and parameters["mem_gb"] == 16.0
    assert parameters["slurm_partition"] == "gpu" and parameters["slurm_nodelist"] == "12"
    assert parameters["slurm_array_parallelism"] == 32
    assert parameters["slurm_setup"] == ["module load cuda"]
    assert parameters["slurm_srun_args"] == ["--cpus-per-task", "1", "--mpi=none", "-v"]
    assert parameters["slurm_additional_parameters"] == {"requeue": True}
    assert "wait" not in str(parameters)


def test_a_job_is_given_what_its_stacks_need() -> None:
    assert settings().parameters("cuda", 1)["gpus_per_node"] == 1
    assert "gpus_per_node" not in settings().parameters("cpu", 1)
    assert settings(gpus=2.0).parameters("cuda", 1)["gpus_per_node"] == 2
    assert settings(cpus=4).parameters("cpu", 2)["cpus_per_task"] == 4
    assert settings(cpus=1).parameters("cpu", 8)["cpus_per_task"] == 8
    assert settings(workers=6).parameters("cpu", 1)["slurm_array_parallelism"] == 6


def test_a_fraction_of_a_gpu_has_several_stacks_share_one() -> None:
    quarter = settings(gpus=0.25, cpus=2)
    assert quarter.at_once == 4
    assert quarter.parameters("cuda", 1)["gpus_per_node"] == 1
    assert quarter.parameters("cuda", 1)["cpus_per_task"] == 8
    assert settings(gpus=1 / 3).at_once == 3
    assert settings(gpus=1 / 3).parameters("cuda", 1)["gpus_per_node"] == 1
    assert settings(gpus=0.25, stacks_at_once=8).parameters("cuda", 1)["gpus_per_node"] == 2
    node = settings(stacks_at_once=8)
    assert node.at_once == 8 and node.parameters("cuda", 1)["gpus_per_node"] == 8


@pytest.mark.parametrize(
    "given", [{"gres": "gpu:a100:1"}, {"gpus_per_task": 1}, {"gpus_per_node": 1}]
)
def test_the_clusters_own_way_to_ask_for_gpus(given: dict[str, Any]) -> None:
    cuda, cpu = settings(**given).parameters("cuda", 1), settings(**given).parameters("cpu", 1)
    asks = [key for key in cuda if "gres" in key or "gpus_per" in key]
    assert len(asks) == 1 and not [key for key in cpu if "gres" in key or "gpu" in key]


def test_own_options_of_sbatch_join_the_requeue() -> None:
    read = settings(additional_parameters={"reservation": "course"})
    parameters = read.parameters("cpu", 1)
    assert parameters["slurm_additional_parameters"] == {"requeue": True, "reservation": "course"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"partitoin": "gpu"}, "partitoin: there is no such setting. Did you mean 'partition'?"),
        ({"tmie": 3}, "Did you mean 'time'?"),
        ({"mem_gb": "lots"}, "mem_gb='lots': give a number above 0"),
        ({"mem_gb": "nan"}, "give a number above 0"),
        ({"array_parallelism": 0}, "give a number from 1 on"),
        ({"time": "soon"}, "time='soon': give minutes, or a time such as 2h"),
        ({"time": 2}, "too short a time"),
        ({"wait": "perhaps"}, "give yes or no"),
        ({"cluster": "cloud"}, "slurm, or local"),
        ({"partition": ""}, "partition='': give a text"),
        ({"additional_parameters": "x"}, "give a table"),
        ({"cluster": "local", "wait": "no"}, "wait=no"),
        ({"gpus": 1.5}, "whole GPUs"),
        ({"workers": 4, "array_parallelism": 4}, "leave one out"),
    ],
)
def test_refusals_are_sentences(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as refusal:
        settings(**given)
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


def test_every_setting_is_known_to_submitit() -> None:
    from submitit import AutoExecutor, SlurmExecutor

    from ht_bench.running.slurm_settings import GENERAL, READERS

    ours = {"stacks_per_job", "stacks_at_once", "minutes_per_job", "max_num_timeout"}
    theirs = set(READERS) - ours - {"wait", "cluster", *GENERAL}
    assert theirs <= SlurmExecutor._valid_parameters()
    assert {*GENERAL, "timeout_min"} <= AutoExecutor._valid_parameters()


def test_defaults() -> None:
    assert settings() == SlurmSettings()
