"""Options of the test suite: `--evidence` adds the long repetitions behind published claims."""

import os

# One thread a worker: two workers with two threads each wait for one another on two cores. Set
# before torch is imported, and for the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Define --evidence."""
    parser.addoption(
        "--evidence", action="store_true", help="also run the long repetitions (minutes)"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is marked `evidence` unless the option is given."""
    if config.getoption("--evidence"):
        return
    skip = pytest.mark.skip(reason="long; add --evidence")
    for item in items:
        if "evidence" in item.keywords:
            item.add_marker(skip)
