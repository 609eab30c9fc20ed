"""Seeds as text: "100-119,7" and back."""

from __future__ import annotations

import itertools
import numbers
import operator
import re
from collections.abc import Iterable

from ht_bench.errors import UsageError, shown

LARGEST_RANGE = 100_000
"""Seeds that one range may name: a slip of the finger must not fill the memory."""
MOST_SEEDS = 10 * LARGEST_RANGE
"""Seeds that all ranges together may name."""


def parse_seeds(value: object, where: str = "--seeds") -> tuple[int, ...]:
    """Read seeds from text such as "100-119,7", an integer, or a list of integers.

    Order is kept, repeats are dropped. Raises UsageError for anything else.
    """
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return (int(value),)
    if isinstance(value, str):
        every = (seed for part in value.split(",") for seed in _parse_part(part, where))
        seeds = list(itertools.islice(every, MOST_SEEDS + 1))
    elif isinstance(value, Iterable):
        seeds = [_integer(seed, where) for seed in value]
    else:
        raise UsageError(
            f"{where}: {shown(value)} is not a list of seeds; write e.g. 100-119 or 1,2,3."
        )
    if not seeds:
        raise UsageError(f"{where}: no seeds were given; write e.g. 100-119 or 1,2,3.")
    if len(seeds) > MOST_SEEDS:
        raise UsageError(f"{where}: more than {MOST_SEEDS:,} seeds; name fewer.")
    return tuple(dict.fromkeys(seeds))


def _integer(number: object, where: str) -> int:
    try:
        return operator.index(number)  # type: ignore[arg-type]
    except TypeError as error:
        raise UsageError(f"{where}: {shown(number)} is not a seed; give integers.") from error


def _parse_part(part: str, where: str) -> Iterable[int]:
    match = re.fullmatch(r"\s*(-?\d{1,99})(?:-(-?\d{1,99}))?\s*", part)
    if match is None:
        raise UsageError(f"{where}: {shown(part)} is not a seed; write e.g. 100-119 or 1,2,3.")
    first = int(match[1])
    last = first if match[2] is None else int(match[2])
    if last < first:
        raise UsageError(f"{where}: the range '{part}' runs backwards; write {last}-{first}.")
    if last - first >= LARGEST_RANGE:
        raise UsageError(
            f"{where}: the range '{part}' has {last - first + 1:,} seeds; at most "
            f"{LARGEST_RANGE:,} are read at once."
        )
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
