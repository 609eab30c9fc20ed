"""Plasticity injection: a fresh head learns on top of the old one, outputs at first unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.func import functional_call

from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.methods.copies import matched
from ht_bench.methods.resets import output_layers, renew

Tensors = dict[str, Tensor]


@dataclass(eq=False)
class PlasticityInjection(Method):
    """At a phase start the head h_θ is frozen; output = h_θ(x) + h_θ1(x) − h_θ2(x).

    Nikishin et al. 2023 (2305.15555, Eq. 1): θ1 is drawn anew and trained, θ2 is a frozen copy of
    it, so that the output is at first what it was. The head is the last `layers` weight layers
    (of one linear layer alone the three would add up to one that trains as before). `injections`:
    at how many boundaries, from the first on; each makes a step dearer by two forward passes,
    whose encoder is the network's own. Its moments are cleared. 0 does nothing.
    """

    name = "plasticity-injection"
    needs: ClassVar[frozenset[str]] = frozenset({"outputs"})

    layers: int = 2
    injections: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("layers", "injections"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < (name == "layers"):
                raise UsageError(f"{name} = {value!r}: give a whole number of them.")

    def setup(self) -> None:
        """Find the head, and add to the module's outputs what was injected."""
        names = output_layers(self.module, self.layers)
        self._prefixes = tuple(f"{name}." for name in names)
        self._parameters = {name for name, _ in self.module.named_parameters()}
        self._frozen: list[tuple[Tensors, Tensors]] = []
        self._is_adding = False
        self._handle = self.module.register_forward_hook(self._add)
        self._tell()

    def detach(self) -> None:
        """Leave the module with its own outputs."""
        self._handle.remove()
        self.module.read_by_hooks = []  # type: ignore[assignment]
        super().detach()

    def on_phase(self, index: int) -> None:
        """Freeze the head as it is, draw a new one, and keep its copy to take away."""
        if len(self._frozen) >= self.injections:
            return
        old = self._head_copies()
        head = {n: t for n, t in self.tensors().items() if n.startswith(self._prefixes)}
        renew(self.module, head, self.fresh(self._prefixes))
        self._frozen.append((old, self._head_copies()))
        named = self.module.named_parameters()
        self.clear_optimizer_state([p for name, p in named if name.startswith(self._prefixes)])
        self._tell()

    def _head_copies(self) -> Tensors:
        named = self.tensors().items()
        return {name: t.clone() for name, t in named if name.startswith(self._prefixes)}

    def _tell(self) -> None:
        """Name the tensors that the hook reads: captures made without them no longer hold."""
        kept = [t for pair in self._frozen for head in pair for t in head.values()]
        self.module.read_by_hooks = kept  # type: ignore[assignment]

    def _add(self, module: nn.Module, inputs: tuple[Any, ...], outputs: Tensor) -> Tensor | None:
        if self._is_adding or not self._frozen:
            return None
        self._is_adding = True
        try:
            for old, twin in self._frozen:
                outputs = outputs + self._with(old, inputs) - self._with(twin, inputs)
        finally:
            self._is_adding = False
        return outputs

    def _with(self, head: Tensors, inputs: tuple[Any, ...]) -> Tensor:
        """Return the module's output with another head; a pass moves copies of statistics alone."""
        heads = {name: t for name, t in head.items() if name not in self._parameters}
        buffers = {**dict(self.module.named_buffers()), **heads}
        copies = {name: buffer.clone() for name, buffer in buffers.items()}
        outputs: Tensor = functional_call(self.module, {**head, **copies}, inputs)
        return outputs

    def resync(self) -> None:
        """Forget what was injected: the module's weights are the whole of it."""
        self._frozen.clear()
        self._tell()
        super().resync()

    def state_dict(self) -> dict[str, Any]:
        """Return the frozen heads."""
        return {"frozen": [[dict(old), dict(twin)] for old, twin in self._frozen]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the frozen heads."""
        own = self._head_copies()
        for old, twin in state["frozen"]:
            matched(own, old), matched(own, twin)
        device = next(self.module.parameters()).device
        self._frozen = [
            (
                {name: tensor.to(device, copy=True) for name, tensor in old.items()},
                {name: tensor.to(device, copy=True) for name, tensor in twin.items()},
            )
            for old, twin in state["frozen"]
        ]
        self._tell()
