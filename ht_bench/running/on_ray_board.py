"""Where a driver and its workers on a Ray cluster leave word for each other. No torch.

Workers tell their steps and hear whether to stop; a worker without the driver's folder asks for
what it needs of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Files = dict[str, bytes]
"""Files by their path below a job's folder."""


@dataclass(frozen=True)
class Grant:
    """What the driver answers to a worker that cannot see its folder.

    files: those of the stack, which the driver has claimed. busy: another runner has. refusal: why
    it cannot be trained.
    """

    files: Files = field(default_factory=dict)
    busy: bool = False
    refusal: str = ""


class Board:
    """The actor: each stack that is handed out has a ticket, and a new one after a death.

    So no worker takes a grant that was another's.
    """

    def __init__(self) -> None:
        self._steps: dict[int, int] = {}
        self._asking: set[int] = set()
        self._grants: dict[int, Grant] = {}
        self._halted = False

    def report(self, ticket: int, steps: int) -> bool:
        """Take a worker's steps so far and return whether it is to save and stop."""
        self._steps[ticket] = steps
        return self._halted

    def ask(self, ticket: int) -> Grant | None:
        """Return the driver's grant, or None until it has come: ask again then."""
        grant = self._grants.pop(ticket, None)
        if grant is None:
            self._asking.add(ticket)
        return grant

    def look(
        self, halted: bool, grants: Mapping[int, Grant]
    ) -> tuple[dict[int, int], frozenset[int]]:
        """Take the driver's word; returns steps told since the last look, and who is asking.

        Who asks is told once: an actor that is started again forgets, and workers ask again.
        """
        self._halted = halted
        self._grants.update(grants)
        steps, asking = self._steps, frozenset(self._asking)
        self._steps, self._asking = {}, set()
        return steps, asking
