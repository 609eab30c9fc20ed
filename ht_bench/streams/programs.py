"""A pickle's program, looked through before it is run: no step of it may ask for too much."""

from __future__ import annotations

import pickletools
from collections.abc import Mapping
from typing import BinaryIO, NamedTuple

DEEPEST = 100
"""Tuples within one another. A hash of them is taken by recursion in C, which crashes at 50,000."""


class _Item(NamedTuple):
    """An object on the stack: how many objects its hash visits, and how deep they lie."""

    visits: int = 1
    depth: int = 0


_MARK = _Item(0)
_PLAIN = _Item()
_SIZES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_GETS = ("GET", "BINGET", "LONG_BINGET")
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT")


def check_program(stream: BinaryIO, size: int) -> None:
    """Read a pickle of a file of `size` bytes up to its end, and run nothing.

    Raises ValueError for lengths and memo places beyond the file, which may ask for all memory,
    and for tuples whose hash, if they are made a key, would crash or never end: sixty that each
    hold the one before twice are 2 ** 60 to visit.
    """
    stack: list[_Item] = []
    memo: dict[int, _Item] = {}
    # `genops` itself reads every length against what is left of the file.
    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        if name in _PUTS or name == "MEMOIZE":
            place = len(memo) if name == "MEMOIZE" else argument
            if not (isinstance(place, int) and 0 <= place <= size):
                raise ValueError("a memo place beyond the file")
            memo[place] = _top(stack)
        elif name in _SIZES:
            stack.append(_tuple(_popped(stack, _SIZES[name]), size))
        elif name == "TUPLE":
            stack.append(_tuple(_popped_to_mark(stack), size))
        elif name == "POP":
            _popped(stack, 1)
        else:
            stack += _others(opcode, argument, stack, memo)


def _others(
    opcode: pickletools.OpcodeInfo, argument: object, stack: list[_Item], memo: Mapping[int, _Item]
) -> list[_Item]:
    """Take what an operation takes off the stack; returns what it puts there."""
    if opcode.name in _GETS:
        return [memo.get(argument, _PLAIN) if isinstance(argument, int) else _PLAIN]
    if opcode.name == "DUP":
        return [_top(stack)]
    if opcode.name == "MARK":
        return [_MARK]
    before = opcode.stack_before
    if pickletools.markobject in before:
        _popped_to_mark(stack)
        before = before[: before.index(pickletools.markobject)]
    _popped(stack, len(before))
    return [_PLAIN] * len(opcode.stack_after)


def _tuple(items: list[_Item], size: int) -> _Item:
    made = _Item(1 + sum(i.visits for i in items), 1 + max((i.depth for i in items), default=0))
    if made.visits > size or made.depth > DEEPEST:  # none that was written out has more than bytes
        raise ValueError("tuples within tuples")
    return made


def _top(stack: list[_Item]) -> _Item:
    if not stack:
        raise ValueError("it takes more than there is")
    return stack[-1]


def _popped(stack: list[_Item], count: int) -> list[_Item]:
    if len(stack) < count:
        raise ValueError("it takes more than there is")
    taken = stack[len(stack) - count :]
    del stack[len(stack) - count :]
    return taken


def _popped_to_mark(stack: list[_Item]) -> list[_Item]:
    taken = []
    while _top(stack) is not _MARK:
        taken.append(stack.pop())
    stack.pop()
    return taken
