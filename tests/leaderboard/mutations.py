"""Mutations of a submission, each of which knows what it does to the honest file.

BROKEN breaks a rule of *valid*, INCONSISTENT shows when untrained networks are recomputed, FORGED
only when seeds are trained again, FINE breaks nothing, ANY may be either. Loaded by the fixture
`mutations`.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hypothesis import strategies as st

BROKEN, INCONSISTENT, FORGED, ANY, FINE = "broken", "inconsistent", "forged", "any", "fine"
MARK = "@@mark@@"
TASK = ("tasks", "quick-digits-v1")
FREE = {"hyperparameters", "network", "software", "hardware"}
PROSE = {"authors", "summary", "citation", "how"}
JUNK = [None, True, 0, 1.5, "", "x", [], {}, [[]], {"score": 1}, ["a"], "NaN", {"__class__": "os"}]
KEYS = [
    *("score", "mean", "", "__proto__", "$ref", "100.5", "../../etc/passwd", "a\nb", "é"),
    "k" * 61,
]
TOKENS = [
    *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1E+400", "9" * 50, "0." + "1" * 50),
    *(str(2**63), str(-(2**63)), "01", "+1", ".5", "1.", "0x10", "1_000", "undefined", "'a'"),
]
PATHS = ["../../etc/passwd", "/abs", "..", "a/b", "./a", "~/x", "C:\\x", "a.py:B", "x\n", "-", ""]
HIDDEN = ["\0", "\x1b", "\t", "\x7f", "\x9b", "\u202e", "\u2067", "\u200b", "\u2028", "\ufeff"]
HIDDEN += ["\ud800", "\udfff", "\U000e0041"]
SHOWN = ["\U0001f600", "é", "中", "<script>alert(1)</script>", "'\"&<>", "{{ 7 * 7 }}", "\n", "%s"]
LENGTHS = [3_000, 100_000]
Place = tuple[str | int, ...]
Draw = Callable[[st.SearchStrategy[Any]], Any]


class Mutant:
    """A document being mutated; `replacements` are made in its text at the end."""

    def __init__(self, honest: bytes, draw: Draw) -> None:
        self.document: Any = json.loads(honest)
        self.draw, self.replacements = draw, dict[str, str]()
        self.encode: Callable[[str], bytes] = str.encode

    def pick(self, options: Any) -> Any:
        return copy.deepcopy(self.draw(st.sampled_from(list(options))))

    def place(self, wanted: Callable[[Place, Any], bool] = lambda path, value: True) -> Place:
        """Choose a place by its kind first: most places are points of curves."""
        kinds: dict[Place, list[Place]] = {}
        for path, value in walk(self.document):
            if wanted(path, value):
                kinds.setdefault(kind_of(path), []).append(path)
        return tuple(self.pick(kinds[self.pick(kinds)]))

    def get(self, path: Place) -> Any:
        value = self.document
        for part in path:
            value = value[part]
        return value

    def put(self, path: Place, value: Any) -> None:
        if path:
            self.get(path[:-1])[path[-1]] = value
        else:
            self.document = value

    def bytes(self) -> bytes:
        text = json.dumps(self.document)
        for old, new in self.replacements.items():
            text = text.replace(old, new)
        return self.encode(text)


def walk(value: Any, path: Place = ()) -> Iterator[tuple[Place, Any]]:
    yield path, value
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from walk(item, (*path, key))


def kind_of(path: Place) -> Place:
    return tuple("#" if str(part).isdigit() else part for part in path)


def is_free(path: Place) -> bool:
    """Inside a map of the submitter's own keys."""
    return bool(FREE & set(path[:-1]))


