"""What only looks at names loads no torch and no drawing."""

import json
import os
import subprocess
import sys

import pytest

HEAVY = ("torch", "stable_baselines3", "matplotlib", "tensorboard")
PROGRAM = """
import contextlib, io, json, sys

with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    exec(sys.argv[1])
print(json.dumps([name for name in {heavy} if name in sys.modules]))
"""


def loaded(statement: str) -> list[str]:
    """Return which heavy packages a new process has loaded after the statement."""
    program = PROGRAM.format(heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", program, statement],
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    "statement",
    [
        "import ht_bench",
        "import ht_bench; dir(ht_bench); ht_bench.register_method; ht_bench.UsageError",
        "from ht_bench.cli import main; main(['--help'])",
        "from ht_bench.cli import main; main(['run', '--help'])",
        "from ht_bench.cli import main; main(['--version'])",
        "from ht_bench.cli import main; main(['list'])",
        "from ht_bench.cli import main; main(['run', '--task', 'no-such', '--method', 'none'])",
        "import ht_bench; ht_bench.get_task('warm-start-digits-v1')",
        "import ht_bench.leaderboard.verify, ht_bench.leaderboard.submit",
        "import ht_bench.views.page, ht_bench.leaderboard.ranking_file",
    ],
)
def test_light(statement: str) -> None:
    assert loaded(statement) == []


def test_the_check_sees_a_heavy_import() -> None:
    assert loaded("import ht_bench; ht_bench.Method") == ["torch"]
