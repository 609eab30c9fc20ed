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

loaded = []
for statement in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        exec(statement)
    loaded.append([name for name in {heavy} if name in sys.modules])
print(json.dumps(loaded))
"""


def test_light() -> None:
    """One new process runs them in turn, a heavy import last: that would be seen."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(heavy=HEAVY), *LIGHT, "import matplotlib"],
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *light, last = json.loads(done.stdout)
    assert dict(zip(LIGHT, light, strict=True)) == {each: [] for each in LIGHT}
    assert last == ["matplotlib"]
