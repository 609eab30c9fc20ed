"""Pickles from outside: no code runs, no memory is asked for that the file does not hold."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ht_bench.errors import UsageError
from ht_bench.streams import pickles
from ht_bench.streams.pickles import load_safely

from .layouts import pickled

ARRAY = np.arange(12, dtype=np.uint8).reshape(3, 4)
BATCH = {b"data": ARRAY, b"labels": [1, 2, 300], b"filenames": [b"a.png"], b"name": "x"}


class Runs:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def load(tmp_path: Path, content: bytes) -> Any:
    file = tmp_path / "data_batch_1"
    file.write_bytes(content)
    return load_safely(file)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_plain_batches_are_read(protocol: int, tmp_path: Path) -> None:
    content = pickle.dumps(BATCH, protocol) if protocol != 2 else pickled(BATCH, 2)
    found = load(tmp_path, content)
    np.testing.assert_array_equal(found.pop(b"data"), ARRAY)
    assert found == {key: value for key, value in BATCH.items() if key != b"data"}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["u1", "i8", ">i4", "<u2"])
def test_arrays_of_whole_numbers_keep_their_values(kind: str, order: Any, tmp_path: Path) -> None:
    values = np.array(ARRAY, dtype=kind, order=order)
    for protocol in (2, 5):
        found = load(tmp_path, pickle.dumps({"data": values, "one": values[1, 1]}, protocol))
        np.testing.assert_array_equal(found["data"], values)
        assert found["one"] == 5


ATTACKS: dict[str, bytes] = {
    "a command": pickle.dumps(Runs(os.system, "touch BREACH")),
    "a function": pickle.dumps(Runs(eval, "1")),
    "inside a dictionary": pickle.dumps({"data": Runs(exec, "x = 1")}, 2),
    "protocol 0": b"cos\nsystem\n(S'true'\ntR.",
    "a dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0dlib.npyio.os\x93.",
    "an allowed module's other name": b"cnumpy\nload\n(S'x'\ntR.",
    "another codec": b"c_codecs\nencode\n(Vx\nVzip\ntR.",
    "another object": pickle.dumps({1, 2}, 4).replace(b"\x8f", b"cbuiltins\nset\n"),
    "outside the file": b"P1\n.",
    "an extension": b"\x82\x01.",
    "a function changed": b"c_codecs\nencode\n}S'x'\nI1\nsb.",
    "a type changed": b"cnumpy\ndtype\n(N}S'__defaults__'\nNst b.".replace(b" ", b""),
    "an array of objects": pickle.dumps({"data": np.array([{}], dtype=object)}, 2),
    "an array of floats": pickle.dumps({"data": np.zeros(3)}, 2),
    "a class": pickle.dumps(Path),
    # The hash of a key is taken by recursion in C: the first crashes, the second never ends.
    "a tuple in tuples": b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s.",
    "a tuple of twice the one before": b"\x80\x02})" + b"2\x86" * 60 + b"K\x01s.",
    "the same in a set": b"\x80\x04\x8f()" + b"2\x86" * 60 + b"\x90.",
    "the same by memo": b"\x80\x02})" + b"q\x01h\x01\x86" * 60 + b"K\x01s.",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_would_run_is_refused(attack: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"data_batch_1 is no pickle of plain arrays \(") as caught:
        load(tmp_path, ATTACKS[attack])
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["data_batch_1"]
    assert pickles._encode.__dict__ == {} and pickles._encode.__defaults__ == ("latin1",)


HUGE: dict[str, bytes] = {
    "bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
    "text": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x.",
    "a bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.",
    "a frame": b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"N.",
    "a memo place": b"\x80\x02Nr" + struct.pack("<I", 2**32 - 1) + b".",
    "a memo place in words": b"Np4000000000\n.",
    "an empty array": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
    b"(L1000000000000L\ntS'b'\ntR.",
    "a shape": pickle.dumps({"data": ARRAY}, 2).replace(b"K\x03K\x04", b"K\xffK\xff"),
    "a large number": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
}


@pytest.mark.parametrize("claim", HUGE)
def test_no_length_in_a_file_fills_the_memory(claim: str, tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        found = load(tmp_path, HUGE[claim])
        assert claim in ("a frame", "an empty array")
        assert found is None or found.values is None
    except UsageError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2**21


def test_a_file_too_large_for_a_batch_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "data_batch_1"
    with file.open("wb") as stream:
        stream.truncate(pickles.LARGEST + 1)
    with pytest.raises(UsageError, match="it is no batch of CIFAR"):
        load_safely(file)


@pytest.mark.parametrize("files", [300, pytest.param(10_000, marks=pytest.mark.evidence)])
def test_mutated_pickles_end_in_a_value_or_a_sentence(files: int, tmp_path: Path) -> None:
    draw = random.Random(0)
    for index in range(files):
        content = bytearray(pickled(BATCH, 2) if index % 2 else pickle.dumps(BATCH, index % 6))
        for _ in range(draw.randint(1, 6)):
            place, kind = draw.randrange(len(content)), draw.randrange(3)
            if kind == 0:
                content[place] = draw.randrange(256)
            elif kind == 1:
                del content[place : place + draw.randint(1, 9)]
            else:
                content[place:place] = draw.randbytes(draw.randint(1, 9))
        with contextlib.suppress(UsageError):
            load(tmp_path, bytes(content))
