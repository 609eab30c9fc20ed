"""`ht-bench verify`: levels, exit codes, JSON, seeds, and the record of what was reached."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ht_bench.errors import UsageError
from ht_bench.leaderboard.reading import Submission
from ht_bench.leaderboard.verified import (
    add_report,
    digests,
    has_changed,
    level_of,
    read_verified,
)
from ht_bench.leaderboard.verify import LEVELS, Checks, Report, verify
from ht_bench.running import reruns
from ht_bench.version import EPOCH

from .conftest import METHOD, SUBMISSIONS

Content = dict[str, Any]
Call = Callable[..., Any]
Write = Callable[..., Path]
TASK = "quick-digits-v1"


# ---- the command ----


def test_levels_and_exit_codes(call: Call, entry: Any) -> None:
    path = entry.write()
    answer = call("verify", path, "--level", "valid")
    assert (answer.code, answer.out) == (0, "early-stop: valid\n")
    answer = call("verify", path)
    assert (answer.code, answer.out) == (0, "early-stop: consistent\n")
    entry.curve()[0] = 0.9
    answer = call("verify", entry.write())
    assert answer.code == 1 and answer.out.startswith("early-stop: valid\n  $.tasks[")
    assert call("verify", path, "--level", "valid").code == 0
    entry.content["score"] = 1.0
    answer = call("verify", entry.write())
    assert answer.code == 1
    assert answer.out.startswith("'early-stop.json': not valid\n  $: ") and "score" in answer.out


def test_a_rerun_reproduces_bit_for_bit(call: Call, entry: Any) -> None:
    answer = call("verify", entry.write(), "--rerun", 1, "--json")
    assert answer.code == 0
    found = json.loads(answer.out)
    assert (found["level"], found["exit_code"], found["notes"]) == ("reproduced", 0, [])
    again = found["reruns"][TASK]
    assert again["agree"] is True and again["how"] == "bit for bit"
    assert len(again["seeds"]) == 1 and again["seeds"][0] in range(100, 120)
    assert "training seeds" in answer.error


def test_a_rerun_catches_one_edited_point(call: Call, entry: Any) -> None:
    entry.curve(104)[-1] = round(entry.curve(104)[-1] + 1 / 500, 3)
    path = entry.write()
    assert call("verify", path).code == 0
    answer = call("verify", path, "--seeds", "104")
    assert answer.code == 1
    assert answer.out.startswith("early-stop: consistent\n")
    assert "trained again, seed 104 differs: test/accuracy at point 21 is" in answer.out
    assert "agree not at all" in answer.out


def test_several_files_and_json(call: Call, write: Write, entry: Any) -> None:
    good = entry.write()
    entry.content["name"], entry.content["split"] = "bad", "train"
    bad = write(entry.content, "bad.json")
    answer = call("verify", good, bad, "--level", "valid", "--json")
    assert answer.code == 1
    found = json.loads(answer.out)
    assert [one["level"] for one in found] == ["valid", "not valid"]
    assert [one["exit_code"] for one in found] == [0, 1]
    assert found[1]["faults"] == [{"path": "$.split", "sentence": '"test" was expected.'}]
    assert set(found[0]) == {
        *("file", "name", "sha256", "level", "faults", "could_not", "notes", "reruns"),
        *("benchmark", "exit_code"),
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rerun", "1", "--level", "valid"), "trains nothing again"),
        (("--rerun", "-1"), "give the number of seeds"),
        (("--seeds", "7"), "no evaluation seed 7"),
        (("--seeds", "x"), "is not a seed"),
    ],
)
def test_wrong_use_is_a_sentence(call: Call, entry: Any, words: tuple[str, ...], said: str) -> None:
    answer = call("verify", entry.write(), *words)
    assert answer.code == 2 and said in answer.error and "Traceback" not in answer.error


def test_no_file_at_all(call: Call, tmp_path: Path) -> None:
    assert "Name a file" in call("verify").error
    (tmp_path / "loop.json").symlink_to(tmp_path / "loop.json")
    for path in (tmp_path, tmp_path / "absent.json", tmp_path / "loop.json"):
        answer = call("verify", path)
        assert answer.code == 2 and answer.error.startswith("ht-bench: Could not read")


def test_a_hostile_file_name_is_escaped(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[2Jb\udcff.json"
    path.write_bytes(b"{")
    for words in ((), ("--json",)):
        answer = call("verify", path, "--level", "valid", *words)
        assert answer.code == 1
        assert answer.out.isascii() and "\x1b" not in answer.out
    answer = call("verify", path.with_suffix(".jso"))
    assert answer.code == 2 and "\x1b" not in answer.error


def test_nothing_of_a_file_reaches_the_terminal_raw(call: Call, entry: Any) -> None:
    """Names and values of software and hardware are free text; notes quote them escaped."""
    text = "1\nearly-stop: reproduced é" + "x" * 150
    entry.table["software"] |= {"torch": text, "a\nb": text}
    entry.table["hardware"] |= {f"k{index}": text for index in range(30)}
    report = entry.verify("reproduced")
    assert report.level == "reproduced" and report.notes
    for said in report.notes:
        assert said.isascii() and said.isprintable() and len(said) < 400
    assert call("verify", entry.write(), "--level", "valid").out == "early-stop: valid\n"


# ---- levels ----


def test_every_seed_is_compared(entry: Any) -> None:
    assert entry.verify("reproduced").level == "reproduced"
    for seed in (100, 119):
        kept = entry.curve(seed)[1:]
        entry.curve(seed)[1] += 1 / 500
        report = entry.verify("reproduced")
        assert report.level == "consistent" and f"seed {seed} differs" in str(report.faults[0])
        entry.curve(seed)[1:] = kept


@pytest.mark.parametrize(("key", "value"), [("status", "diverged"), ("steps", 39)])
def test_more_than_curves_is_compared(key: str, value: Any, entry: Any) -> None:
    entry.table["seeds"]["101"][key] = value
    report = entry.verify("reproduced")
    assert report.level == "consistent"
    assert f"{key} is" in str(report.faults[0])


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("hyperparameters", {"fraction": 0.25}),
        ("hyperparameters", {}),
        ("hyperparameters", {"fraction": 0.05, "score": 1}),
        ("extra_parameters", 1),
        ("needs_boundaries", False),
    ],
)
def test_what_a_submission_claims_of_its_method(place: str, value: Any, entry: Any) -> None:
    """The board shows whether a method is told of boundaries and what it holds: it must be so."""
    target = entry.content["method"] if place == "needs_boundaries" else entry.table
    assert target[place] != value
    target[place] = value
    report = entry.verify("reproduced")
    assert report.exit_code == 1
    assert place in report.faults[0].path and "not what the method" in report.faults[0].sentence


def test_seeds_are_drawn_at_random(entry: Any) -> None:
    drawn = set()
    for _ in range(8):
        report = entry.verify("reproduced", seeds=2)
        seeds = report.reruns[TASK]["seeds"]
        assert len(set(seeds)) == 2 and set(seeds) <= set(range(100, 120))
        drawn.add(tuple(seeds))
    assert len(drawn) > 1
    report = entry.verify("reproduced", seeds=1000)
    assert report.reruns[TASK]["seeds"] == list(range(100, 120))


def test_other_source_is_noted(entry: Any) -> None:
    entry.content["method"]["source_sha256"] = "a" * 64
    report = entry.verify("reproduced")
    assert report.level == "reproduced" and report.exit_code == 0
    assert "another source hash" in report.notes[0] and "aaaaaaaaaaaa..." in report.notes[0]


# ---- another epoch ----


def test_a_committed_entry_of_an_earlier_epoch(call: Call) -> None:
    """Checked by what needs no engine of its epoch; never trained again by this one."""
    epoch = "0.1"
    path = SUBMISSIONS / epoch / "none.json"
    answer = call("verify", path)
    assert answer.code == 0 and answer.out.startswith("none: consistent\n")
    assert f"An entry of {epoch}: its untrained networks are those of {epoch}" in answer.out
    answer = call("verify", path, "--rerun", 1)
    assert answer.code == 2 and answer.out.startswith("none: consistent\n")
    assert f"An entry of {epoch} is not trained again by {EPOCH}" in answer.out
    assert "training seeds" not in answer.error


def test_what_an_entry_of_an_earlier_epoch_is_checked_for(entry: Any) -> None:
    entry.content["benchmark"] = "0.1"
    entry.curve()[0] += 1 / 500  # another epoch's untrained network
    assert verified_as_committed(entry).level == "consistent"
    entry.curve()[9] += 0.0005
    report = verified_as_committed(entry)
    assert report.level == "valid" and "no whole number" in str(report.faults[0])


def verified_as_committed(entry: Any) -> Report:
    path = entry.write()
    return verify(
        path,
        Checks(reruns.machine, no_first_points),
        {hashlib.sha256(path.read_bytes()).hexdigest()},
    )


def no_first_points(known: Any, submission: Any) -> Any:
    raise AssertionError("an untrained network of another epoch was built")


# ---- verified.json ----


def test_the_record(call: Call, tmp_path: Path, entry: Any) -> None:
    record = tmp_path / "verified.json"
    call("verify", entry.write(), "--record", record)
    recorded = read_verified(record)["early-stop"]
    assert (recorded["level"], recorded["reruns"], recorded["how"]) == ("consistent", {}, [])
    submission = Submission(entry.content, recorded["sha256"])
    assert level_of(submission, read_verified(record))[0] == "consistent"
    other = Submission(entry.content, "other")
    assert level_of(other, read_verified(record)) == ("valid", {})
    assert has_changed(other, read_verified(record))
    assert not has_changed(submission, read_verified(record))
    entry.content["score"] = 1
    call("verify", entry.write(), "--record", record)
    assert read_verified(record)["early-stop"] == recorded


def report(level: str, **changes: Any) -> Report:
    return Report("x.json", "x", "a" * 64, level, **changes)


def test_only_a_fault_lowers_a_record(tmp_path: Path) -> None:
    path = tmp_path / "verified.json"
    same = {"rule": "bit for bit", "how": "bit for bit", "hardware": "a processor"}
    agreed = {TASK: {"seeds": [100], "agree": True, **same}}
    add_report(path, report("reproduced", reruns=agreed))
    add_report(path, report("valid"))
    assert read_verified(path)["x"]["level"] == "reproduced"
    assert read_verified(path)["x"]["reruns"] == {TASK: [100]}
    assert read_verified(path)["x"]["rules"] == {TASK: "bit for bit"}
    assert read_verified(path)["x"]["hardware"] == {TASK: "a processor"}
    refuted = {TASK: {"seeds": [101], "agree": False, **same, "how": "not at all"}}
    add_report(path, report("consistent", reruns=refuted, faults=["seed 101 differs"]))
    entry = read_verified(path)["x"]
    assert (entry["level"], entry["reruns"], entry["how"]) == ("consistent", {}, [])
    changed = report("valid")
    changed.sha256 = "b" * 64
    add_report(path, changed)
    assert read_verified(path)["x"] == {**entry, "sha256": "b" * 64, "level": "valid"}


def test_verifications_that_end_at_once_are_all_recorded(tmp_path: Path) -> None:
    path = tmp_path / "verified.json"
    names = [f"entry-{number}" for number in range(8)]

    def add(name: str) -> None:
        for level in ("valid", "consistent"):
            add_report(path, Report(f"{name}.json", name, "a" * 64, level))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(add, names))
    recorded = read_verified(path)
    assert {name: entry["level"] for name, entry in recorded.items()} == dict.fromkeys(
        names, "consistent"
    )


@pytest.mark.parametrize("order", [("0.1", EPOCH), (EPOCH, "0.1")])
def test_a_name_that_two_epochs_have_keeps_both_records(
    tmp_path: Path, order: tuple[str, str], entry: Any
) -> None:
    path, files = tmp_path / "verified.json", {"0.1": "a" * 64, EPOCH: "b" * 64}
    for benchmark in order:
        digest = files[benchmark]
        add_report(path, Report("x.json", METHOD, digest, "consistent", benchmark=benchmark))
    found = read_verified(path)
    assert {key: one["sha256"] for key, one in found.items()} == {
        METHOD: "b" * 64,
        f"0.1/{METHOD}": "a" * 64,
    }
    assert digests(found) == {*files.values()}
    for benchmark, digest in files.items():
        submission = Submission({**entry.content, "benchmark": benchmark}, digest)
        assert level_of(submission, found)[0] == "consistent"
        assert not has_changed(submission, found)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"x": 1}', '{"x": {}}', '{"x": {"sha256": "a", "level": "best"}}', "\udcff"],
)
def test_a_broken_record_is_a_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "verified.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UsageError, match="restore the file"):
        add_report(path, report("valid"))


def test_levels_are_ordered() -> None:
    assert LEVELS == ("not valid", "valid", "consistent", "reproduced")
