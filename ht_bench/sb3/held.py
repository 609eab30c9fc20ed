"""Resets that were held back while an on-policy algorithm updated, carried out at its rollout."""

from __future__ import annotations

from collections.abc import Iterable

from ht_bench.methods.base import Method
from ht_bench.sb3.watching import watches_of


def release_held(methods: Iterable[Method]) -> None:
    """Let methods carry out what they held back: theirs are no weights moved by another optimizer.

    Without this an evaluation that comes before the next update, as callbacks' do, would be warned
    of steps that no hook saw (`methods.watch`).
    """
    for method in methods:
        watches = watches_of(method)
        for watch in watches:
            watch.look()
        method.release()
        for watch in watches:
            watch.note()
