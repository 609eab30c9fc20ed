"""Seeds as text: "100-119,7" and back."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable

from ht_bench.errors import UsageError


def parse_seeds(value: object, where: str = "--seeds") -> tuple[int, ...]:
    """Read seeds from text such as "100-119,7", an integer, or a list of integers.

    Order is kept, repeats are dropped. Raises UsageError for anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    if isinstance(value, str):
        numbers = [number for part in value.split(",") for number in _parse_part(part, where)]
    elif isinstance(value, Iterable):
        numbers = [_integer(number, where) for number in value]
    else:
        raise UsageError(f"{where}: {value!r} is not a list of seeds; write e.g. 100-119 or 1,2,3.")
    if not numbers:
        raise UsageError(f"{where}: no seeds were given; write e.g. 100-119 or 1,2,3.")
    return tuple(dict.fromkeys(numbers))


def _integer(number: object, where: str) -> int:
    try:
        return operator.index(number)  # type: ignore[arg-type]
    except TypeError as error:
        raise UsageError(f"{where}: {number!r} is not a seed; give integers.") from error


def _parse_part(part: str, where: str) -> Iterable[int]:
    match = re.fullmatch(r"\s*(-?\d+)(?:-(-?\d+))?\s*", part)
    if match is None:
        raise UsageError(f"{where}: '{part}' is not a seed; write e.g. 100-119 or 1,2,3.")
    first = int(match[1])
    last = first if match[2] is None else int(match[2])
    if last < first:
        raise UsageError(f"{where}: the range '{part}' runs backwards; write {last}-{first}.")
    return range(first, last + 1)


def format_seeds(seeds: Iterable[int]) -> str:
    """Write seeds shortly: (100, 101, 102, 7) → "100-102,7"."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
