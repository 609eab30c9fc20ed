"""Training loops, a stretch of steps at a time: the package's own and its peers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import cross_entropy, pad

from benchmarks.common import synchronize
from ht_bench.errors import UsageError
from ht_bench.methods.base import Method
from ht_bench.streams.data import load
from ht_bench.streams.dataset import Dataset
from ht_bench.streams.task import Task, parse_task
from ht_bench.training.compiled import LONG, CompiledForward, pays
from ht_bench.training.device import Compute
from ht_bench.training.history import Interrupted, Observer
from ht_bench.training.supervised import SupervisedRun

DECAY = 0.99


def make_task(
    net: Mapping[str, Any], steps: int, points: int, batch: int, stack: int = 1, **more: Any
) -> Task:
    """Return a task of one phase of `points` stretches of `steps` each."""
    phase = {"new": 1.0, "updates": steps * points, "augment": more.pop("augment", False)}
    task = parse_task(
        {
            "name": "benchmark-v1",
            "family": "warm-start",
            "seeds": "0-4",
            "data": {"name": "cifar10", **more.pop("data", {})},
            "net": dict(net),
            "optimizer": {"lr": 1e-3, **more.pop("optimizer", {})},
            "training": {"batch": batch, "stack": stack, "points": points},
            "phases": [phase],
        },
        "benchmark",
    )
    assert isinstance(task, Task)
    return task


def synthetic(train: int, test: int, size: int = 32) -> Dataset:
    """Return random colour images [3, size, size] of ten classes: the same work as CIFAR-10's."""
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 256, (n, 3, size, size), dtype=np.uint8) for n in (train, test)]
    labels = [draw.integers(0, 10, n) for n in (train, test)]
    middle, spread = (0.5,) * 3, (0.289,) * 3
    return Dataset(
        "synthetic", images[0], labels[0], images[1], labels[1], 10, middle, spread, 255, "0" * 64
    )


def cifar10() -> tuple[Dataset, str]:
    """Return CIFAR-10 where it is to be had, else random images of its shape; and which."""
    try:
        return load("cifar10"), "CIFAR-10"
    except UsageError:
        return synthetic(50_000, 10_000), "random images of CIFAR-10's shape"


def compile_as_long(run: SupervisedRun) -> None:
    """Let a short run train as a long one does: its network compiled where that would pay."""
    if pays(run.module, [LONG], run.compute) and run.step.full_forward is run.module:
        run.step.full_forward = CompiledForward(run.module)


class OwnLoop:
    """The package's loop: each call trains to the next point of the curve.

    A call returns the seconds of training alone, as the run itself counts them. The run stands
    still in a thread of its own between two calls. long: it is a part of a run that is long enough
    to compile its network for.
    """

    def __init__(
        self,
        task: Task,
        data: Dataset,
        method: Method,
        seeds: Sequence[int],
        compute: Compute,
        long: bool = False,
    ) -> None:
        self.run = SupervisedRun(task, data, method, seeds, "test", compute)
        if long:
            compile_as_long(self.run)
        self._go, self._there = threading.Semaphore(0), threading.Semaphore(0)
        self._ended = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._train, daemon=True)
        self._thread.start()

    def _train(self) -> None:
        self._go.acquire()
        try:
            if not self._ended:
                self.run.train(observer=Observer(point=self._stand, stop=lambda: self._ended))
        except Interrupted:
            pass
        except BaseException as error:
            self._error = error
        self._ended = True
        self._there.release()

    def _stand(self, point: object) -> None:
        self._there.release()
        self._go.acquire()

    def __call__(self) -> float:
        """Train a stretch; returns its seconds."""
        before = self.run.seconds
        self._go.release()
        self._there.acquire()
        if self._error is not None:
            raise self._error
        if self._ended:
            raise RuntimeError("The task has no further point; give it more.")
        return self.run.seconds - before

    def warm_up(self) -> float:
        """Train the first stretch, in which compilers and captures work; returns its seconds."""
        self()  # the point before the first step
        return self()

    def close(self) -> None:
        """End the run."""
        self._ended = True
        self._go.release()
        self._thread.join()


@contextmanager
def plain_settings(precision: str) -> Iterator[None]:
    """Hold torch's settings as a fast program without demands on its bits has them."""
    cudnn, matmul = torch.backends.cudnn, torch.get_float32_matmul_precision()
    before = cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32 = True, False, precision == "tf32"
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.set_float32_matmul_precision(matmul)
        cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32 = before


