"""Notices, as updates begin, weights that no step of the agent's own optimizers has moved."""

from __future__ import annotations

from collections.abc import Iterable

from ht_bench.methods.base import Method
from ht_bench.methods.watch import Watch


def watches_of(method: Method) -> list[Watch]:
    """Return a method's watch, of a combination each part's."""
    return [part._watch for part in getattr(method, "parts", (method,))]


def look_before_updates(methods: Iterable[Method]) -> None:
    """Warn of weights that moved while their method has seen no step since the last look.

    After a step there is nothing to tell, nor to pay for in each round of updates.
    """
    for method in methods:
        for watch in watches_of(method):
            if watch._hooks.fired == watch._fired:
                watch.look()
