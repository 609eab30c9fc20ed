"""One process that reads mutated files, within bounds; what goes wrong is told as a line of JSON.

Its memory may grow by MEMORY, its files by FILE bytes, and each case ends within SECONDS. Whatever
starts a program or opens a connection is told, and so is a file that nobody was to write.
"""

from __future__ import annotations

import faulthandler
import json
import os
import re
import resource
import shutil
import sys
import traceback
from pathlib import Path
from random import Random
from typing import Any

MEMORY = 512 * 2**20
"""Bytes of data that reading one file may need beyond what the process needs anyway."""
FILE = 256 * 2**20
SECONDS = float(os.environ.get("HT_BENCH_FUZZ_SECONDS", "30"))
"""Of one case; an honest file takes milliseconds, and other work may share the machine."""
LONGEST_SENTENCE = 1_500
SUSPECT = re.compile(r"os\.(system|exec|posix_spawn|fork|spawn)|subprocess\.|pty\.|socket\.connect")


def readers() -> dict[str, Any]:
    """Return every reader by name; the modules import torch and pyarrow only when one is used."""
    from . import data, planted, state, texts

    return {**texts.READERS, **data.READERS, **state.READERS, **planted.READERS}


class Watch:
    """Notes what no reader may do."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if SUSPECT.match(event):
            self.seen.append(f"{event} {str(arguments)[:200]}")


def _data_bytes() -> int:
    """Bytes of private, writable memory."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"VmData:\s+(\d+)", text)[1]) * 1024  # type: ignore[index]


def limit() -> None:
    """Bound this process's memory by what it has now."""
    resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + MEMORY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE, resource.RLIM_INFINITY))


def fault_of(error: Exception, place: Path) -> str:
    """Say why an error is none that a user should see; "" for a sentence that names the file."""
    from ht_bench.errors import UsageError

    text = str(error)
    if not isinstance(error, UsageError):
        return f"raises {type(error).__name__}"
    if "\n" in text or len(text) > LONGEST_SENTENCE:
        return "raises no sentence"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "raises a sentence that cannot be printed"
    if re.search(r"[\x00-\x1f\x7f-\x9f]", text):
        return "raises a sentence with control characters"
    return "" if str(place) in text else "raises a sentence that does not name the file"


class Fuzzer:
    """Reads the cases of one reader in the folder `place`."""

    def __init__(self, name: str, place: Path, watch: Watch) -> None:
        from .reader import put

        self.name, self.reader, self.place, self.watch = name, readers()[name], place, watch
        shutil.rmtree(place, ignore_errors=True)
        self.honest, self.put = self.reader.files(), put
        put(place, self.honest)
        self.reader.read(place)  # imports, and warms caches
        self.reader.read(place)
        put(place, self.honest)
        self.names = self._files()

    def _files(self) -> set[str]:
        return {str(file.relative_to(self.place)) for file in self.place.rglob("*")}

    def case(self, number: int) -> tuple[str, str]:
        """Return (outcome, details): "read", "refused", or what is wrong."""
        changed = self.reader.mutate(self.honest, Random(f"{self.name} {number}"))
        self.put(self.place, changed)
        self.watch.seen.clear()
        outcome, details = "read", ""
        try:
            self.reader.read(self.place)
        except Exception as error:
            fault = fault_of(error, self.place)
            short = "".join(traceback.format_exception(error))[-3_000:]
            outcome, details = (fault, short) if fault else ("refused", str(error))
        if self.watch.seen:
            outcome, details = "runs code", str(self.watch.seen)
        if strange := self._files() - self.names:
            outcome, details = "leaves files", str(sorted(strange)[:5])
            shutil.rmtree(self.place)
            self.place.mkdir()
            changed = self.honest
        if Path("canary").exists() or (self.place.parent / "canary").exists():
            outcome, details = "runs code", "the canary is there"
            for canary in (Path("canary"), self.place.parent / "canary"):
                canary.unlink(missing_ok=True)
        self.put(self.place, {name: self.honest[name] for name in changed if name in self.honest})
        for name in set(changed) - set(self.honest):
            (self.place / name).unlink(missing_ok=True)
        return outcome, details


def tell(**facts: Any) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def main(work: str, first: str, end: str, names: str) -> int:
    """Read the cases `first` to `end` of each reader of `names`, in the folder `work`."""
    faulthandler.enable()
    watch, folder = Watch(), Path(work)
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    at = os.open(folder / "at", os.O_RDWR | os.O_CREAT)
    for name in names.split(","):
        os.pwrite(at, f"{name} -1".ljust(60).encode(), 0)
        fuzzer = Fuzzer(name, folder / "files", watch)
        limit()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        counts: dict[str, int] = {}
        for number in range(int(first), int(end)):
            os.pwrite(at, f"{name} {number}".ljust(60).encode(), 0)
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            outcome, details = fuzzer.case(number)
            faulthandler.cancel_dump_traceback_later()
            counts[outcome] = counts.get(outcome, 0) + 1
            if outcome not in ("read", "refused"):
                tell(reader=name, case=number, outcome=outcome, details=details)
        resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY,) * 2)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        tell(reader=name, counts=counts, first=int(first), mib=grown // 1024)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
