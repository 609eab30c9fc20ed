"""Reading an untrusted submission: bounded in size, plain JSON, and only what its schema names."""

from __future__ import annotations

import functools
import itertools
import json
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import jsonschema_rs

from ht_bench.errors import UsageError
from ht_bench.records.record import Record

LARGEST_FILE = 8 * 2**20
"""Bytes of a submission; 20 tasks × 20 seeds of long curves take less than two million."""
MOST_VALUES = 1_000_000
"""Values in a file, by its commas and brackets: each takes many times its text in memory."""
LONGEST_NUMBER = 40
LONGEST_SENTENCE = 300
SCHEMA = 1
SCHEMA_FILE = Path(__file__).with_name("submission.schema.json")
CURVES = ("test/accuracy", "train/accuracy", "eval/return")
"""Curves that a submission may hold."""
MOST_FAULTS = 20
MOST_LISTED = 20_000
"""Values of a file whose faults are all asked for: the library makes an object of each fault."""

Place = tuple[str | int, ...]


class Refused(UsageError):
    """The file is no plain JSON of a bearable size; the sentence says where."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: where in the file (a JSON path) and what, in a sentence.

    Both are one line of printable ASCII of bounded length, whatever they quote.
    """

    path: str
    sentence: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", plain(self.path))
        object.__setattr__(self, "sentence", plain(self.sentence))

    def __str__(self) -> str:
        return f"{self.path}: {self.sentence}"


@dataclass(frozen=True, eq=False)
class Submission:
    """The content of a submission file that obeys the schema.

    content: the file as parsed. sha256: of the file's bytes ("" before it is written).
    """

    content: Mapping[str, Any]
    sha256: str = ""

    @property
    def name(self) -> str:
        """The entry's name, which is the file's too."""
        return str(self.content["name"])

    @property
    def benchmark(self) -> str:
        """The comparability epoch, major.minor of the ht-bench that made its runs."""
        return str(self.content["benchmark"])

    @property
    def method(self) -> Mapping[str, Any]:
        """Name, summary, citation, source hash, traits."""
        return dict(self.content["method"])

    @property
    def tasks(self) -> Mapping[str, Mapping[str, Any]]:
        """Task name → its hash, hyperparameters, grid, seeds."""
        return dict(self.content["tasks"])

    def seeds(self, task: str) -> tuple[int, ...]:
        """Return the seeds of a task, ascending."""
        return tuple(sorted(map(int, self.tasks[task]["seeds"])))

    def record(self, task: str, seed: int, random: float | None = None) -> Record:
        """Return one seed as a record that `records.metrics` reads.

        random: the return of a uniform policy, for tasks of environments.
        """
        table = self.tasks[task]
        run = table["seeds"][str(seed)]
        record = {
            "task": task,
            "method": self.name,
            "seed": seed,
            **{key: run[key] for key in ("status", "retention", "steps")},
            "curve": {**table["grid"], **run["curve"]},
        }
        if random is not None:
            record["reference"] = {"random": random, "human": None}
        return record

    def software(self, task: str) -> dict[str, Any]:
        """Return the versions that a task was run with."""
        return dict(self.tasks[task]["software"])


def read_bounded(path: Path) -> bytes:
    """Return a file's bytes.

    Raises Refused for more than LARGEST_FILE of them, UsageError where there is no regular file
    to read: nothing is there, or a folder, a pipe, a device.
    """
    where = plain(str(path))
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for without end
            raise UsageError(f"Could not read {where}: it is not a file.")
        with path.open("rb") as handle:
            data = handle.read(LARGEST_FILE + 1)
    except UsageError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"Could not read {where}: {plain(reason)}.") from error
    if len(data) > LARGEST_FILE:
        raise Refused(
            f"{where} is larger than {LARGEST_FILE // 2**20} MiB, the most a file may be."
        )
    return data


def count_values(data: bytes) -> int:
    """Return how many values JSON text holds at most."""
    return sum(map(data.count, (b"[", b"{", b",")))