class PlainLoop:
    """A loop as a good program without this package has it, for one network.

    Data on the device, batches by index, fused AdamW, the average by `_foreach_lerp_`, the
    network put back to it every `reset_every` steps. decay None: no average.
    """

    def __init__(
        self,
        module: nn.Module,
        images: Tensor,
        labels: Tensor,
        batch: int,
        steps: int,
        compute: Compute,
        decay: float | None = None,
        clip: float | None = None,
        augment: bool = False,
        reset_every: int = 500,
    ) -> None:
        self.module, self.images, self.labels = module.to(compute.device), images, labels
        if images.dim() == 4:
            self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.batch, self.steps, self.compute = batch, steps, compute
        self.decay, self.clip, self.augment = decay, clip, augment
        self.reset_every, self.taken = reset_every, 0
        self.parameters: list[Tensor] = list(module.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-3, fused=True)
        self.average = [p.detach().clone() for p in self.parameters]
        self.mean = torch.tensor(127.5, device=images.device)
        self._start()

    def _start(self) -> None:
        order = torch.randperm(len(self.labels), device=self.labels.device)
        self._batches = iter(order.split(self.batch))

    def __call__(self) -> float:
        """Train a stretch; returns its seconds."""
        with plain_settings(self.compute.precision):
            self.module.train()
            synchronize(self.compute.device)
            begun = time.perf_counter()
            for _ in range(self.steps):
                self._step()
            synchronize(self.compute.device)
            return time.perf_counter() - begun

    def _next(self) -> tuple[Tensor, Tensor]:
        index = next(self._batches, None)
        if index is None:
            self._start()
            index = next(self._batches)
        images = self.images[index]
        if images.dtype == torch.uint8:
            if self.augment:
                images = shifted(images)
            images = (images.float() - self.mean) / self.mean
        if images.dim() == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        return images, self.labels[index]

    def _step(self) -> None:
        images, labels = self._next()
        self.optimizer.zero_grad()
        with self.compute.autocast():
            loss = cross_entropy(self.module(images), labels)
        loss.backward()
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()
        self.taken += 1
        if self.decay is not None:
            self._move_average(self.decay)

    @torch.no_grad()
    def _move_average(self, decay: float) -> None:
        torch._foreach_lerp_(self.average, self.parameters, 1 - decay)
        if self.taken % self.reset_every == 0:
            torch._foreach_copy_(self.parameters, self.average)


def shifted(images: Tensor) -> Tensor:
    """Return the images cropped at random after padding and flipped at random."""
    count, _, size, _ = images.shape
    device = images.device
    places = torch.randint(0, 9, (2, count, 1), device=device) + torch.arange(size, device=device)
    flip = torch.rand(count, 1, device=device) < 0.5
    columns = torch.where(flip, places[1].flip(1), places[1])
    each = torch.arange(count, device=device)[:, None, None]
    padded = pad(images, [4] * 4)
    return padded[each, :, places[0][:, :, None], columns[:, None]].permute(0, 3, 1, 2)


class VmapLoop(PlainLoop):
    """The same for several networks at once, by `torch.func.vmap` over stacked weights."""

    def __init__(
        self,
        modules: Sequence[nn.Module],
        images: Tensor,
        labels: Tensor,
        batch: int,
        steps: int,
        compute: Compute,
    ) -> None:
        super().__init__(modules[0], images, labels, batch, steps, compute, DECAY)
        for module in modules:
            module.to(compute.device)
        self.seeds = len(modules)
        self.stacked: dict[str, Tensor] = stack_module_state(list(modules))[0]
        self.parameters = [nn.Parameter(p.detach()) for p in self.stacked.values()]
        self.stacked = dict(zip(self.stacked, self.parameters, strict=True))
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-3, fused=True)
        self.average = [p.detach().clone() for p in self.parameters]
        self._losses = vmap(self._loss)
        self._start()

    def _start(self) -> None:
        seeds = getattr(self, "seeds", 1)
        noise = torch.rand(seeds, len(self.labels), device=self.labels.device)
        self._batches = iter(noise.argsort(1).split(self.batch, dim=1))

    def _loss(self, weights: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(functional_call(self.module, weights, (images,)), labels)

    def _step(self) -> None:
        images, labels = self._next()
        self.optimizer.zero_grad()
        self._losses(self.stacked, images, labels).sum().backward()
        self.optimizer.step()
        self.taken += 1
        self._move_average(DECAY)
