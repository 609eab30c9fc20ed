"""The examples of README and docs run, their commands too, and their lists are complete."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ht_bench
import ht_bench.sb3
import ht_bench.testing
from ht_bench import registry
from ht_bench.methods.hare_tortoise import HareTortoise
from ht_bench.methods.recipe import recipe_names

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("*/*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCES = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
}


def blocks(text: str, language: str) -> list[tuple[int, str]]:
    """Return (line, content) of every fenced block in `language`."""
    fences = FENCES.finditer(text)
    return [(text[: f.start(2)].count("\n"), f[2]) for f in fences if f[1] == language]


EXAMPLES = {page: blocks(page.read_text(encoding="utf-8"), "python") for page in PAGES}
[METHOD] = [block for _, block in EXAMPLES[ROOT / "README.md"] if "register_method" in block]
OWN = README[README.index("## Compare three methods") : README.index("## What is measured")]
COMMANDS = "".join(block for _, block in blocks(OWN, "") if "ht-bench" in block)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_task: Any) -> Iterator[Path]:
    """The present folder, with README's method and tiny.toml; its names are forgotten after."""
    (tmp_path / "my_method.py").write_text(METHOD, encoding="utf-8")
    write_task()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry.methods, "_entries", dict(registry.methods._entries))
    yield tmp_path
    sys.modules.pop("my_method", None)


