"""Networks of an algorithm that take on another class: their own, with a mixin before it.

Everything about such a network stays what it was: its type (by isinstance), attributes, names of
weights. It can be copied and pickled; what ties it to its policy is left out, and a copy alone
behaves as the algorithm's own network.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

from torch import nn


class Joined:
    """Base of the mixins. `ties`: attributes that tie the network to its policy."""

    ties: ClassVar[tuple[str, ...]] = ()

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Name the classes it is made of: the joined one cannot be imported."""
        mixin, stock = type(self).__bases__
        return _revive, (mixin, stock), self.__getstate__()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what ties it to its policy, which ties its own copy anew."""
        return {key: value for key, value in self.__dict__.items() if key not in self.ties}


def join(mixin: type[Joined], network: nn.Module) -> Any:
    """Put `mixin` before the network's class; returns the network, the same object."""
    if not isinstance(network, mixin):
        network.__class__ = _class(mixin, type(network))  # type: ignore[arg-type]
    return network


@functools.cache
def _class(mixin: type[Joined], stock: type) -> type:
    return type(stock.__name__, (mixin, stock), {"__module__": mixin.__module__})


def _revive(mixin: type[Joined], stock: type) -> Any:
    cls: Any = _class(mixin, stock)  # type: ignore[arg-type]
    return cls.__new__(cls)
