"""A reader with one fault, which the fuzzer must tell: case 5 of its cases."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path
from random import Random

from ht_bench.errors import UsageError

from .reader import Files, Reader

FAULT = 5


def numbered(files: Files, draw: Random) -> Files:
    """The file says which case it is."""
    numbers = [
        number for number in range(8) if Random(f"planted {number}").getstate() == draw.getstate()
    ]
    return {"file": str(numbers[0]).encode()}


def read(place: Path) -> None:
    if (place / "file").read_text(encoding="ascii") != str(FAULT):
        return
    fault = os.environ["HT_BENCH_PLANTED"]
    if fault == "error":
        raise KeyError("x")
    if fault == "crash":
        ctypes.string_at(0)
    if fault == "hang":
        time.sleep(60)
    if fault == "command":
        os.system("true")
    if fault == "canary":
        Path("canary").touch()
    if fault == "memory":
        bytearray(2**30)
    if fault == "silence":
        raise UsageError("something is wrong")
    if fault == "lines":
        raise UsageError(f"{place / 'file'} is\nwrong")


READERS = {"planted": Reader(lambda: {"file": b"-1"}, numbered, read)}