def is_number(path: Place, value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not is_free(path)


def kind_of_value(value: Any) -> str:
    return "number" if is_number((), value) else type(value).__name__


def wrong_type(m: Mutant) -> str:
    path = m.place()
    present = kind_of_value(m.get(path))
    m.put(path, m.pick(junk for junk in JUNK if kind_of_value(junk) != present))
    return ANY if is_free(path) else BROKEN


def drop(m: Mutant) -> str:
    path = m.place(lambda path, value: bool(path))
    holder = m.get(path[:-1])
    del holder[path[-1]]
    return ANY if is_free(path) else FINE if path[:1] == ("authors",) != path and holder else BROKEN


def add_key(m: Mutant) -> str:
    path = m.place(lambda path, value: isinstance(value, dict))
    key = m.pick(KEYS)
    m.get(path)[key] = m.pick(JUNK)
    return ANY if path and path[-1] in FREE and 0 < len(key) <= 60 else BROKEN


def rename(m: Mutant) -> str:
    path = m.place(lambda path, value: bool(path) and isinstance(path[-1], str))
    holder = m.get(path[:-1])
    holder[m.pick([*PATHS, "a.toml", "99", "120", "0100", "x" * 3000])] = holder.pop(path[-1])
    return ANY if is_free(path) else BROKEN


def repeat_key(m: Mutant) -> str:
    path = m.place(lambda path, value: bool(path) and isinstance(path[-1], str))
    m.get(path[:-1])[MARK] = m.pick([m.get(path), *JUNK])
    m.replacements[json.dumps(MARK)] = json.dumps(path[-1])
    return BROKEN


def odd_token(m: Mutant) -> str:
    m.put(m.place(), MARK)
    m.replacements[json.dumps(MARK)] = m.pick(TOKENS)
    return BROKEN


def nest(m: Mutant) -> str:
    depth, (opened, closed) = m.pick([3, 13, 500, 100_000]), m.pick([("[", "]"), ('{"a":', "}")])
    m.put(m.place(), MARK)
    m.replacements[json.dumps(MARK)] = opened * depth + "1" + closed * m.pick([depth, depth - 1])
    return BROKEN


def resize(m: Mutant) -> str:
    path = m.place(lambda path, value: isinstance(value, list) and not is_free(path))
    values = m.get(path)
    new = [[], values[:-1], [*values, values[-1]], values[:21] * 60, values[:21] * 5_000]
    m.put(path, m.pick([one for one in new if path[-1] != "authors" or not 0 < len(one) < 51]))
    return BROKEN


def out_of_range(m: Mutant) -> str:
    m.put(m.place(is_number), m.pick([-1, -0.001, 1e308, -(2**62)]))
    return BROKEN


def with_a_point(m: Mutant) -> str:
    path = m.place(lambda path, value: is_number(path, value) and "curve" not in path)
    value = float(m.get(path))
    m.put(path, value)
    return FINE if path[-1] == "seconds" else BROKEN


def long_text(m: Mutant) -> str:
    if m.pick([True, False]):
        m.put(m.place(lambda path, value: isinstance(value, str)), "x" * m.pick(LENGTHS))
    else:
        m.get(m.place(lambda path, value: isinstance(value, dict)))["x" * m.pick(LENGTHS)] = 1
    return BROKEN


def odd_text(m: Mutant) -> str:
    path = m.place(lambda path, value: isinstance(value, str))
    text, character = m.get(path), m.pick(HIDDEN + SHOWN)
    at = m.pick([0, len(text) // 2, len(text)])
    m.put(path, text[:at] + character + text[at:])
    if character in HIDDEN:
        return BROKEN
    return FINE if PROSE & set(path) else ANY if is_free(path) or "link" in path else BROKEN


def path_like(m: Mutant) -> str:
    path = m.place(lambda path, value: isinstance(value, str) and not PROSE & set(path))
    m.put(path, m.pick(value for value in PATHS if value != m.get(path)))
    return ANY if is_free(path) else FINE if path == ("link",) and not m.get(path) else BROKEN


def other_hash(m: Mutant) -> str:
    path = m.place(lambda path, value: str(path[-1:]).endswith("sha256',)"))
    old = m.get(path)
    m.put(path, m.pick(["0" * 64, old.upper(), old[:-1], old[::-1], old + "\n"]))
    return FINE if path[0] == "method" and m.get(path) in ("0" * 64, old[::-1]) else BROKEN


def other_entry(m: Mutant) -> str:
    path = (m.pick(["name", "benchmark", "split", "schema"]),)
    m.put(path, m.pick(["none", "0.0", "validation", 2, "full-reset"]))
    return BROKEN


def seed_of(m: Mutant) -> Any:
    return m.get((*TASK, "seeds", str(m.pick(range(100, 120)))))


def judged(before: list[float], after: list[float]) -> str:
    return ANY if before == after else INCONSISTENT if before[0] != after[0] else FORGED


def swap_seeds(m: Mutant) -> str:
    one, two = seed_of(m), seed_of(m)
    curves = [run["curve"]["test/accuracy"] for run in (one, two)]
    one["curve"], two["curve"] = two["curve"], one["curve"]
    return judged(*curves)


def shift(m: Mutant) -> str:
    curve = seed_of(m)["curve"]
    values, by = curve["test/accuracy"], m.pick(range(-5, 6))
    moved = {
        "time": [values[min(max(i + by, 0), 20)] for i in range(21)],
        "level": [min(1.0, max(0.0, round(value + by / 500, 3))) for value in values],
        "point": [*values],
        "no fraction": [*values],
    }
    kind, point = m.pick(moved), m.pick(range(21))
    moved["point"][point] = moved["level"][point]
    moved["no fraction"][point] = abs(values[point] - 0.0007)
    curve["test/accuracy"] = moved[kind]
    return INCONSISTENT if kind == "no fraction" else judged(values, moved[kind])


def claim(m: Mutant) -> str:
    table, method, run = m.get(TASK), m.document["method"], seed_of(m)
    changes: Mapping[str, tuple[Any, str, Any, str]] = {
        "fraction": (table["hyperparameters"], "fraction", m.pick([0.05, 0, "x", 1e308]), FORGED),
        "more": (table["hyperparameters"], "score", 1, FORGED),
        "none": (table, "hyperparameters", {}, FORGED),
        "extra": (table, "extra_parameters", 10**6, FORGED),
        "boundaries": (method, "needs_boundaries", False, FORGED),
        "width": (method, "network", {"hidden": m.pick([[64], 9, None, [1e308]])}, INCONSISTENT),
        "network": (method, "network", {m.pick(KEYS): m.pick(JUNK)}, INCONSISTENT),
        "status": (run, "status", "diverged", FORGED),
        "steps": (run, "steps", m.pick([0, 1, 60]), FORGED),
    }
    holder, key, value, verdict = changes[m.pick(changes)]
    holder[key] = value
    return verdict


def other_bytes(m: Mutant) -> str:
    cut = m.draw(st.integers(0, 5_000))
    bad = m.pick([b"\xff", b"\0", b"\xed\xa0\x80"])
    changes: dict[str, Callable[[bytes], bytes]] = {
        "cut": lambda data: data[:cut],
        "insert": lambda data: data[:cut] + bad + data[cut:],
        "bom": lambda data: b"\xef\xbb\xbf" + data,
        "utf-16": lambda data: data.decode().encode(m_encoding),
        "latin-1": lambda data: data + "é".encode("latin-1"),
        "more": lambda data: data + m_more,
    }
    m_encoding, m_more = m.pick(["utf-16", "utf-32-be"]), m.pick([b"{}", b"x", b",", b"\0"])
    change = changes[m.pick(changes)]
    m.encode = lambda text: change(text.encode())
    return BROKEN


STRUCTURE = (wrong_type, drop, add_key, rename, resize, out_of_range, with_a_point, odd_text)
MUTATIONS = (
    *STRUCTURE, repeat_key, odd_token, nest, long_text, path_like, other_hash, other_entry,
    swap_seeds, shift, claim, other_bytes,
)  # fmt: skip


ADDING = (add_key, repeat_key, odd_token, nest, long_text, out_of_range)
"""Mutations that cannot take back an earlier one."""


def mutate(honest: bytes, draw: Draw) -> tuple[bytes, str, str]:
    """Return a file's bytes, the mutation's name and what it does; some have been through more."""
    mutant = Mutant(honest, draw)
    mutation = draw(st.sampled_from(MUTATIONS))
    earlier = draw(st.lists(st.sampled_from(STRUCTURE), max_size=2))
    if not earlier or draw(st.booleans()):
        verdict = mutation(mutant)
        return mutant.bytes(), mutation.__name__, verdict
    try:
        for one in earlier:
            one(mutant)
        verdict = mutation(mutant)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        verdict = ANY  # the first one has taken away what the second would change
    # A place changed again may be honest again: only what adds to the file is sure to break it.
    sure = verdict == BROKEN and mutation in ADDING
    return mutant.bytes(), "several", BROKEN if sure else ANY