@pytest.mark.filterwarnings("ignore:The loaded weights hold no state of")  # docs/agents.md says so
@pytest.mark.parametrize("page", filter(EXAMPLES.get, PAGES), ids=lambda page: page.name)
def test_the_python_examples_run(
    page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    """A namespace each; a fault names the page's line. On a task of a few updates without
    --evidence. What says that it resets does.
    """
    resets: list[HareTortoise] = []
    reset = HareTortoise._return_to_tortoise
    monkeypatch.setattr(
        HareTortoise, "_return_to_tortoise", lambda self: (resets.append(self), reset(self))
    )
    for line, code in EXAMPLES[page]:
        if not pytestconfig.getoption("--evidence"):
            code = code.replace("warm-start-digits-v1", "tiny.toml")
        resets.clear()
        exec(compile("\n" * line + code, str(page), "exec"), {"__name__": "example"})
        if page == ROOT / "README.md":
            expected = 5 if "HareTortoise(" in code else 2 if "HareTortoiseMlp" in code else 0
            assert len(resets) == expected


def commands() -> Iterator[str]:
    """Yield the lines of the README's way to a method of one's own, its loop written out."""
    values, *rest = re.findall(r"^for pull in (.*); do$", COMMANDS, flags=re.MULTILINE)
    assert not rest
    for line in COMMANDS.splitlines():
        if line.startswith("    "):
            yield from (line.strip().replace("$pull", value) for value in values.split())
        elif not line.startswith(("for ", "done")):
            yield line


def test_the_commands_run(folder: Path, call: Any) -> None:
    """The lines as they stand, on a task of a few updates."""
    tables = []
    for line in commands():
        words = shlex.split(line.replace("warm-start-digits-v1", "tiny.toml"))
        if words[:2] == ["python", "-c"]:
            exec(words[2], {})
            continue
        assert words[0] == "ht-bench"
        answer = call(*words[1:], *(["--jobs", "1"] if words[1] == "run" else []))
        assert answer.code == 0, answer.error
        tables.append(answer.out)
    assert all(part in tables[-1] for part in ("decay-to-initial", "hare-tortoise", "gap closed"))
    assert "pull = 0.001" in "".join(tables)


@pytest.mark.evidence
def test_the_commands_run_as_they_stand(folder: Path) -> None:
    done = subprocess.run(
        ["bash", "-euc", COMMANDS], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "decay-to-initial" in done.stdout


def tidy(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not link.startswith(("http://", "https://")):
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            assert target.exists(), link
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if anchor else []
            assert not anchor or anchor in map(tidy, headings), link


def test_every_page_of_docs_is_in_its_table() -> None:
    table = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages == set(re.findall(r"\]\(([\w-]+\.md)\)", table))


def test_make_targets_and_extras_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    assert {name for text in texts for name in re.findall(r"`make\s([\w-]+)", text)} <= targets
    assert set(re.findall(r"^make ([\w-]+)", README, re.MULTILINE)) <= targets
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [sentence] = re.findall(r"^Extras: (.*?);", README, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`(\w+)`", sentence)) <= set(project["optional-dependencies"])


@pytest.mark.parametrize("module", ["ht_bench", "ht_bench.sb3", "ht_bench.testing"])
def test_the_api_page_lists_every_public_name(module: str) -> None:
    text = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    [part] = re.findall(rf"^## `{module}`\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    cells = re.findall(r"^\| (`[^|]*) \|", part, re.MULTILINE)
    listed = [name for cell in cells for name in re.findall(r"`(\w+)", cell)]
    assert len(listed) == len(set(listed))
    public = {
        "ht_bench": ht_bench.__all__,
        "ht_bench.sb3": ht_bench.sb3.__all__,
        "ht_bench.testing": [n for n in vars(ht_bench.testing) if n.startswith("check_")],
    }[module]
    # Every method's class is public too: docs/methods.md, made from the code, names them all.
    classes = {place.split(":")[1] for place in registry.methods.built_in.values()}
    assert set(public) - classes <= set(listed) <= set(public)


def test_the_methods_table_lists_every_method() -> None:
    [part] = re.findall(r"^## Methods\n(.*?)^## ", README, re.DOTALL | re.MULTILINE)
    rows = re.findall(r"^\| [^|]+ \| ([^|]*`[^|]*) \|$", part, re.MULTILINE)
    shown = [name for row in rows for name in re.findall(r"`([\w-]+)`", row)]
    assert sorted(shown) == sorted(recipe_names())


def test_tables_are_written_into_every_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/tables.py knows every marked block; a table keeps its legend and loses the others."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    import tables

    marks = [m for page in PAGES for m in re.findall(r"<!-- (\w[\w ]*) -->", page.read_text())]
    measured = {"claims", "peaks", "machines"}  # docs/performance.md: benchmarks/report.py
    scaling = {"estimates", "rules", "methods", "growth"}  # docs/scaling.py
    assert sorted(marks) == sorted({*tables.BLOCKS, "suites", *measured, *scaling})
    text = (
        "a suite\n\ngrid\n\nn = 3. metric: x.\n\na task\n\ngrid 2\n\nn = 3.\n\nnote\ngap closed: 0"
    )
    assert tables.first_table(text) == "a suite\n\ngrid\n\nn = 3. metric: x.\n\ngap closed: 0"
    page = tmp_path / "page.md"
    page.write_text("x\n<!-- suites -->\nold\n<!-- /suites -->\ny\n")
    monkeypatch.setattr(tables, "PAGES", (page,))
    monkeypatch.chdir(tmp_path)  # no runs here
    tables.rewrite()
    assert page.read_text().count("| `suite-") == len(tables.suites().splitlines())


def test_the_opening_says_what_the_board_says() -> None:
    opening = " ".join(README[: README.index("![")].split())
    board = json.loads((ROOT / "leaderboard/ranking.json").read_text(encoding="utf-8"))
    scores = board["suites"]["suite-noisy-start-v1"]
    told = re.findall(r"\(`([a-z-]+)`\) (?:ends )?at (0\.\d+)", opening)
    assert [name for name, _ in told] == ["none", "full-reset", "spectral-regularization"]
    assert [value for _, value in told] == [f"{scores[name]['metric']:.3f}" for name, _ in told]
    assert scores["spectral-regularization"]["rank"] == 1


def test_the_citation_and_the_workflow() -> None:
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert "arXiv:2406.02596" in str(citation["references"])
    assert citation["version"] == ht_bench.__version__
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    assert os.access(ROOT / ".ci/run", os.X_OK) and ".ci/run" in [step.get("run") for step in steps]
    assert [s["with"]["path"] for s in steps if "pages-artifact" in str(s)] == ["leaderboard/site"]
