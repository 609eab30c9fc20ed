"""`ht-bench verify`: levels, exit codes, JSON, seeds, and the record of what was reached."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ht_bench.errors import UsageError
from ht_bench.leaderboard.reading import Submission
from ht_bench.leaderboard.verify import LEVELS, Report, add_report, level_of, read_verified

Content = dict[str, Any]
Call = Callable[..., Any]
Write = Callable[..., Path]
Verify = Callable[..., Any]
TASK = "quick-digits-v1"


def curve(table: Content, seed: int = 100) -> list[float]:
    found: list[float] = table["seeds"][str(seed)]["curve"]["test/accuracy"]
    return found


# ---- the command ----


def test_levels_and_exit_codes(
    call: Call, honest_bytes: bytes, content: Content, table: Content, write: Write
) -> None:
    path = write(honest_bytes)
    answer = call("verify", path, "--level", "valid")
    assert (answer.code, answer.out) == (0, "early-stop: valid\n")
    answer = call("verify", path)
    assert (answer.code, answer.out) == (0, "early-stop: consistent\n")
    curve(table)[0] = 0.9
    answer = call("verify", write(content))
    assert answer.code == 1 and answer.out.startswith("early-stop: valid\n  $.tasks[")
    assert call("verify", path, "--level", "valid").code == 0
    content["score"] = 1.0
    answer = call("verify", write(content))
    assert answer.code == 1
    assert answer.out.startswith("'early-stop.json': not valid\n  $: ") and "score" in answer.out


def test_a_rerun_reproduces_bit_for_bit(call: Call, honest_bytes: bytes, write: Write) -> None:
    answer = call("verify", write(honest_bytes), "--rerun", 1, "--json")
    assert answer.code == 0
    found = json.loads(answer.out)
    assert (found["level"], found["exit_code"], found["notes"]) == ("reproduced", 0, [])
    again = found["reruns"][TASK]
    assert again["agree"] is True and again["how"] == "bit for bit"
    assert len(again["seeds"]) == 1 and again["seeds"][0] in range(100, 120)
    assert "training seeds" in answer.error


def test_a_rerun_catches_one_edited_point(
    call: Call, content: Content, table: Content, write: Write
) -> None:
    curve(table, 104)[-1] = round(curve(table, 104)[-1] + 1 / 500, 3)
    path = write(content)
    assert call("verify", path).code == 0
    answer = call("verify", path, "--seeds", "104")
    assert answer.code == 1
    assert answer.out.startswith("early-stop: consistent\n")
    assert "trained again, seed 104 differs: test/accuracy at point 20 is" in answer.out
    assert "agree not at all" in answer.out


def test_several_files_and_json(
    call: Call, honest_bytes: bytes, content: Content, write: Write
) -> None:
    good = write(honest_bytes)
    content["name"], content["split"] = "bad", "train"
    bad = write(content, "bad.json")
    answer = call("verify", good, bad, "--level", "valid", "--json")
    assert answer.code == 1
    found = json.loads(answer.out)
    assert [one["level"] for one in found] == ["valid", "not valid"]
    assert [one["exit_code"] for one in found] == [0, 1]
    assert found[1]["faults"] == [{"path": "$.split", "sentence": '"test" was expected.'}]
    assert set(found[0]) == {
        *("file", "name", "sha256", "level", "faults", "could_not", "notes", "reruns"),
        "exit_code",
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
def test_wrong_use_is_a_sentence(
    call: Call, honest_bytes: bytes, write: Write, words: tuple[str, ...], said: str
) -> None:
    answer = call("verify", write(honest_bytes), *words)
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


def test_nothing_of_a_file_reaches_the_terminal_raw(
    content: Content, table: Content, write: Write, verify_file: Verify, call: Call
) -> None:
    """Names and values of software and hardware are free text; notes quote them escaped."""
    text = "1\nearly-stop: reproduced é" + "x" * 150
    table["software"] |= {"torch": text, "a\nb": text}
    table["hardware"] |= {f"k{index}": text for index in range(30)}
    report = verify_file(write(content), "reproduced")
    assert report.level == "reproduced" and report.notes
    for said in report.notes:
        assert said.isascii() and said.isprintable() and len(said) < 400
    assert call("verify", write(content), "--level", "valid").out == "early-stop: valid\n"


# ---- levels ----


def test_every_seed_is_compared(
    content: Content, table: Content, write: Write, verify_file: Verify
) -> None:
    assert verify_file(write(content), "reproduced").level == "reproduced"
    for seed in (100, 119):
        kept = curve(table, seed)[1:]
        curve(table, seed)[1] += 1 / 500
        report = verify_file(write(content), "reproduced")
        assert report.level == "consistent" and f"seed {seed} differs" in str(report.faults[0])
        curve(table, seed)[1:] = kept


@pytest.mark.parametrize(("key", "value"), [("status", "diverged"), ("steps", 39)])
def test_more_than_curves_is_compared(
    key: str, value: Any, content: Content, table: Content, write: Write, verify_file: Verify
) -> None:
    table["seeds"]["101"][key] = value
    report = verify_file(write(content), "reproduced")
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
def test_what_a_submission_claims_of_its_method(
    place: str, value: Any, content: Content, table: Content, write: Write, verify_file: Verify
) -> None:
    """The board shows whether a method is told of boundaries and what it holds: it must be so."""
    target = content["method"] if place == "needs_boundaries" else table
    assert target[place] != value
    target[place] = value
    report = verify_file(write(content), "reproduced")
    assert report.exit_code == 1
    assert place in report.faults[0].path and "not what the method" in report.faults[0].sentence


def test_seeds_are_drawn_at_random(honest_bytes: bytes, write: Write, verify_file: Verify) -> None:
    drawn = set()
    for _ in range(8):
        report = verify_file(write(honest_bytes), "reproduced", seeds=2)
        seeds = report.reruns[TASK]["seeds"]
        assert len(set(seeds)) == 2 and set(seeds) <= set(range(100, 120))
        drawn.add(tuple(seeds))
    assert len(drawn) > 1
    report = verify_file(write(honest_bytes), "reproduced", seeds=1000)
    assert report.reruns[TASK]["seeds"] == list(range(100, 120))


def other_machine(records: Mapping[int, Content]) -> Callable[..., Any]:
    def rerun(known: Any, submission: Any, seeds: Any) -> Any:
        software = {**records[100]["software"], "torch": "9.9"}
        return {seed: {**records[seed], "software": software} for seed in seeds}

    return rerun


@pytest.mark.parametrize(
    ("change", "agree"), [(0.0, True), (0.018, True), (0.022, False), (-0.03, False)]
)
def test_on_other_software_the_tasks_tolerance_is_asked(
    change: float,
    agree: bool,
    content: Content,
    table: Content,
    records: Mapping[int, Content],
    write: Write,
    verify_file: Verify,
) -> None:
    """Tolerance 0.02, of the mean distance of the curves and of the final metric."""
    values = curve(table)
    values[1:] = [min(1.0, round(value + change, 3)) for value in values[1:]]
    report = verify_file(write(content), "reproduced", rerun=other_machine(records))
    assert (report.level == "reproduced") is agree
    assert "other software (torch 9.9, not " in report.notes[0]
    how = report.reruns[TASK]["how"]
    assert how == ("bit for bit" if not change else "within 0.02" if agree else "not at all")


def test_one_far_point_at_the_end_is_no_agreement(
    content: Content,
    table: Content,
    records: Mapping[int, Content],
    write: Write,
    verify_file: Verify,
) -> None:
    curve(table)[-1] = round(curve(table)[-1] - 0.04, 3)
    report = verify_file(write(content), "reproduced", rerun=other_machine(records))
    assert "final metric by 0.04" in report.faults[0].sentence


def test_other_source_is_noted(content: Content, write: Write, verify_file: Verify) -> None:
    content["method"]["source_sha256"] = "a" * 64
    report = verify_file(write(content), "reproduced")
    assert report.level == "reproduced" and report.exit_code == 0
    assert "another source hash" in report.notes[0] and "aaaaaaaaaaaa..." in report.notes[0]


# ---- verified.json ----


def test_the_record(call: Call, honest_bytes: bytes, content: Content, write: Write) -> None:
    record = write("{}", "verified.json")
    record.unlink()
    call("verify", write(honest_bytes), "--record", record)
    entry = read_verified(record)["early-stop"]
    assert (entry["level"], entry["reruns"], entry["how"]) == ("consistent", {}, [])
    submission = Submission(content, entry["sha256"])
    assert level_of(submission, read_verified(record))[0] == "consistent"
    assert level_of(Submission(content, "other"), read_verified(record)) == ("valid", {})
    content["score"] = 1
    call("verify", write(content), "--record", record)
    assert read_verified(record)["early-stop"] == entry


def report(level: str, **changes: Any) -> Report:
    return Report("x.json", "x", "a" * 64, level, **changes)


def test_only_a_fault_lowers_a_record(tmp_path: Path) -> None:
    path = tmp_path / "verified.json"
    agreed = {TASK: {"seeds": [100], "agree": True, "how": "bit for bit"}}
    add_report(path, report("reproduced", reruns=agreed))
    add_report(path, report("valid"))
    assert read_verified(path)["x"]["level"] == "reproduced"
    assert read_verified(path)["x"]["reruns"] == {TASK: [100]}
    refuted = {TASK: {"seeds": [101], "agree": False, "how": "not at all"}}
    add_report(path, report("consistent", reruns=refuted, faults=["seed 101 differs"]))
    entry = read_verified(path)["x"]
    assert (entry["level"], entry["reruns"], entry["how"]) == ("consistent", {}, [])
    changed = report("valid")
    changed.sha256 = "b" * 64
    add_report(path, changed)
    assert read_verified(path)["x"] == {**entry, "sha256": "b" * 64, "level": "valid"}


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
