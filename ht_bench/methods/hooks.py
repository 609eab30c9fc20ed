"""A method's part in `optimizer.step`: what others' optimizers, closures and scalers ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from ht_bench.errors import UsageError

Optimizers = torch.optim.Optimizer | Sequence[torch.optim.Optimizer]
Hook = Callable[[], None]


class StepHooks:
    """Calls `before` when gradients are ready and `after` when weights have moved.

    With several optimizers a step is a round of all of them: `before` comes ahead of the first,
    `after` behind the last. A closure is wrapped, so that `before` follows each of its backward
    passes; `second_pass` is what comes ahead of and behind another run of it. Under a GradScaler
    that leaves unscaling to a fused optimizer, gradients are unscaled for `before`, and a step that
    it skips counts for nothing; to know, the host waits for the device, only there. fired: steps of
    any optimizer seen so far.
    """

    def __init__(
        self,
        optimizers: Sequence[torch.optim.Optimizer],
        before: Hook | None,
        after: Hook | None,
        second_pass: tuple[Hook, Hook] | None = None,
        *,
        second_pass_by_loop: bool = False,
    ) -> None:
        self.optimizers, self._before, self._after = list(optimizers), before, after
        self._second_pass = None if second_pass_by_loop else second_pass
        self.fired = 0
        self._skipped = False
        self._round: set[int] = set()
        self._handles: list[Any] = []
        try:
            for optimizer in self.optimizers:
                self._handles.append(optimizer.register_step_pre_hook(self._pre))
                self._handles.append(optimizer.register_step_post_hook(self._post))
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _pre(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if "grad_scaler" in kwargs:
            raise UsageError(
                f"The GradScaler hands itself to {type(optimizer).__name__}, which may skip the "
                "step unseen; use an optimizer of torch.optim, or scale without it."
            )
        found_inf = getattr(optimizer, "found_inf", None)
        self._skipped = found_inf is not None and bool(found_inf)
        if (self._before is None and self._second_pass is None) or self._skipped:
            return None
        closure = kwargs.get("closure") or next((a for a in args[1:] if callable(a)), None)
        if closure is None and self._second_pass is not None:
            raise UsageError(
                "The method computes the gradient twice in each step: call optimizer.step(closure) "
                "with a closure that zeroes gradients, computes the loss, calls backward and "
                "returns the loss."
            )
        if closure is not None:
            wrapped = self._wrap(closure)
            if "closure" in kwargs:
                return args, {**kwargs, "closure": wrapped}
            return tuple(wrapped if a is closure else a for a in args), kwargs
        if self._before is not None and (not self._round or id(optimizer) in self._round):
            for each in self.optimizers:
                _unscale(each)
            quietly(self._before)
        return None

    def _wrap(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        def then_before() -> Any:
            loss = closure()
            if self._second_pass is not None:
                ascend, descend = self._second_pass
                quietly(ascend)
                try:
                    closure()
                finally:
                    quietly(descend)
            if self._before is not None:
                quietly(self._before)
            return loss

        return then_before

    def _post(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self.fired += 1
        if self._skipped:
            return
        if len(self.optimizers) > 1:
            self._round.add(id(optimizer))
            if len(self._round) < len(self.optimizers):
                return
            self._round.clear()
        if self._after is not None:
            quietly(self._after)


CAPTURED_HOOKS = ("before_step", "after_step", "auxiliary_loss", "ascend", "descend")
"""What of a method runs inside a captured step."""


def says_so(cls: type, word: str, hooks: Sequence[str]) -> bool:
    """Whether `cls` says `word` of its own hooks: no class below the one that says it has any."""
    line = cls.__mro__
    said = next(index for index, each in enumerate(line) if word in vars(each))
    return not any(hook in vars(each) for each in line[:said] for hook in hooks)


def quietly(hook: Hook) -> None:
    """Call a hook without gradients."""
    with torch.no_grad():
        hook()


def _unscale(optimizer: torch.optim.Optimizer) -> None:
    """Divide gradients by the scale that a fused optimizer would divide by, and leave it 1."""
    scale = getattr(optimizer, "grad_scale", None)
    if scale is None:
        return
    with torch.no_grad():
        for group in optimizer.param_groups:
            gradients = [p.grad for p in group["params"] if p.grad is not None]
            by_device: dict[torch.device, list[torch.Tensor]] = {}
            for gradient in gradients:
                by_device.setdefault(gradient.device, []).append(gradient)
            for device, tensors in by_device.items():
                torch._foreach_div_(tensors, scale.to(device))
    optimizer.grad_scale = torch.ones_like(scale)  # type: ignore[attr-defined]


def hookable(name: str, optimizer: Optimizers) -> list[torch.optim.Optimizer]:
    """Return the optimizers whose step is to be hooked into, wrappers such as accelerate's opened.

    Raises UsageError for what is no torch.optim.Optimizer; `name` is the method's.
    """
    given = list(optimizer) if isinstance(optimizer, list | tuple) else [optimizer]
    found = [_open(each) for each in given]
    if not found or not all(found):
        wrong = next((g for g, f in zip(given, found, strict=True) if f is None), optimizer)
        raise UsageError(
            f"{name} needs a torch.optim.Optimizer, whose step it can hook "
            f"into; {type(wrong).__name__} is not one."
        )
    return [each for each in found if each is not None]


def _open(optimizer: Any) -> torch.optim.Optimizer | None:
    for _ in range(8):  # accelerate, Lightning and the like keep the real one as `.optimizer`
        if isinstance(optimizer, torch.optim.Optimizer) and hasattr(
            optimizer, "_optimizer_step_pre_hooks"
        ):
            return optimizer
        optimizer = getattr(optimizer, "optimizer", None)
    return None


def check_parameters(
    name: str, module: nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> None:
    """Raise UsageError unless the optimizers train all trainable parameters of `module`."""
    optimized = {id(p) for o in optimizers for group in o.param_groups for p in group["params"]}
    named = list(module.named_parameters())
    if not any(id(p) in optimized for _, p in named):
        raise UsageError(
            f"{name}: none of the module's parameters is in the optimizer; pass the optimizer "
            "that trains this module."
        )
    left = [n for n, p in named if p.requires_grad and id(p) not in optimized]
    if left:
        raise UsageError(
            f"{name}: '{left[0]}' ({len(left)} in all) is in no optimizer given to attach; pass "
            "all of the module's optimizers as a list, or freeze what is not trained with "
            "requires_grad_(False)."
        )