def parse_untrusted(data: bytes, path: Path) -> Any:
    """Return JSON text as dicts, lists, strings, finite numbers, bools and None.

    Raises Refused for text that is not UTF-8, holds more than MOST_VALUES, nests deeper than the
    parser follows, or holds a repeated key, NaN, an infinity, or a number of more than
    LONGEST_NUMBER characters. path: of the file, for the sentences.
    """
    where = plain(str(path))
    if count_values(data) > MOST_VALUES:
        raise Refused(f"{where} holds more than {MOST_VALUES:,} values.")
    try:
        return json.loads(
            data.decode(),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_number(float, sys.float_info.max),
            parse_int=_number(int, 2**63 - 1),
        )
    except RecursionError as error:
        raise Refused(f"{where} is nested too deeply.") from error
    except ValueError as error:
        raise Refused(f"{where} is not valid JSON: {plain(str(error))}.") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {shown(name)} stands twice in one object")
    return table


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _number(kind: Callable[[str], float], most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if len(text) > LONGEST_NUMBER:
            raise ValueError(f"the number {text[:10]}... has more than {LONGEST_NUMBER} characters")
        number = kind(text)
        if abs(number) > most:
            raise ValueError(f"the number {text} is too large")
        return number

    return parse


def schema() -> dict[str, Any]:
    """Return the published JSON Schema (draft 2020-12) of a submission file."""
    return dict(json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))


def schema_faults(document: Any, most: int = MOST_FAULTS) -> list[Fault]:
    """Return what in a parsed file breaks the schema, at most `most` of it.

    A whole number is to be written without a point, though JSON Schema takes 1.0 for one.
    """
    latest, draft4 = _validators()
    try:
        if errors := _errors(latest, document, most):
            return [Fault(_path(error, document), _sentence(error)) for error in errors]
        # The document obeys the schema: all that an early draft sees more is a point.
        pointed = _errors(draft4, document, most)
    except UnicodeEncodeError:
        return [Fault("$", "a string holds half a surrogate pair.")]
    except ValueError as error:  # the library's "Recursion limit reached"
        return [Fault("$", f"is nested too deeply ({error}).")]
    said = "a whole number is written without a point."
    return [Fault(_path(error, document), said) for error in pointed]


def _errors(validator: Any, document: Any, most: int) -> list[Any]:
    if most > 1:
        return list(itertools.islice(validator.iter_errors(document), most))
    try:
        validator.validate(document)
    except jsonschema_rs.ValidationError as error:
        return [error]
    return []


def _sentence(error: Any) -> str:
    if "\\p{Cc}" in str(getattr(error.kind, "pattern", "")):
        return "holds a control character, or a mark that does not show."
    return f"{plain(error.message)}."


def _path(error: Any, document: Any) -> str:
    return json_path(_place(error.instance_path, document))


def _place(parts: Iterable[str | int], document: Any) -> Iterator[str | int]:
    """Yield a place's steps: the library gives a key of digits, such as a seed's, as a number."""
    for part in parts:
        if isinstance(document, dict):
            part = str(part)
            document = document.get(part)
        elif isinstance(document, list) and isinstance(part, int):
            document = document[part]
        yield part


def json_path(parts: Iterable[str | int]) -> str:
    """Write a place in a file: $.tasks['permuted-digits-v1'].seeds['100'].curve."""
    return "$" + "".join(map(_step, parts))


def _step(part: str | int) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    return f".{part}" if part.isidentifier() and part.isascii() else f"[{shown(part)}]"


@functools.cache
def _validators() -> tuple[Any, Any]:
    """Return the schema's validator, and one that reads it as draft 4, where 1.0 is no integer."""
    rules = schema()
    latest = jsonschema_rs.Draft202012Validator(rules, mask="the value")
    del rules["$schema"], rules["$id"]
    return latest, jsonschema_rs.Draft4Validator(rules, mask="the value")


def shown(text: str, length: int = 60) -> str:
    """Return untrusted text as one that can stand in a sentence: short, escaped, quoted."""
    cut = text if len(text) <= length else text[:length] + "…"
    return ascii(cut).replace("\\u2026'", "...'")


def plain(text: str, length: int = LONGEST_SENTENCE) -> str:
    """Return a sentence that may quote untrusted text as one line of printable ASCII, cut."""
    cut = text if len(text) <= length else text[:length] + "…"
    return "".join(c if " " <= c <= "~" else _ESCAPES.get(c) or ascii(c)[1:-1] for c in cut)


_ESCAPES = {"…": "...", "×": "x"}
