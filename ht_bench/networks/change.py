"""How far a network moves: the optimizer's relative update, and what its outputs change by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ht_bench.networks.diagnostics import last_layer, recorded
from ht_bench.networks.modes import evaluation_mode
from ht_bench.networks.stacking import is_stacked, squared_norms


@torch.no_grad()
def effective_learning_rate(module: nn.Module, optimizer: torch.optim.Optimizer) -> Tensor:
    """Return ‖Δθ‖ / ‖θ‖ of the step that the optimizer's state stands for now, [seeds].

    Δθ is its last gradient step without decoupled weight decay: rate · m̂ / (√v̂ + ε) of Adam and
    AdamW, rate · momentum of SGD. Where normalisation makes the loss blind to the weights' scale,
    this ratio is the learning rate that counts (van Laarhoven 2017, 1706.05350; Lyle et al. 2024,
    2407.01800). NaN for other optimizers, and where there is no state, as after it was cleared.
    """
    stacked = is_stacked(module)
    seeds = len(next(module.parameters())) if stacked else 1
    mine = {id(p) for p in module.parameters()}
    moved, weights = [], []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if id(parameter) not in mine or not parameter.requires_grad:
                continue
            update = _update(optimizer, group, optimizer.state.get(parameter, {}))
            if update is None:
                return torch.full((seeds,), torch.nan)
            moved.append(update)
            weights.append(parameter.detach())
    if not moved:
        return torch.full((seeds,), torch.nan)
    ratio = squared_norms(moved, stacked).sqrt() / squared_norms(weights, stacked).sqrt()
    return ratio.cpu()


def _update(
    optimizer: torch.optim.Optimizer, group: Mapping[str, Any], state: Mapping[str, Any]
) -> Tensor | None:
    """Return one parameter's last gradient step, or None where the state does not tell."""
    if isinstance(optimizer, torch.optim.Adam):  # AdamW is one too
        if "exp_avg" not in state or float(state["step"]) < 1:
            return None
        first, second = group["betas"]
        second_moment = state.get("max_exp_avg_sq", state["exp_avg_sq"])
        step = float(state["step"])
        root = (second_moment / (1 - second**step)).sqrt()
        return group["lr"] * (state["exp_avg"] / (1 - first**step)) / (root + group["eps"])
    if isinstance(optimizer, torch.optim.SGD):
        buffer = state.get("momentum_buffer")
        return None if buffer is None else group["lr"] * buffer
    return None


class Seen:
    """A network's features and answers on held inputs at one time, to be compared with later.

    features: input of the last weight layer, [S, B, F]; answers: the output that is largest,
    [S, B].
    """

    def __init__(self, features: Tensor, answers: Tensor) -> None:
        self.features, self.answers = features, answers

    def churn(self, later: Seen) -> dict[str, Tensor]:
        """Return what has changed since, [seeds] by metric key.

        `plasticity/feature_churn`: ‖F' − F‖ / ‖F‖ over all inputs. `plasticity/output_churn`: the
        share of inputs whose answer is another one, as policy churn counts (Schaul et al. 2022,
        2206.00730; against loss of plasticity: Tang & Berseth 2025, 2506.00592).
        """
        before, after = (each.features.double().flatten(1) for each in (self, later))
        away = torch.linalg.vector_norm(after - before, dim=1)
        size = torch.linalg.vector_norm(before, dim=1).clamp(min=1e-30)
        other = (self.answers != later.answers).float().mean(1)
        return {"plasticity/feature_churn": away / size, "plasticity/output_churn": other}


@torch.no_grad()
def see(module: nn.Module, inputs: Tensor) -> Seen:
    """Return what the module makes of the inputs in evaluation mode; it is left as it was."""
    stacked = is_stacked(module)
    with evaluation_mode(module), recorded(module, last_layer(module)) as records:
        outputs = module(inputs)
    features = outputs if records.features is None else records.features
    if not stacked:
        outputs, features = outputs[None], features[None]
    return Seen(features.detach().flatten(2).clone(), outputs.argmax(-1))
