"""The site without a browser: complete, linked, escaped, light, and rebuilt without leftovers."""

import dataclasses
import html.parser
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import spearmanr

from ht_bench.cli import main
from ht_bench.views.effort import duration, effort, total
from ht_bench.views.page import TEMPLATES, write_site
from ht_bench.views.page_content import index_view
from ht_bench.views.related import related

from .conftest import HOSTILE, board_of, committed, renamed

Write = Callable[..., Path]
INFINITE = float("inf")
WARM_START = "warm-start-digits-v1"


class Reader(html.parser.HTMLParser):
    """Collects tags, links and text; scripts and handlers that a page should not have."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.text: list[str] = []
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, content in attrs:
            if name in ("href", "src"):
                self.links.append(content or "")
            if name.startswith("on") or name == "style":
                self.handlers.append(f"{tag} {name}")
        if tag == "script" and not any(name == "src" for name, _ in attrs):
            self.inline.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(page: Path) -> Reader:
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    return reader


def pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def test_there_is_a_page_for_everything(site: Path) -> None:
    names = {str(page.relative_to(site)) for page in pages(site)}
    methods = ("none", "full-reset", "hare-tortoise", "l2-init", "crelu", "hostile")
    assert {"index.html", *(f"methods/{name}.html" for name in methods)} <= names
    assert "tasks/swap-cartpole-ppo-v1.html" in names
    assert len(names) == 1 + len(methods) + 6


def test_generalization_is_drawn_against_trainability(site: Path) -> None:
    shown = "\n".join(read(site / "index.html").text)
    assert "Generalization against trainability" in shown
    assert "suite-trainability-v1: gap closed" in shown and "suite-core-v1: gap closed" in shown
    assert "rank correlation" not in shown  # of a few methods it says nothing


def test_every_method_stands_on_every_ability(write: Write, tmp_path: Path) -> None:
    few = ("none", "full-reset", "hare-tortoise", "crelu")
    names = (*few, "ema", "l2", "l2-init", "head-reset", "shrink-perturb", "self-distillation")
    folder = write(*(committed(name) for name in names))
    board = board_of(folder)
    glance = index_view(board)["glance"]
    assert [table.name for table in glance.suites] == [table.name for table in board.suites]
    core = {row.label: row for row in board.suites[0].rows}
    assert glance.entries["crelu"][0] is core["crelu"]
    assert glance.entries["crelu"][-1] is None  # no method for agents
    [trainability] = glance.alike  # six methods have agents: too few
    assert trainability[0].name == "suite-trainability-v1" and trainability[2] == 8
    methods = names[2:]  # the anchors are 0 and 1 everywhere
    own = [core[name].gap_closed.value for name in methods]
    there = {row.label: row.gap_closed.value for row in trainability[0].rows}
    expected = spearmanr(own, [there[name] for name in methods])[0]
    assert trainability[1].value == pytest.approx(expected)
    assert -1 <= trainability[1].low < expected < trainability[1].high <= 1
    write_site(board, tmp_path / "site")
    text = " ".join(read(tmp_path / "site" / "index.html").text)
    assert f"), of {len(board.suites[0].rows)} methods:" in " ".join(text.split())
    assert "Every method, every ability" in text and "Rank correlation (Spearman, 95 %" in text
    assert f"8 methods the rank correlation (Spearman) is {expected:.2f} [" in text


def test_methods_may_be_left_out_of_a_correlation(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("none", "full-reset", "hare-tortoise", "crelu", "ema", "l2", "l2-init")
    board = board_of(write(*map(committed, names)))
    first, second = (table for table in board.suites if "control" not in table.name)
    assert related(board, first, second) is None  # five methods are too few
    monkeypatch.setattr("ht_bench.views.related.ENOUGH", 4)
    found = related(board, first, second, without=["ema"])
    methods = [name for name in names[2:] if name != "ema"]
    scores = [{row.label: row.gap_closed.value for row in table.rows} for table in (first, second)]
    expected = spearmanr(*([each[name] for name in methods] for each in scores))[0]
    assert found is not None and found[1] == 4
    assert found[0].value == pytest.approx(expected)


def test_one_suite_needs_no_glance(write: Write) -> None:
    contents = [renamed(name, committed(name), WARM_START) for name in ("none", "full-reset")]
    assert index_view(board_of(write(*contents)))["glance"] is None


def test_links_lead_to_pages_and_places_that_are_there(site: Path) -> None:
    for page in pages(site):
        for link in read(page).links:
            if link.startswith("https://example.org/"):
                continue
            path, _, place = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.is_file(), f"{page.name}: {link}"
            if place:
                assert f'id="{place}"' in target.read_text(encoding="utf-8"), link


def test_nothing_is_loaded_from_elsewhere_and_no_script_stands_in_a_page(site: Path) -> None:
    for page in pages(site):
        found = read(page)
        assert not found.handlers
        assert not found.inline
        assert not {"img", "iframe", "object", "embed", "form"} & {*found.tags} - {"form"}
    for name in ("style.css", "board.js"):
        text = (site / name).read_text(encoding="utf-8")
        assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttpRequest|import ", text), name


def test_script_in_every_field_is_text(site: Path) -> None:
    found = read(site / "methods" / "hostile.html")
    text = "".join(found.text)
    for times, place in ((4, HOSTILE), (1, "</title><svg onload=window.pwned=1>")):
        assert text.count(place) >= times
    source = (site / "methods" / "hostile.html").read_text(encoding="utf-8")
    assert "<script>window" not in source
    assert "<img" not in source
    assert "<svg onload" not in source


def test_charts_have_titles_descriptions_and_tables(site: Path) -> None:
    for page in pages(site):
        text = page.read_text(encoding="utf-8")
        charts = re.findall(r"<svg .*?</svg>", text, flags=re.DOTALL)
        assert charts, page
        for chart in charts:
            ids = re.search(r'aria-labelledby="(\S+) (\S+)"', chart)
            assert ids is not None
            for identifier in ids.groups():
                assert text.count(f'id="{identifier}"') == 1
            assert re.search(r"<desc [^>]*>.+?</desc>", chart)
        doubled = text.count('<div class="phone">')  # the same chart again, narrow
        assert text.count("<table") >= len(charts) - doubled


def test_what_was_timed_elsewhere_is_no_dot_of_costs(write: Write, tmp_path: Path) -> None:
    alone = renamed("alone", committed("ema"))
    for table in alone["tasks"].values():
        table["none_cost"] = None
    board = board_of(write(*map(committed, ("none", "full-reset", "ema")), alone))
    write_site(board, tmp_path / "site")
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    for section in re.findall(r"(?s)<section data-of=.*?</section>", page):
        if "Score against cost" in section:
            assert "Left out: 1 method(s)" in section
            assert 'data-entry="ema"' in section and 'data-entry="alone"' not in section
    assert page.count("Score against cost: suite-core-v1</h2>") == 1


def test_a_method_page_says_how_it_was_made(site: Path) -> None:
    text = " ".join("".join(read(site / "methods" / "hare-tortoise.html").text).split())
    for words in (
        "no: it need not be told when the data change",
        "grid search per task",
        "256 runs" if "256 runs" in text else "runs.",
        "optimizer_state",
        "2.13.0+cpu",
        "AMD EPYC",
        "2406.02596",
        "valid",
    ):
        assert words in text


def test_a_task_page_has_spec_anchors_and_all_methods(site: Path) -> None:
    text = " ".join("".join(read(site / "tasks" / "permuted-digits-v1.html").text).split())
    assert "0.031 [0.028, 0.034], a gap to close" in text
    assert '29 × {"inputs": "permuted", "updates": 150}' in text
    assert "anchors frozen in a released suite" in text
    for method in ("none", "full-reset", "hare-tortoise", "l2-init", "crelu", "hostile"):
        assert method in text


def test_pages_of_an_earlier_build_are_gone(write: Write) -> None:
    folder = write(committed("none"), committed("ema"))
    write_site(board_of(folder), folder / "site")
    assert (folder / "site" / "methods" / "ema.html").is_file()
    (folder / "submissions" / "ema.json").unlink()
    others = [folder / "site" / name for name in ("tasks/own.toml", "methods/own.html")]
    for file in others:
        file.write_text("<title>mine</title>", encoding="utf-8")
    write_site(board_of(folder), folder / "site")
    assert not (folder / "site" / "methods" / "ema.html").exists()
    assert all(file.is_file() for file in others)


def test_the_command_writes_site_and_ranking(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(committed("none"), committed("full-reset"))
    assert main(["page", str(folder)]) == 0
    assert (folder / "site" / "index.html").is_file()
    assert (folder / "ranking.json").is_file()
    assert "index.html" in capsys.readouterr().out


def test_without_jinja2_there_is_a_sentence(
    write: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(committed("none"))
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "jinja2" else real(name)
    )
    assert main(["page", str(folder)]) == 2
    assert "pip install 'ht-bench[page]'" in capsys.readouterr().err


def test_a_folder_without_submissions_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["page", str(tmp_path)]) == 2
    assert "no folder submissions/" in capsys.readouterr().err


def test_a_large_board_stays_light(
    page_load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ht_bench import registry

    monkeypatch.setattr(registry.tasks, "_entries", dict(registry.tasks._entries))
    tasks = page_load.make_tasks(20)
    from ht_bench.leaderboard.submit import write_submission

    for name, level in (("none", 0.6), ("full-reset", 0.9), ("x" * 80, 0.7)):
        write_submission(tmp_path / f"{name}.json", page_load.submission(name, tasks, level))
    found = page_load.measure(tmp_path, page_load.make_suites(tasks))
    assert found["first view MB"] < 0.2
    assert len(pages(tmp_path / "site")) == 1 + 3 + 20


def test_the_templates_are_all_used() -> None:
    assert {path.name for path in TEMPLATES.iterdir()} == {
        *("base.html", "index.html", "method.html", "task.html", "macros.html"),
        *("style.css", "board.js"),
    }


def test_what_a_suite_took_and_on_what_is_said(write: Write, tmp_path: Path) -> None:
    contents = [committed(name) for name in ("none", "full-reset", "l2-init", "crelu")]
    contents.append(renamed("part", committed("ema"), WARM_START))  # lacks tasks: not counted
    for content, seconds in zip(contents, (3, 6, 30, 9, 1e6), strict=True):
        for table in content["tasks"].values():
            table["hardware"] = {"processor": "Intel(R) Xeon(R) Processor"}
            for run in table["seeds"].values():
                run["seconds"] = seconds  # of 20 seeds on each of three tasks
    next(iter(contents[2]["tasks"].values()))["hardware"]["gpu"] = "NVIDIA H200"
    board = board_of(write(*contents))
    core = next(table for table in board.suites if table.name == "suite-core-v1")
    said = effort(board, core)
    assert said.startswith("A method's training took 7.5 minutes (3 minutes to 30 minutes), on ")
    assert "Intel Xeon" in said and said.count("Intel") == 1
    runs = sum(len(table["seeds"]) for one in contents for table in one["tasks"].values())
    assert total(board).startswith(f"5 methods, {runs} runs, ")
    assert {"NVIDIA H200", "Intel Xeon"} == set(total(board)[:-1].partition(", on ")[2].split(", "))
    write_site(board, tmp_path / "site")
    first = " ".join((tmp_path / "site" / "index.html").read_text(encoding="utf-8").split())
    assert total(board) in first and said.replace("'", "&#39;") in first


def test_a_suite_whose_entries_say_no_seconds_says_nothing_of_them(write: Write) -> None:
    contents = [committed(name) for name in ("none", "full-reset")]
    board = board_of(write(*contents))
    assert effort(board, board.suites[0]) != ""
    nobody = dataclasses.replace(board, entries={})
    assert effort(nobody, board.suites[0]) == ""


def test_durations_have_two_digits_and_a_unit() -> None:
    assert [duration(x) for x in (0.4, 1.0, 9.87, 59.9, 61, 6000)] == [
        "24 seconds", "1 minute", "9.9 minutes", "60 minutes", "1 hour", "100 hours",
    ]  # fmt: skip
