"""DQN's updates with less to do: the same target, loss, clipping and step, within rounding.

`train` belongs to the algorithm, not to the policy. A DQN whose policy says `fast=True` takes on a
class with this mixin before its own (`ht_bench.sb3.fast`), as networks do in `joined`.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import Tensor
from torch.nn import functional

from ht_bench.networks.products import medium_is_fp32
from ht_bench.sb3.device_replay import move_to_device
from ht_bench.sb3.graph import Graph
from ht_bench.sb3.targets import TortoiseTarget


class FastDQN(ABC):  # noqa: B024 (as the stock class, or no instance could change to it)
    """Mixin of a DQN: gathers with torch, scales images once, reads losses once a round.

    On CUDA the whole step, from gathering to the method's `after_step`, is one CUDA graph.
    """

    _graph: Graph | None = None
    _lr_on_device: Tensor | None = None
    _rate: float | None = None
    _clocks: list[int] | None = None

    def train(self: Any, gradient_steps: int, batch_size: int = 100) -> None:
        """Take `gradient_steps` steps, as DQN.train does."""
        if self._vec_normalize_env is not None or not move_to_device(self.replay_buffer):
            super().train(gradient_steps, batch_size)  # type: ignore[misc]
            return
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        total = torch.zeros((), device=self.device)
        with _scaled_before(self.policy), _products(self.policy):
            for _ in range(gradient_steps):
                total += self._step(self.replay_buffer.draw(batch_size), batch_size)
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/loss", total.item() / gradient_steps)

    def _step(self: Any, drawn: Tensor, batch_size: int) -> Tensor:
        captures = all(method.captures for method in self.policy.methods.values())
        if self._graph is None and self.device.type == self.graph_class.device:
            self._graph = self.graph_class()
        if self._graph is None or not captures:
            return self._gradient_step(drawn.to(self.device), batch_size)
        return self._captured_step(drawn, batch_size)

    graph_class = Graph

    def _gradient_step(self: Any, drawn: Tensor, batch_size: int) -> Tensor:
        """Move the weights on the batch that `drawn` names; returns the loss. Tensors alone."""
        policy = self.policy
        batch = self.replay_buffer.gather(drawn, batch_size)
        loss = self._loss(batch, *_scaled(policy, batch))
        policy.optimizer.zero_grad()
        loss.backward()
        self._clip(list(policy.q_net.parameters()))
        policy.optimizer.step()
        return loss.detach()

    def _clip(self: Any, parameters: list[Tensor]) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        # Read on the host only where that is free; then nothing is multiplied by 1.
        read = self._graph is None and norm.device.type == "cpu"
        if read and float(norm) + 1e-6 <= self.max_grad_norm:
            return
        torch.nn.utils.clip_grads_with_norm_(parameters, self.max_grad_norm, norm)

    def _loss(self: Any, batch: ReplayBufferSamples, seen: Any, following: Any) -> Tensor:
        """Return the Huber loss of one TD error, as DQN's."""
        discounts = self.gamma if batch.discounts is None else batch.discounts
        with torch.no_grad():
            values = self.policy.q_net_target(following).amax(dim=1, keepdim=True)
            targets = batch.rewards + (1 - batch.dones) * discounts * values
        current = self.policy.q_net(seen).gather(1, batch.actions.long())
        return functional.smooth_l1_loss(current, targets)

    # ---- captured ----

    def _captured_step(self: Any, drawn: Tensor, batch_size: int) -> Tensor:
        policy, graph = self.policy, self._graph
        target = policy.q_net_target
        if isinstance(target, TortoiseTarget):
            target.keep_up()
        rate = float(policy.optimizer.param_groups[0]["lr"])
        if self._lr_on_device is None or self._lr_on_device.device != self.device:
            self._lr_on_device = torch.zeros((), device=self.device)
            self._rate = None
        if rate != self._rate:
            self._lr_on_device.fill_(rate)
            self._rate = rate
        methods = policy.methods.values()
        if [method.steps_seen for method in methods] != self._clocks:
            policy.recorded_for += 1  # a method was loaded or set back: its tensors may be others
        for method in methods:
            method.is_advanced_by_loop = method.clears_in_place = True
        try:
            loss: Tensor = graph.run(
                lambda given: self._gradient_step(given, batch_size),
                drawn,
                self._key(batch_size),
                self._recording(),
            )
            policy.stepped(graph.replayed)
        finally:
            for method in methods:
                method.is_advanced_by_loop = False
            self._clocks = [method.steps_seen for method in methods]
        return loss

    def _key(self: Any, batch_size: int) -> tuple[Any, ...]:
        """Return what changes when a recorded step would read or write the wrong storage."""
        policy, optimizer = self.policy, self.policy.optimizer
        kept = [t for module in (policy.q_net, policy.q_net_target) for t in module.parameters()]
        kept += [t for module in (policy.q_net, policy.q_net_target) for t in module.buffers()]
        moments = [
            value
            for state in optimizer.state.values()
            for value in state.values()
            if isinstance(value, Tensor)
        ]
        return (
            (batch_size, self.gamma, self.max_grad_norm, policy.recorded_for),
            id(optimizer),
            (id(self.replay_buffer.rows), self.replay_buffer.rows.rewards.data_ptr()),
            tuple(tensor.data_ptr() for tensor in kept + moments),
        )

    @contextmanager
    def _recording(self: Any) -> Iterator[None]:
        """Let the optimizer be recorded: its rate a tensor, its hooks told that nothing is done."""
        policy = self.policy
        groups = policy.optimizer.param_groups
        before = [(group["lr"], group.get("capturable")) for group in groups]
        policy.optimizer.zero_grad()
        policy.is_recording = True
        for group in groups:
            group["lr"] = self._lr_on_device
            if "capturable" in group:
                group["capturable"] = True
        try:
            yield
        finally:
            policy.is_recording = False
            for group, (rate, capturable) in zip(groups, before, strict=True):
                group["lr"] = rate
                if "capturable" in group:
                    group["capturable"] = capturable

    def _excluded_save_params(self: Any) -> list[str]:
        stock: list[str] = super()._excluded_save_params()  # type: ignore[misc]
        return [*stock, "_graph", "_lr_on_device", "_rate", "_clocks"]


@contextmanager
def _products(policy: Any) -> Iterator[None]:
    """Let the large products of image networks take oneDNN's path where that is fp32 and faster."""
    before = torch.get_float32_matmul_precision()
    if policy.scales_images and policy.device.type == "cpu" and medium_is_fp32():
        torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _scaled(policy: Any, batch: ReplayBufferSamples) -> tuple[Any, Any]:
    """Return observations and next observations as the networks take them."""
    pair = batch.observations, batch.next_observations
    if not policy.scales_images:
        return pair
    return tuple(images.float().div_(255.0) for images in pair)  # type: ignore[return-value]


@contextmanager
def _scaled_before(policy: Any) -> Iterator[None]:
    """Let the networks take images that are scaled already; all else is prepared as ever."""
    networks = policy.q_net, policy.q_net_target
    before = [network.normalize_images for network in networks]
    policy.scales_images = all(before) and is_image_space(policy.observation_space)
    try:
        for network in networks if policy.scales_images else ():
            network.normalize_images = False
        yield
    finally:
        for network, scales in zip(networks, before, strict=True):
            network.normalize_images = scales
