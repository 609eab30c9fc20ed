"""Readers of what torch and Optuna keep: checkpoints, weights, tensors, and searches."""

from __future__ import annotations

import functools
import hashlib
import io
import sqlite3
import struct
import tempfile
import warnings
import zipfile
from pathlib import Path
from random import Random
from typing import Any

from .data import zipped
from .hostile import PICKLES, PROGRAMS
from .mutations import JUNK, SIZES, mutate_bytes
from .reader import Files, Reader

STUDY = {"strength": [0.1, 0.01]}


def _network() -> Any:
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))


def _saved(value: Any, **options: Any) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


@functools.cache
def checkpoint() -> Files:
    from ht_bench.training.checkpoint import save

    state = {"weights": _network().state_dict(), "phase": 1, "curve": [[0.5, None], [1.0, "x"]]}
    with tempfile.TemporaryDirectory() as name:
        save(Path(name) / "stack.pt", "mine", state)
        return {"stack.pt": (Path(name) / "stack.pt").read_bytes()}


def read_checkpoint(place: Path) -> Any:
    from ht_bench.training.checkpoint import load

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the sentence
        return load(place / "stack.pt", "mine")


@functools.cache
def weights() -> Files:
    plain = _saved(_network().state_dict())
    policy = io.BytesIO()
    with zipfile.ZipFile(policy, "w") as archive:
        archive.writestr("data", "{}")
        archive.writestr("policy.pth", plain)
    return {
        "plain.pt": plain,
        "old.pt": _saved(_network().state_dict(), _use_new_zipfile_serialization=False),
        "policy.pt": policy.getvalue(),
        "wrapped.pt": _saved({"state": {"model": _network().state_dict()}, "phase": 1}),
    }


def read_weights(place: Path) -> None:
    """Every file; what is honest is read again, which costs little."""
    from ht_bench.diagnosis.weights import load_weights

    for name in weights():
        load_weights(_network(), place / name)


@functools.cache
def tensors() -> Files:
    import torch

    return {"data.pt": _saved((torch.zeros(4, 3), torch.arange(4)))}


def read_tensors(place: Path) -> Any:
    from ht_bench.commands.diagnose import data_of

    return data_of(str(place / "data.pt"))


def torch_file(files: Files, draw: Random) -> Files:
    """Mutated in its bytes, in its pickle, or with sizes that are not true; a hash made right."""
    name = draw.choice(sorted(files))
    content = files[name]
    head = 32 if content[32:34] == b"PK" else 0
    inner = content[head:]
    kind = draw.randrange(4)
    if kind == 0 or inner[:2] != b"PK":
        if draw.random() < 0.3:
            at = draw.randrange(len(inner))
            inner = inner[:at] + draw.choice(PROGRAMS) + inner[at:]
        inner = mutate_bytes(inner, draw)
    else:
        with zipfile.ZipFile(io.BytesIO(inner)) as archive:
            members = {each: archive.read(each) for each in archive.namelist()}
        member = draw.choice(sorted(members))
        if draw.random() < 0.7:
            member = next(each for each in members if each.endswith((".pkl", ".pth")))
        members[member] = _member(members[member], draw)
        inner = _stored(members) if draw.random() < 0.7 else zipped(members, draw)
    if head and draw.random() < 0.8:
        return {name: hashlib.sha256(inner).digest() + inner}
    return {name: content[:head] + inner}


def _member(content: bytes, draw: Random) -> bytes:
    kind = draw.randrange(4)
    if kind == 0 and draw.random() < 0.2:
        return draw.choice(PICKLES)
    if kind <= 1:
        at = draw.randrange(2, len(content)) if len(content) > 2 else 0
        return content[:at] + draw.choice(PROGRAMS) + content[at:]
    if kind == 2:  # a size of a tensor or of its storage
        at = content.find(b"K", draw.randrange(len(content)))
        number = b"\x8a\x08" + struct.pack("<q", draw.choice(SIZES) % 2**63 * draw.choice([1, -1]))
        return content[:at] + number + content[at + 2 :]
    return mutate_bytes(content, draw)


def _stored(members: Files) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


# ---- searches ----


def _study(place: Path) -> Any:
    from ht_bench.running.studies import Study, storage

    with storage(place) as kept:
        study = Study(kept, "l2 on tiny-v1", {"task": "a"}, STUDY, 2)
        first, *_ = study.ask()
        study.tell(first.number, 0.5, {"seconds": 1.0})
        return study.ask()


@functools.cache
def search() -> Files:
    with tempfile.TemporaryDirectory() as name:
        _study(Path(name))
        return {"tuning.db": (Path(name) / "tuning.db").read_bytes()}


def database(files: Files, draw: Random) -> Files:
    """Mutated in its bytes, or in its rows by SQL."""
    [(name, content)] = files.items()
    if draw.random() < 0.5:
        return {name: mutate_bytes(content, draw)}
    kept = sqlite3.connect(":memory:")
    kept.deserialize(content)
    tables = [row[0] for row in kept.execute("SELECT name FROM sqlite_master WHERE type='table'")]
    for _ in range(draw.choice([1, 1, 3])):
        table = draw.choice(tables)
        columns = [row[1] for row in kept.execute(f"PRAGMA table_info('{table}')")]
        column = draw.choice(columns or ["x"])
        values = [
            v for v in JUNK if isinstance(v, int | float | str | None) and v not in (10**400,)
        ]
        value = draw.choice([*values, b"\xff", '{"name": 1}', '{"attributes": {}}', "FAIL"])
        value = value.replace("\ud800", "?") if isinstance(value, str) else value
        try:
            kind = draw.randrange(8)
            if kind == 0:
                kept.execute(f'DROP TABLE "{table}"')
            elif kind == 1:
                kept.execute(f'DELETE FROM "{table}"')
            elif kind == 2:
                kept.execute(f'ALTER TABLE "{table}" DROP COLUMN "{column}"')
            elif kind == 3:
                kept.execute(f'INSERT INTO "{table}" SELECT * FROM "{table}"')
            else:
                kept.execute(f'UPDATE "{table}" SET "{column}" = ?', (value,))
        except (sqlite3.Error, OverflowError):
            continue
    kept.commit()
    return {name: kept.serialize()}


READERS = {
    "checkpoint": Reader(checkpoint, torch_file, read_checkpoint),
    "weights": Reader(weights, torch_file, read_weights),
    "tensors": Reader(tensors, torch_file, read_tensors),
    "search": Reader(search, database, _study),
}
