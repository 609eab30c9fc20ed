"""What only looks at names loads no torch and no drawing."""

import json
import os
import subprocess
import sys

HEAVY = ("torch", "stable_baselines3", "matplotlib", "tensorboard")
LIGHT = (
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
)
PROGRAM = """
import contextlib, io, json, sys

heavy, *statements = json.loads(sys.argv[1])
loaded = {}
for statement in statements:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        exec(statement)
    loaded[statement] = [name for name in heavy if name in sys.modules]
print(json.dumps(loaded))
"""


def test_only_the_last_of_these_loads_anything_heavy() -> None:
    """One process runs them in turn: what is loaded after one was loaded by it or before."""
    heavy = "import ht_bench; ht_bench.Method"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([HEAVY, *LIGHT, heavy])],
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {**{light: [] for light in LIGHT}, heavy: ["torch"]}
