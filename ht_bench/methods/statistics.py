"""Which buffers of a module are running statistics, which belong to the weights.

Only these are averaged, shrunk or compared with the weights: `running_mean` and `running_var` of
any module (torch's BatchNorm and InstanceNorm, this package's stacked BatchNorm), and in a module
with a `momentum` every floating buffer whose name speaks of a mean, a variance or a deviation
(batch renormalisation). A module of one's own names others in its attribute
`running_statistics = ("centre", "spread")`; an empty tuple says that it has none. All other
buffers (masks, positions, observers of quantization, vectors of spectral norm, memories that grow)
are the module's own business.
"""

from __future__ import annotations

import re

from torch import Tensor, nn

_ALWAYS = ("running_mean", "running_var")
_SPOKEN = re.compile(r"(^|_)(mean|var|std)$")


def statistics_of(module: nn.Module) -> list[str]:
    """Return the names of the running statistics among the module's own buffers."""
    declared = getattr(module, "running_statistics", None)
    if isinstance(declared, tuple | list):
        return [name for name in declared if isinstance(module._buffers.get(name), Tensor)]
    has_momentum = hasattr(module, "momentum")
    return [
        name
        for name, buffer in module._buffers.items()
        if buffer is not None
        and buffer.is_floating_point()
        and (name in _ALWAYS or (has_momentum and _SPOKEN.search(name)))
    ]
