"""What a worker process loads for a task of data: it pays for imports before it trains."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

NEEDLESS = {
    *("stable_baselines3", "sb3_contrib", "ale_py", "cv2", "matplotlib", "sklearn", "scipy"),
    *("pandas", "tensorflow", "tensorboard", "torch.utils.tensorboard", "jsonschema_rs", "rich"),
}
CODE = """
import pickle, sys
from pathlib import Path
from ht_bench.methods.resolve import resolve
from ht_bench.running import pool
from ht_bench.running.job import StackJob
from ht_bench.streams.task import load_task

task, out = load_task(Path(sys.argv[1])), Path(sys.argv[2])
job = StackJob(task, resolve("hare-tortoise"), task.seeds, out=out, tensorboard=False)
outcome = pool._train(pickle.dumps(job))
assert len(outcome.records) == 4, outcome.failures
print(*sys.modules)
"""


def test_a_worker_loads_nothing_that_training_on_data_does_not_need(
    write_task: Callable[..., Path], tmp_path: Path
) -> None:
    words = [sys.executable, "-c", CODE, write_task(), tmp_path / "runs"]
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    loaded = set(run.stdout.split())
    assert {"torch", "ht_bench.running.job"} <= loaded
    assert not loaded & NEEDLESS
