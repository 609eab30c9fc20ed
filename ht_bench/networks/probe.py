"""Trainability: in how many steps a copy of the network fits fresh random labels.

The target-fitting capacity of Lyle et al. 2022 (2204.09560), with labels as in Lyle et al. 2023
(2303.01486): what a network cannot learn here, it cannot learn from a next phase either. The copy
is trained without its method; network, optimizer and every generator are left bit-identical.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ht_bench.networks.modes import evaluation_mode
from ht_bench.networks.stacking import clip_gradients, is_stacked

Make = Callable[[nn.Module], torch.optim.Optimizer]
Forward = Callable[[nn.Module, Any], Tensor]
BUDGET, FITTED = 200, 0.9
"""Steps, and the share of right labels at which they have been fitted, unless others are given."""
HOOKS = (
    *("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"),
    *("_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks"),
)


def trainability(
    module: nn.Module,
    inputs: Any,
    optimizer: Make | torch.optim.Optimizer,
    *,
    classes: int | None = None,
    clip: float | None = None,
    budget: int = BUDGET,
    fitted: float = FITTED,
    forward: Forward = lambda module, inputs: module(inputs),
) -> dict[str, Tensor]:
    """Train a copy on random labels for the inputs, all of them in every step.

    Args:
        module: a stack of seeds or a lone network.
        inputs: examples as the module takes them.
        optimizer: makes a fresh one for the copy; or one whose class and settings a fresh one gets.
        classes: how many labels; as many as there are outputs if left out.
        clip: the norm to which each seed's gradients are clipped, if any.
        budget: most steps.
        fitted: the share of right labels from which on they are fitted.
        forward: (module, inputs) → outputs [B, classes], of a stack [S, B, classes].

    Returns:
        [seeds] each: `plasticity/probe_steps`, the steps until the labels were fitted, `budget`
        where they were not; `plasticity/probe_accuracy`, the mean share of right labels over the
        budget, which tells such networks apart, and is 1 from the step on that fitted them.

    """
    device = next(module.parameters()).device
    stacked, twin = is_stacked(module), plain_copy(module)
    make = like(optimizer, module) if isinstance(optimizer, torch.optim.Optimizer) else optimizer
    with _own_randomness(device), torch.enable_grad():
        fresh = make(twin)
        twin.train()
        with torch.no_grad(), evaluation_mode(twin):
            outputs = forward(twin, inputs)
        seeds, examples = (outputs.shape[:2]) if stacked else (1, len(outputs))
        # The same labels for all seeds: a seed's number does not depend on its mates.
        generator = torch.Generator().manual_seed(0)
        labels = torch.randint(classes or outputs.shape[-1], (examples,), generator=generator)
        labels = labels.to(device).expand(seeds, -1)
        right = _fit(twin, fresh, lambda: forward(twin, inputs), labels, clip, budget, fitted)
    done = right >= fitted
    first = torch.where(done.any(0), done.float().argmax(0), len(right))
    reached = torch.arange(len(right), device=device)[:, None] >= first
    shares = torch.where(reached, 1.0, right)
    lacking = budget + 1 - len(right)  # all had fitted them
    return {
        "plasticity/probe_steps": first.clamp(max=budget).float().cpu(),
        "plasticity/probe_accuracy": ((shares.sum(0) + lacking) / (budget + 1)).cpu(),
    }


def _fit(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    outputs_now: Callable[[], Tensor],
    labels: Tensor,
    clip: float | None,
    budget: int,
    fitted: float,
) -> Tensor:
    """Train, and return the share of right labels before each step and at the end, [steps, S]."""
    found: list[Tensor] = []
    done = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
    for step in range(budget + 1):
        outputs = outputs_now().float().view(*labels.shape, -1)
        found.append((outputs.argmax(-1) == labels).float().mean(1))
        done |= found[-1] >= fitted
        if step == budget or (step % 10 == 0 and bool(done.all())):
            break
        each = cross_entropy(outputs.flatten(0, 1), labels.flatten(), reduction="none")
        optimizer.zero_grad()
        each.view(labels.shape).mean(1).sum().backward()
        if clip is not None:
            clip_gradients(module, clip)
        optimizer.step()
    return torch.stack(found)


def plain_copy(module: nn.Module) -> nn.Module:
    """Return a copy that shares nothing with the module and has none of its hooks.

    A hook may be a method's, which a copy would either carry along or call.
    """
    memo: dict[int, Any] = {}
    for child in module.modules():
        for name in HOOKS:
            hooks = getattr(child, name, None)
            if hooks:
                memo[id(hooks)] = OrderedDict()
    twin = copy.deepcopy(module, memo)
    for parameter in twin.parameters():
        parameter.grad = None
    return twin


def like(optimizer: torch.optim.Optimizer, module: nn.Module) -> Make:
    """Return what makes an optimizer of this class and these settings for a copy of the module."""
    places = {id(p): name for name, p in module.named_parameters()}

    def make(twin: nn.Module) -> torch.optim.Optimizer:
        copies, groups = dict(twin.named_parameters()), []
        for group in optimizer.param_groups:
            settings = {key: _number(value) for key, value in group.items() if key != "params"}
            mine = [copies[places[id(p)]] for p in group["params"] if id(p) in places]
            if mine:
                groups.append({**settings, "capturable": False, "params": mine})
        known = set(optimizer.defaults)
        kept = [{k: v for k, v in g.items() if k in known | {"params"}} for g in groups]
        return type(optimizer)(kept, lr=kept[0]["lr"])  # type: ignore[call-arg]

    return make


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value


@contextmanager
def _own_randomness(device: torch.device) -> Iterator[None]:
    """Let dropout draw the same masks every time, and put torch's generators back."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(0)
        if devices:
            torch.cuda.manual_seed(0)
        yield
