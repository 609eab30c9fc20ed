"""Submissions for the page: the committed ones, and made-up ones that obey every rule."""

import copy
import dataclasses
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ht_bench.leaderboard.board import Board, make_board, read_entries, shown_suites
from ht_bench.leaderboard.submit import write_submission
from ht_bench.streams.suite import Suite
from ht_bench.version import EPOCH
from ht_bench.views.page import write_site

ROOT = Path(__file__).parents[3]
COMMITTED = ROOT / "leaderboard" / "submissions" / "0.1"
HOSTILE = "<script>window.pwned=1</script>\"><img src=x onerror='window.pwned=1'>{{7*7}}&lt;]]>'"
Content = dict[str, Any]


def committed(name: str) -> Content:
    """Return a committed submission's content as if it were made today, to be changed at will."""
    content = json.loads((COMMITTED / f"{name}.json").read_text(encoding="utf-8"))
    return {**content, "benchmark": EPOCH}


def suites_of_today() -> list[Suite]:
    """Return the suites of the committed entries as if their anchors were frozen today."""
    first = [suite for suite in shown_suites() if suite.benchmark == "0.1"]
    return [dataclasses.replace(suite, benchmark=EPOCH) for suite in first]


def renamed(name: str, content: Content, *tasks: str) -> Content:
    """Return a copy under another name, with `tasks` alone if any are named."""
    made = copy.deepcopy(content)
    made["name"] = name
    if tasks:
        made["tasks"] = {task: made["tasks"][task] for task in tasks}
    return made


def hostile() -> Content:
    """Return a submission with script in every field that takes free text."""
    content = renamed("hostile", committed("ema"))
    content["authors"] = [HOSTILE, "</title><svg onload=window.pwned=1>"]
    content["link"] = "https://example.org/?a=1&b=<2>".replace("<2>", "%3C2%3E&amp;")
    content["tuning"] = {"how": HOSTILE, "runs": 3}
    content["method"] |= {"summary": HOSTILE, "citation": HOSTILE, "network": {}}
    short = HOSTILE[:60]
    for table in content["tasks"].values():
        table["hyperparameters"] = {short: HOSTILE, "list": [HOSTILE, None, True]}
        table["software"] = {short: HOSTILE}
        table["hardware"] = {short: HOSTILE, "processor": HOSTILE}
    return content


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write submissions into a leaderboard folder of their own; returns that folder."""

    def keep(*contents: Content) -> Path:
        for content in contents:
            path = tmp_path / "board" / "submissions" / f"{content['name']}.json"
            write_submission(path, content)
        return tmp_path / "board"

    return keep


def board_of(folder: Path) -> Board:
    """Rank a leaderboard folder's submissions."""
    return make_board(read_entries(folder / "submissions", {}), suites_of_today())


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of the committed submissions and a hostile one."""
    folder = tmp_path_factory.mktemp("board")
    for name in ("none", "full-reset", "hare-tortoise", "l2-init", "crelu"):
        write_submission(folder / "submissions" / f"{name}.json", committed(name))
    write_submission(folder / "submissions" / "hostile.json", hostile())
    write_site(board_of(folder), folder / "site")
    return folder / "site"


@pytest.fixture(scope="session")
def page_load() -> Any:
    """The script that makes large leaderboards, as a module."""
    spec = importlib.util.spec_from_file_location("page_load", ROOT / "docs" / "page_load.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
