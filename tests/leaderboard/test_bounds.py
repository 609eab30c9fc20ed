"""Memory stays bounded, whatever a file holds; so does work, by the size and the values."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ht_bench.leaderboard.reading import LARGEST_FILE, MOST_VALUES, count_values

MOST_MIB = 768
"""Of resident memory for a whole verifying process, torch and its libraries included."""
PROGRAM = """
import json, resource, sys
from ht_bench.cli import main
import torch
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))

def peak():
    with open("/proc/self/status") as handle:
        return next(int(line.split()[1]) for line in handle if line.startswith("VmHWM")) // 1024

first = peak()
for path in sys.argv[1:]:
    with open("/proc/self/clear_refs", "w") as handle:
        handle.write("5")
    code = main(["verify", path, "--level", "valid"])
    print(json.dumps([path, code, first, peak()]), file=sys.stderr)
"""


def filled(opened: str, unit: str, closed: str, size: int = LARGEST_FILE) -> bytes:
    """Return a text of just under `size` bytes, `unit` repeated."""
    count = (size - len(opened) - len(closed)) // len(unit) - 1
    return (opened + unit * count + unit.rstrip(",") + closed).encode()


def in_curve(text: bytes, honest: bytes) -> bytes:
    """Put `text` in place of the first curve of the honest file."""
    before, key, after = honest.partition(b'"test/accuracy": ')
    rest = after[after.index(b"]") + 1 :]
    return before + key + text[: LARGEST_FILE - len(honest) - 8].rstrip(b",]") + b"]" + rest


def hostile_files(honest: bytes) -> dict[str, bytes]:
    letters = "".join(f'"{index:x}":0,' for index in range(600_000))
    return {
        "a string of 100 MB": b'{"name": "' + b"x" * 100_000_000 + b'"}',
        "one string": filled('{"name": "', "x", '"}'),
        "one wide string": filled('{"name": "', "\\ud83d\\ude00", '"}'),
        "lists": filled("[", "[],", "]"),
        "objects": filled("[", "{},", "]"),
        "pairs": filled("[", '{"a":0},', "]"),
        "numbers": filled("[", "1.5,", "]"),
        "as many numbers as may be": filled("[", "1.5,", "]", 3_980_000),
        "as many nested objects as may be": filled(
            "[", '{"":' * 900 + "0" + "}" * 900 + ",", "]", 4_990_000
        ),
        "opened": b"[" * (LARGEST_FILE - 1),
        "opened objects": filled("", '{"a":', ""),
        "digits": b"9" * (LARGEST_FILE - 1),
        "fraction": b"0." + b"9" * (LARGEST_FILE - 8),
        "a key twice at the end": b"{" + letters.encode() + b'"927bf":0}',
        "wrong values": in_curve(filled("[", '"x",', "]", 3_900_000), honest),
        "long curve": in_curve(filled("[", "0.5,", "]", 3_900_000), honest),
        "fractions": honest.replace(b'"step": [0,', b'"step": [0.0' + b",0.0" * 90_000 + b","),
        "unexpected": honest[:-3] + b"," + letters.encode() + b'"zz": 1}',
    }


@pytest.mark.skipif(sys.platform != "linux", reason="reads and resets the peak in /proc")
def test_hostile_sizes(honest_bytes: bytes, tmp_path: Path) -> None:
    paths = []
    for name, data in hostile_files(honest_bytes).items():
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_bytes(data)
    command = [sys.executable, "-c", PROGRAM, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stderr.splitlines()]
    assert len(rows) == len(paths)
    for path, code, first, peak in rows:
        print(f"{Path(path).stem}: {peak} MiB ({first} before)")
        assert code == 1 and peak < MOST_MIB, path
    assert max(map(len, done.stdout.splitlines())) < 800


def test_the_files_are_what_they_are_called(honest_bytes: bytes) -> None:
    """Under the bound of size, but for the first, so that something else must refuse them."""
    files = hostile_files(honest_bytes)
    assert [k for k, data in files.items() if len(data) > LARGEST_FILE] == ["a string of 100 MB"]
    assert len(files["lists"]) > LARGEST_FILE - 20
    for name in ("numbers", "nested objects"):
        assert 0.98 < count_values(files[f"as many {name} as may be"]) / MOST_VALUES < 1
