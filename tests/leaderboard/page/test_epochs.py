"""Boards of two epochs side by side: each of its own entries, the newest first, the older kept."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ht_bench.cli import main
from ht_bench.errors import UsageError
from ht_bench.leaderboard.board import make_board, make_boards, read_entries, shown_suites
from ht_bench.leaderboard.ranking_file import read_rankings
from ht_bench.leaderboard.submit import write_submission
from ht_bench.leaderboard.verified import read_verified
from ht_bench.streams.suite import Suite
from ht_bench.version import EPOCH, epoch_order

from .conftest import Content, committed, suites_of_today

CORE, OLD = "suite-core-v1", "0.1"


def write_old(folder: Path, content: Content, place: str = "") -> None:
    """Write a submission of the earlier epoch as one that is committed and on record."""
    path = folder / "submissions" / place / f"{content['name']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content | {"benchmark": OLD}), encoding="utf-8")
    record = folder / "verified.json"
    entries = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    entries[f"{OLD}/{content['name']}"] = {"sha256": digest, "level": "reproduced"}
    record.write_text(json.dumps(entries), encoding="utf-8")


def read(folder: Path) -> list[Any]:
    return read_entries(folder / "submissions", read_verified(folder / "verified.json"))


@pytest.fixture(scope="module")
def _both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three entries of each epoch; the names that both have lie in the older one's folder."""
    folder = tmp_path_factory.mktemp("both")
    for name, place in (("none", OLD), ("full-reset", OLD), ("ema", "")):
        write_old(folder, committed(name), place)
    for name in ("none", "full-reset", "l2-init"):
        write_submission(folder / "submissions" / f"{name}.json", committed(name))
    return folder


@pytest.fixture
def both(_both: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(_both, tmp_path / "both"))


def test_epochs_sort_by_number() -> None:
    assert sorted(["0.10", "0.9", "1.0", "0.1"], key=epoch_order) == ["0.1", "0.9", "0.10", "1.0"]


def test_each_board_holds_its_own_entries_and_anchors(both: Path) -> None:
    suites = [suite for suite in shown_suites() if suite.benchmark == OLD]
    new, old = make_boards(read(both), suites)
    assert (new.benchmark, old.benchmark) == (EPOCH, OLD)
    assert set(new.entries) == {"none", "full-reset", "l2-init"}
    assert set(old.entries) == {"none", "full-reset", "ema"}
    assert {entry.level for entry in old.entries.values()} == {"reproduced"}
    assert {entry.level for entry in new.entries.values()} == {"valid"}
    assert old.frozen and not new.frozen
    for board in (new, old):
        assert {table.benchmark for table in (*board.suites, *board.tasks)} == {board.benchmark}
        [core] = [table for table in board.suites if table.name == CORE]
        [gap] = [row.mean_of_tasks for row in core.rows if row.label == "none"]
        assert gap is not None and gap.value == pytest.approx(0, abs=1e-7)
    with pytest.raises(UsageError, match=f"Entries of {OLD} and {EPOCH} do not compare"):
        make_board(read(both))


def test_a_newer_suite_leaves_the_older_board_and_takes_the_place_of_its_like(both: Path) -> None:
    [core] = [suite for suite in suites_of_today() if suite.name == CORE]
    first, newer = (
        Suite(name, "x", core.tasks, epoch, anchors=core.anchors)
        for name, epoch in ((CORE, OLD), ("suite-core-v2", EPOCH))
    )
    new, old = make_boards(read(both), [first, newer])
    assert [table.name for table in new.suites] == ["suite-core-v2"]
    assert [table.name for table in old.suites] == [CORE]
    assert new.frozen == old.frozen == {*core.tasks}
    fewer = Suite("suite-core-v10", "x", core.tasks[:2], EPOCH, anchors=core.anchors)
    new, old = make_boards(read(both), [first, newer, fewer])
    assert [table.name for table in new.suites] == ["suite-core-v10"]
    own = Suite("mine", "x", core.tasks[:1], EPOCH, anchors=core.anchors)
    new, _ = make_boards(read(both), [first, newer, fewer, own])
    assert [table.name for table in new.suites] == ["suite-core-v10", "mine"]
    assert [table.name for table in old.suites] == [CORE]


def test_one_name_twice_in_one_epoch_is_refused(both: Path) -> None:
    write_old(both, committed("ema"), OLD)
    with pytest.raises(UsageError, match=f"Two submissions of {OLD} are called ema"):
        read(both)


def test_an_earlier_file_that_is_not_on_record_is_named(both: Path) -> None:
    (both / "verified.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UsageError, match=r"is not valid: \$\.benchmark: is 0\.1, this is"):
        read(both)


def test_the_site_shows_the_newest_and_keeps_the_older(
    both: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["page", str(both)]) == 0
    site = both / "site"
    assert f"open {site / 'index.html'}" in capsys.readouterr().out
    new, old = (path.read_text() for path in (site / "index.html", site / OLD / "index.html"))
    assert "methods/l2-init.html" in new and "methods/ema.html" not in new
    assert "methods/ema.html" in old and "methods/l2-init.html" not in old
    assert f'href="{OLD}/index.html"' in new and 'href="../index.html"' in old
    words = " ".join(old.split())
    assert f"made with ht-bench {OLD} and is kept as it was" in words
    assert "numbers of the two do not compare" in words and 'class="notice"' not in new
    assert f"Benchmark {EPOCH}." in new and f"Benchmark {OLD}." in old
    for page in site.rglob("*.html"):
        for link in page.read_text(encoding="utf-8").split('href="')[1:]:
            target = link.split('"')[0].partition("#")[0]
            assert not target or "://" in target or (page.parent / target).is_file(), (page, target)


def test_both_rankings_are_written_and_proven(
    both: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["page", str(both)])
    found = {path.name: content["benchmark"] for path, content in read_rankings(both).items()}
    assert found == {"ranking.json": EPOCH, f"ranking-{OLD}.json": OLD}
    capsys.readouterr()
    assert main(["page", str(both), "--check"]) == 0
    said = capsys.readouterr()
    assert f"3 entries of {EPOCH}" in said.out and f"3 entries of {OLD}" in said.out
    assert not said.err
    older = both / f"ranking-{OLD}.json"
    content = json.loads(older.read_text(encoding="utf-8"))
    content["suites"][CORE]["ema"]["gap_closed"][0] += 2e-4
    older.write_text(json.dumps(content), encoding="utf-8")
    assert main(["page", str(both), "--check"]) == 1
    assert f"ranking-{OLD}.json: ranking, suites, {CORE}, ema" in capsys.readouterr().out


def test_until_this_epoch_has_entries_the_older_board_is_shown_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("none", "full-reset"):
        write_old(tmp_path, committed(name))
    assert main(["page", str(tmp_path)]) == 0
    page = " ".join((tmp_path / "site/index.html").read_text().split())
    assert f"made with ht-bench {OLD}, its anchors too; entries of {EPOCH} are being made" in page
    assert "Numbers of the two do not compare" in page and f"Benchmark {OLD}." in page
    assert json.loads((tmp_path / "ranking.json").read_text())["benchmark"] == OLD
    # The first entry of this epoch waits; what is committed is still proven.
    write_submission(tmp_path / "submissions" / "ema.json", committed("ema"))
    capsys.readouterr()
    assert main(["page", str(tmp_path), "--check"]) == 0
    said = capsys.readouterr()
    assert f"2 entries of {OLD}" in said.out and "Not ranked yet: ema" in said.err
    assert main(["page", str(tmp_path)]) == 0
    assert "No suite has its anchors yet" in (tmp_path / "site/index.html").read_text()
