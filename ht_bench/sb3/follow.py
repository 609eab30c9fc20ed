"""A policy's methods go on with an optimizer, or with a part, that was replaced."""

from __future__ import annotations

import warnings
from typing import Any

from ht_bench.methods.base import Method
from ht_bench.sb3.parts import Part, parts_of
from ht_bench.sb3.watching import look_before_updates


def follow(policy: Any, part: Part) -> None:
    """Attach the methods anew, and say so; `part` is the first one that was replaced.

    Methods go on from their state, but start from the present weights where a part's parameters
    are other objects than those they were attached to.
    """
    saved = {name: method.checkpoint() for name, method in policy.methods.items()}
    before = policy._weights
    there = {now.name: list(now.module.parameters()) for now in parts_of(policy)}
    renewed = [name for name in saved if not _same(there[name], before[name])]
    look_before_updates(m for name, m in policy.methods.items() if name not in renewed)
    for method in policy.methods.values():
        method.detach()
    fixed = policy._acting.fixed
    policy._attach()
    policy._acting.fixed = fixed
    for name, method in policy.methods.items():
        _take_over(method, saved[name], goes_on=name not in renewed)
    names = " and ".join(f"'{name}'" for name in renewed)
    started = f" and starts from the present weights of {names}, whose parameters are others"
    warnings.warn(
        f"The optimizer of '{part.name}' was replaced after the policy was made; "
        f"'{policy.plasticity_name}' goes on with the new one's steps"
        f"{started if renewed else ''}.",
        UserWarning,
        stacklevel=4,
    )


def _same(left: list[Any], right: list[Any]) -> bool:
    return [*map(id, left)] == [*map(id, right)]


def _take_over(method: Method, saved: dict[str, Any], goes_on: bool) -> None:
    """Restore a checkpoint; where the method does not go on from it, its random numbers alone."""
    fresh = {} if goes_on else {"state": method.state_dict(), "steps_seen": 0}
    method.restore({**saved, **fresh}, None, None)
