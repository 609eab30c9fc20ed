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
        "test/accuracy": [0.108, 0.158, 0.164, 0.144, 0.286, 0.324, 0.356, 0.412, 0.456, 0.438],
        "test/loss": [
            2.31255, 2.274155, 2.224548, 2.173628, 2.118216,
            2.071666, 2.008592, 1.930465, 1.795642, 1.689578,
        ],
        "train/loss": [
            NAN, 2.271411, 2.180856, 2.058953, 2.208055,
            2.068982, 1.978628, 1.971471, 1.769979, 1.633643,
        ],
    },
    "hare-tortoise": {
        "test/accuracy": [0.108, 0.12, 0.16, 0.188, 0.194, 0.192, 0.184, 0.204, 0.222, 0.234],
        "test/loss": [
            2.31255, 2.301271, 2.288592, 2.275765, 2.268379,
            2.261298, 2.245791, 2.232391, 2.206746, 2.184924,
        ],
        "hare/accuracy": [0.108, 0.158, 0.206, 0.206, 0.192, 0.186, 0.226, 0.234, 0.258, 0.224],
        "train/loss": [
            NAN, 2.271411, 2.219481, 2.195348, 2.265886,
            2.195296, 2.19652, 2.154577, 2.126906, 2.064512,
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
