"""Pickles that would run code, recurse without end or ask for all memory, whole and in pieces.

Whatever runs leaves the file `canary` in the working folder.
"""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Runs:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


TOUCH = "touch canary"
WRITE = "open('canary', 'w').close()"
DEEP = 200_000
PICKLES: list[bytes] = [
    *(pickle.dumps(Runs(os.system, TOUCH), protocol) for protocol in range(6)),
    *(pickle.dumps({"data": Runs(function, WRITE)}, 2) for function in (exec, eval)),
    pickle.dumps(Runs(Path("canary").touch)),
    pickle.dumps(Runs(open, "canary", "w")),
    b"cos\nsystem\n(S'touch canary'\ntR.",
    b"(S'touch canary'\nios\nsystem\n.",
    b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0ctouch canary\x85R.",
    b"\x80\x04\x8c\x05numpy\x8c\x13lib._npyio_impl.os.\x93.",
    b"cnumpy\nload\n(S'canary'\ntR.",
    # A tuple within a tuple, and so on, as a key: its hash is taken by recursion in C.
    b"\x80\x02}" + b"(" + b")" + b"\x85" * DEEP + b"K\x01u.",
    b"\x80\x02})" + b"\x85" * DEEP + b"K\x01s.",
    # Two of the tuple before in each tuple: the hash visits 2 ** 60 of them.
    b"\x80\x02})" + b"2\x86" * 60 + b"K\x01s.",
    b"\x80\x04\x8f(" + b")" + b"2\x86" * 60 + b"\x90.",
    b"\x80\x04()" + b"2\x86" * 60 + b"\x91.",
    # Lists in lists, written out by whoever shows a wrong value.
    b"\x80\x02" + b"(" * DEEP + b"l" * DEEP + b".",
    b"\x80\x02}U\x04data" + b"(" * DEEP + b"l" * DEEP + b"s.",
    b"\x80\x02}U\x06labels" + b"(" * DEEP + b"l" * DEEP + b"s.",
    b"\x80\x02}" + b"\x8b" + struct.pack("<i", 50_000) + b"\x7f" * 50_000 + b"K\x01s.",
]

PROGRAMS: list[bytes] = [
    *(b"cos\nsystem\n", b"cbuiltins\nexec\n", b"cnumpy\nndarray\n", b"cnumpy\ndtype\n"),
    *(b"c__main__\n__dict__\n", b"\x8c\x02os\x8c\x06system\x93", b"c_codecs\nencode\n"),
    *(
        b"cos\nsystem\n(S'touch canary'\ntR",
        b"(S'touch canary'\nios\nsystem\n",
        b"S'touch canary'\n",
    ),
    *(
        b"R",
        b"b",
        b"0",
        b"1",
        b"2",
        b"(",
        b"t",
        b"l",
        b"d",
        b"u",
        b"s",
        b"a",
        b"e",
        b")",
        b"]",
        b"}",
    ),
    *(b"\x85", b"\x86", b"\x87", b"\x81", b"\x92", b"\x93", b"\x94", b"\x8f", b"\x90", b"\x91"),
    *(b"o", b"Q", b"Px\n", b"\x82\x01", b"\x84\0\0\0\1", b"\x97", b"\x98", b"N", b"\x88", b"\x89"),
    *(
        b"h\0",
        b"h\xff",
        b"j\xff\xff\xff\x7f",
        b"g5\n",
        b"q\0",
        b"r\xff\xff\xff\xff",
        b"p99999999999\n",
    ),
    *(b"\x8b" + struct.pack("<i", 2**31 - 1), b"\x8a\xff", b"L" + b"9" * 5_000 + b"L\n", b"I-1\n"),
    *(
        b"\x8e" + struct.pack("<Q", 2**40),
        b"\x8d" + struct.pack("<Q", 2**63 - 1),
        b"B\xff\xff\xff\x7f",
    ),
    *(b"\x96" + struct.pack("<Q", 2**62), b"\x95" + struct.pack("<Q", 2**62), b"T\xff\xff\xff\xff"),
    *(b"X\xff\xff\xff\xff", b"G\x7f\xf8\0\0\0\0\0\0", b"Fnan\n", b"V\\ud800\n", b"U\x01\n", b"."),
    *(b")" + b"\x85" * DEEP, b"(" * DEEP, b"]" * 5_000 + b"a" * 4_999, b")" + b"2\x86" * 50),
]
"""Pieces of programs, put in anywhere."""
