"""The loop: a stack of seeds trains on a stream of data with a method, resumable at any step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ht_bench.methods.base import Method
from ht_bench.methods.loop import Loop
from ht_bench.methods.moments import clear_moments
from ht_bench.networks.stacking import is_stacked
from ht_bench.streams.dataset import Dataset
from ht_bench.streams.families import get_family
from ht_bench.streams.points import points_of_phase
from ht_bench.streams.randomness import torch_seed
from ht_bench.streams.stream import Split, Stream, planned_steps
from ht_bench.streams.task import Task
from ht_bench.training import build
from ht_bench.training.batches import Batches, Examples, Images
from ht_bench.training.capture import CudaGraphs, Graphs, context
from ht_bench.training.checkpoint import CheckpointPlan
from ht_bench.training.compiled import CompiledForward, pays
from ht_bench.training.device import Compute, random_state, set_random_state
from ht_bench.training.diagnosing import Diagnoser
from ht_bench.training.history import History, Observer
from ht_bench.training.offer import Offer
from ht_bench.training.rate import LearningRate
from ht_bench.training.recording import Recorder
from ht_bench.training.run import Run, held_bytes
from ht_bench.training.step import TrainingStep


class SupervisedRun(Run):
    """One stack of seeds of one task of data and method: see `Run`."""

    def __init__(
        self,
        task: Task,
        data: Dataset,
        method: Method,
        seeds: Sequence[int],
        split: Split = "test",
        compute: Compute | None = None,
        graphs: Graphs | Literal["auto"] | None = "auto",
    ) -> None:
        """Build network, optimizer and method; `graphs` capture steps ("auto": on CUDA)."""
        self.task, self.data, self.method = task, data, method
        self.streams = [Stream(task, data, seed, split) for seed in seeds]
        super().__init__(seeds, planned_steps(self.streams[0]), compute)
        self.images = Images(data, self.compute.device)
        self.module = build.network(task, data, self.seeds, method.network_changes())
        self.module.to(self.compute.device)
        self.stacked = is_stacked(self.module)
        if not self.stacked:
            self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.noise = build.noise(self.module, len(self.seeds), self.compute.device)
        if graphs == "auto":
            graphs = CudaGraphs() if self.compute.device == "cuda" else None
        if isinstance(graphs, CudaGraphs) and self.noise is not None:
            graphs.generators = self.noise.generators
        self.graphs = graphs
        self.optimizer = build.optimizer(task.optimizer, self.module, graphs is not None)
        trainability = get_family(task.family).metric == "train/accuracy"
        self.recorder = Recorder(
            self.module, method, self.history, self.compute, data.classes, trainability, graphs
        )
        self.diagnoser = Diagnoser(
            self.module,
            self.optimizer,
            task.optimizer,
            self.history,
            self.recorder.initial,
            data.classes,
        )
        draws = [torch_seed(task.name, seed, "method") for seed in self.seeds]
        generators = [torch.Generator().manual_seed(draw) for draw in draws]
        method.attach(
            self.module,
            self.optimizer,
            generator=generators,
            initialize=self._fresh,
            loop=self._offer(generators),
        )
        self.step = self._make_step()

    def _offer(self, generators: list[torch.Generator]) -> Loop:
        def examples(phase: int) -> Examples:
            if phase == self.position.phase:
                return self.step.batches.examples
            return Examples([stream.phase(phase) for stream in self.streams], self.images)

        batch = self.task.training.batch
        return Offer(self.module, examples, lambda: self.position.phase, batch, generators).loop()

    def _make_step(self) -> TrainingStep:
        spec, device = self.task.optimizer, self.compute.device
        on_device = self.graphs is not None
        batches = Batches(self.streams, self.images, captured=on_device)
        rate = LearningRate(self.optimizer, spec, self.planned, device if on_device else None)
        step = TrainingStep(
            self.module,
            self.optimizer,
            self.method,
            spec,
            self.compute,
            batches,
            rate,
            self.recorder,
            self.graphs,
        )
        # Hooks on modules, which compiling would follow, and random numbers of its own.
        eager = bool({"activations", "outputs"} & self.method.needed()) or self.noise is not None
        if not eager and pays(self.module, self.planned, self.compute):
            step.full_forward = CompiledForward(self.module)
        return step

    @property
    def methods(self) -> Sequence[Method]:
        """The attached methods: one."""
        return [self.method]

    def facts(self) -> dict[str, Any]:
        """Return what a record says of the data."""
        return {"data_sha256": self.data.sha256, "classes": self.data.classes}

    def _fresh(self) -> dict[str, Tensor]:
        """Fresh weights keyed by phase: what other phases drew shifts nothing here."""
        phase, draw = self.position.phase, self.position.draws
        self.position.draws += 1
        changes = self.method.network_changes()
        drawn = build.network(
            self.task, self.data, self.seeds, changes, "fresh weights", phase, draw
        )
        return build.named_tensors(drawn.to(self.compute.device))

    # ---- the loop ----

    def train(
        self, plan: CheckpointPlan | None = None, observer: Observer | None = None
    ) -> History:
        """Train all phases; raises Interrupted when `observer.stop()` says so."""
        with context(self.graphs):
            return super().train(plan, observer)

    def train_phase(self, index: int) -> None:
        """Train what is left of phase `index`, from its start where `position.step` is 0."""
        self._open(index)
        if self.position.step == 0:
            self._cross(index)
            self._record(0)
            with self.evaluating():
                self.diagnoser.begin(self.step.batches.examples)
        grid = points_of_phase(self.planned[index], self.task.training.points)
        diagnosed = self.diagnostics.times(grid)
        for target in grid[self.position.recorded :]:
            self._train_until(target)
            self._record(target)
            if target in diagnosed:
                self._diagnose(target)
            self.position.recorded += 1

    def _cross(self, index: int) -> None:
        """Enter a phase: optimizer state cleared, the method told, its budget asked."""
        self.position.draws = 0
        clear_moments(self.optimizer, in_place=self.method.clears_in_place)
        self.position.allowed = self.method.enter_phase(
            index, self.planned[index], self.step.batches.epoch_steps, len(self.planned)
        )
        self.disturb(self.module, index)
        self.step.check()

    def _open(self, index: int) -> None:
        self.step.open(index)
        self.tests = Examples([stream.test(index) for stream in self.streams], self.images)

    def _train_until(self, target: int) -> None:
        """Go to step `target` of the phase; beyond the method's budget steps train nothing."""
        self.module.train()
        learns = bool(self.alive.any())
        while self.position.step < target:
            if learns and self.position.step < self.position.allowed:
                self._key_dropout()
                self.step.take(self.position.step)
                self.steps_taken += 1
                if self.position.step == 0:  # with moments, before a method may clear them
                    self.note_held()
            self.position.step += 1
            self.observer.progress(1)
            self.pause_if_due()

    def _key_dropout(self) -> None:
        """Key every epoch's dropout, so that methods that draw differently share its masks."""
        phase = self.position.phase
        epoch, place = divmod(self.position.step, self.step.batches.epoch_steps)
        if place:
            return
        seed = torch_seed(self.task.name, self.seeds[0], "dropout", phase, epoch)
        # torch.manual_seed notes a stack trace for each kind of device that is absent.
        torch.default_generator.manual_seed(seed)
        if self.compute.device == "cuda":
            torch.cuda.manual_seed(seed)
        if self.noise is not None:
            name = self.task.name
            self.noise.key([torch_seed(name, s, "dropout", phase, epoch) for s in self.seeds])

    # ---- records and checkpoints ----

    def _record(self, step: int) -> None:
        phase = self.position.phase
        step += self.steps_before(phase)
        examples = self.step.batches.examples
        with self.evaluating():
            self.observer.point(self.recorder.record(phase, step, self.tests, examples))

    def _diagnose(self, step: int) -> None:
        phase, examples = self.position.phase, self.step.batches.examples
        step += self.steps_before(phase)
        with self.evaluating():
            self.diagnoser.add(phase, step, examples, self.diagnostics.costly)

    def retention(self) -> list[list[float]] | None:
        """Return, per seed, the final accuracy on each phase's own test view; None if all agree."""
        phases = range(len(self.planned))
        views = [[stream.test(index) for stream in self.streams] for index in phases]
        if not self.task.retains:
            return None
        evaluation = self.recorder.evaluation
        with self.method.evaluating() as evaluated:
            tests = (Examples(view, self.images) for view in views)
            rows = [evaluation.measure(evaluated, examples)[0] for examples in tests]
        retained: list[list[float]] = torch.stack(rows, dim=1).cpu().tolist()
        return retained

    def tensor_bytes(self) -> int:
        """Return the bytes of module, optimizer state and what the method keeps."""
        return held_bytes(
            dict(self.module.named_parameters()),
            dict(self.module.named_buffers()),
            self.optimizer.state_dict(),
            self.method.state_dict(),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds beside position, history and cost."""
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "method": self.method.checkpoint(),
            "recorder": self.recorder.state_dict(),
            "diagnoser": self.diagnoser.state_dict(),
            "rng": random_state(self.compute),
            "noise": [] if self.noise is None else self.noise.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned; the position is already the saved one."""
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.recorder.load_state_dict(state["recorder"])
        self.diagnoser.load_state_dict(state["diagnoser"])
        self.step.rate.bind()
        self._open(min(self.position.phase, len(self.planned) - 1))
        self.method.restore(state["method"], self.step.batches.epoch_steps, len(self.planned))
        set_random_state(state["rng"])
        if self.noise is not None:
            self.noise.load_state_dict(state["noise"])
