"""Golden curves: numbers of two tiny runs, which decide the comparability epoch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ht_bench.running.job import StackJob, run_stack

PLAIN = {"name": "mlp", "hidden": [16, 12]}

NAN = float("nan")  # nothing is trained at the first point

# fmt: off
GOLDEN: dict[str, dict[str, list[float]]] = {
    "none": {
        "test/accuracy": [0.108, 0.138, 0.148, 0.17, 0.29, 0.326, 0.364, 0.416, 0.45, 0.45],
        "test/loss": [
            2.31255, 2.27905, 2.224334, 2.159034, 2.122586,
            2.076952, 2.00605, 1.91291, 1.787607, 1.683329,
        ],
        "train/loss": [
            NAN, 2.269821, 2.172735, 2.050998, 2.195983,
            2.074339, 1.946428, 1.963076, 1.793432, 1.638306,
        ],
    },
    "hare-tortoise": {
        "test/accuracy": [0.108, 0.124, 0.172, 0.198, 0.206, 0.204, 0.184, 0.212, 0.224, 0.246],
        "test/loss": [
            2.31255, 2.301687, 2.2904, 2.277376, 2.269091,
            2.261606, 2.246241, 2.232064, 2.204958, 2.181149,
        ],
        "hare/accuracy": [0.108, 0.138, 0.206, 0.188, 0.188, 0.194, 0.216, 0.25, 0.296, 0.266],
        "train/loss": [
            NAN, 2.269821, 2.233752, 2.192882, 2.276154,
            2.213706, 2.178199, 2.168588, 2.145647, 2.065215,
        ],
    },
}
# fmt: on


@pytest.mark.parametrize("method", GOLDEN)
def test_golden_curves(method: str, make_job: Callable[..., StackJob]) -> None:
    """Numbers of two tiny runs, to 1e-4: they decide the comparability epoch.

    When this fails, a change has moved what runs produce. If that is not what you want, undo it.
    If it is, move the epoch deliberately: raise `major.minor` in ht_bench/version.py, say so in
    CHANGELOG.md, and only then write the new numbers here.
    """
    hyperparameters = {"reset_every": 5, "decay": 0.9} if method == "hare-tortoise" else None
    [record, _] = run_stack(make_job(method, hyperparameters, net=PLAIN))
    curve = record["curve"]
    trained = [i for i in range(len(curve["step"])) if i not in (4, 8)]  # not the phases' starts
    for key, expected in GOLDEN[method].items():
        np.testing.assert_allclose(
            [NAN if curve[key][i] is None else curve[key][i] for i in trained],
            expected,
            atol=1e-4,
            err_msg=key,
        )
