"""Stacks trained by a Ray cluster, or by a Ray instance of this machine."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from ht_bench.errors import UsageError, reason
from ht_bench.records.runs import Claimed, locked
from ht_bench.running.executor import Announce, ExecutorRequest, Outcome, Progress
from ht_bench.running.expected import Left, Times
from ht_bench.running.failure import Death, Failure
from ht_bench.running.job import StackJob
from ht_bench.running.on_ray_board import Board, Grant
from ht_bench.running.on_ray_cluster import Need, connected, import_ray, largest, marked, room
from ht_bench.running.on_ray_files import keep, stack_files
from ht_bench.running.on_ray_worker import Answer, Setting, work
from ht_bench.running.pool import pack
from ht_bench.running.time_limit import TimeLimit
from ht_bench.streams.seeds import format_seeds

POLL = 0.2
"""Seconds to wait for a stack that ends."""
BETWEEN_LOOKS = 0.5
"""Seconds between two messages to the board."""
BETWEEN_COUNTS = 5.0
"""Seconds between two looks at the cluster's nodes."""
AHEAD = 8
"""Stacks that wait in the cluster, at least, so that no worker does and an autoscaler sees them."""


class RayExecutor:
    """Trains each stack as a Ray task: an `executor.Executor`."""

    def __init__(self, request: ExecutorRequest, announce: Announce) -> None:
        """Raise UsageError where Ray is not installed, or for GPUs that Ray cannot give."""
        import_ray()
        if request.gpus is not None and request.gpus > 1 and request.gpus % 1:
            raise UsageError(
                f"--gpus-per-run {request.gpus}: Ray gives a fraction of one GPU, or whole ones."
            )
        self.request, self.announce = request, announce

    def execute(
        self,
        jobs: Sequence[StackJob],
        progress: Progress,
        limit: TimeLimit,
        stop: Callable[[], bool],
    ) -> Outcome:
        """Train all stacks; raises UsageError for a cluster that cannot train one of them."""
        ours = [job if job.out is None else replace(job, out=job.out.absolute()) for job in jobs]
        packed = [pack(job) for job in ours]
        folders = [job.out for job in ours if job.out is not None]
        cpus = max((need(self.request, job).cpus for job in jobs), default=1)
        with (
            connected(self.request.address, int(cpus) * (self.request.workers or 1)) as ray,
            marked(folders) as tokens,
        ):
            sweep = _Sweep(ray, self.request, self.announce, jobs, packed, progress)
            try:
                sweep.run(Setting.of_driver(tokens), limit, stop)
            finally:
                sweep.close()
        sweep.outcome.interrupted = stop() and bool(sweep.outcome.left)
        return sweep.outcome


def need(request: ExecutorRequest, job: StackJob) -> Need:
    """Return what a stack is given; raises UsageError for one on CUDA that is to have no GPU."""
    on_cuda = job.compute.device == "cuda"
    gpus = (1.0 if on_cuda else 0.0) if request.gpus is None else request.gpus
    if on_cuda and not gpus:
        raise UsageError("--gpus-per-run 0 leaves no GPU for --device cuda; give a fraction.")
    return Need(max(request.cpus, job.compute.threads), gpus if on_cuda else 0.0)


class _Sweep:
    """Stacks on their way through a cluster, by their numbers in `jobs`.

    running: by the task's reference, its ticket; stacks: whose ticket it is.
    """

    def __init__(
        self,
        ray: Any,
        request: ExecutorRequest,
        announce: Announce,
        jobs: Sequence[StackJob],
        packed: Sequence[bytes],
        progress: Progress,
    ) -> None:
        self.ray, self.request, self.announce = ray, request, announce
        self.jobs, self.packed, self.progress = jobs, packed, progress
        self.needs = [need(request, job) for job in jobs]
        self.waiting = deque(range(len(jobs)))
        self.running: dict[Any, int] = {}
        self.functions: dict[int, Any] = {}
        self.stacks: dict[int, int] = {}
        self.begun: set[int] = set()  # tickets, here and next
        self.recalled: set[int] = set()
        self.claims: dict[int, contextlib.ExitStack] = {}
        self.deaths: Counter[int] = Counter()
        self.steps: Counter[int] = Counter()
        self.refused: set[str] = set()  # nodes, by id
        self.outcome, self.times = Outcome(), Times()
        self.board: Any = None
        self._looking: Any = None
        self._looked = self._counted = 0.0
        self._grants: dict[int, Grant] = {}
        self._told_halt = self._heard = False  # whether the board was told to stop all, and knows
        self._room = 0

    def run(self, setting: Setting, limit: TimeLimit, stop: Callable[[], bool]) -> None:
        """Train all; raises UsageError where no node has what a stack needs."""
        for lacking in dict.fromkeys(self.needs):
            if not room(self.ray, lacking):
                raise UsageError(self._no_room(lacking))
        shared, self.board = self.ray.put(setting), self._make_board()
        while self.waiting or self.running:
            halted = stop() or limit.is_over()
            self._submit(shared, limit, halted)
            for ticket, answer in self._collect():
                self._settle(ticket, answer, halted)
            self._exchange(halted)
            if halted and self._heard:
                self._recall()
            elif not halted:
                self._count_nodes()

    def close(self) -> None:
        """End what still trains, at once, and let go of all claims."""
        for reference in self.running:
            with contextlib.suppress(Exception):  # whatever a cluster does that is gone
                self.ray.cancel(reference, force=True)
        with contextlib.suppress(Exception):
            if self.board is not None:
                self.ray.kill(self.board)
        for claim in self.claims.values():
            claim.close()

    # ---- the board ----

    def _make_board(self) -> Any:
        """Start the actor that workers report to, on the driver's node if it may be."""
        strategies: Any = self.ray.util.scheduling_strategies
        here = self.ray.get_runtime_context().get_node_id()
        return (
            self.ray.remote(Board)
            .options(
                num_cpus=0,
                max_restarts=-1,
                scheduling_strategy=strategies.NodeAffinitySchedulingStrategy(here, soft=True),
            )
            .remote()
        )

    def _exchange(self, halted: bool) -> None:
        """Tell the board whether to stop and what is granted; hear of steps and who asks."""
        if self._looking is not None:
            if not self.ray.wait([self._looking], timeout=0)[0]:
                return
            with contextlib.suppress(self.ray.exceptions.RayError):  # it is being started again
                steps, asking = self.ray.get(self._looking)
                self.begun.update(steps)
                for ticket, count in steps.items():
                    self._tell(self.stacks[ticket], count)
                trained = asking & set(self.running.values())  # not the dead ones'
                self._grants = {ticket: self._grant(ticket) for ticket in trained}
                self._heard = halted and self._told_halt
            self._looking = None
        if time.monotonic() - self._looked >= BETWEEN_LOOKS:
            self._looked = time.monotonic()
            self._told_halt = halted
            self._looking = self.board.look.remote(halted, self._grants)

    def _tell(self, stack: int, steps: int) -> None:
        """Tell of new steps; those that are done once more after a death are not new."""
        if steps > self.steps[stack]:
            self.progress(steps - self.steps[stack])
            self.steps[stack] = steps

    # ---- to the workers and back ----

    def _submit(self, setting: Any, limit: TimeLimit, halted: bool) -> None:
        """Hand out what the cluster holds, and a few more; leave what is not worth beginning."""
        most = self.request.workers or max(2 * self._room, self._room + AHEAD)
        while self.waiting and (halted or len(self.running) < most):
            stack = self.waiting.popleft()
            job = self.jobs[stack]
            if halted or not limit.admits(self.times.of(job)):
                self.outcome.left.append(Left(job))
                continue
            ticket = len(self.stacks)
            self.stacks[ticket] = stack
            task = self._task(stack).remote(self.packed[stack], ticket, self.board, setting)
            self.running[task] = ticket

    def _task(self, stack: int) -> Any:
        """Return the remote function; a worker's process trains on one GPU all its life."""
        gpus, job = self.needs[stack].gpus, self.jobs[stack]
        calls = 1 if gpus else 0
        if calls not in self.functions:  # another object would not share its workers
            self.functions[calls] = self.ray.remote(max_calls=calls)(work)
        options: dict[str, Any] = {
            "num_cpus": self.needs[stack].cpus,
            "num_gpus": gpus,
            "max_retries": 0,  # counted here: Ray would go on for ever where memory runs out
            "name": f"{job.method.name} on {job.task.name}, seeds {format_seeds(job.seeds)}",
        }
        if self.refused:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(self.refused)})"}
        return self.functions[calls].options(**options)

    def _collect(self) -> Iterator[tuple[int, Answer | Outcome]]:
        """Wait a moment, then yield the tickets of what has ended, with what came of each."""
        references = list(self.running)
        if not references or not self.ray.wait(references, timeout=POLL)[0]:
            return
        ended = self.ray.wait(references, num_returns=len(references), timeout=0)[0]
        for reference in ended:
            ticket = self.running.pop(reference)
            yield ticket, self._result(reference, self.jobs[self.stacks[ticket]])

    def _result(self, reference: Any, job: StackJob) -> Answer | Outcome:
        errors = self.ray.exceptions
        try:
            answer: Answer = self.ray.get(reference)
        except errors.TaskCancelledError:
            return Outcome(left=[Left(job)])
        except (errors.RayTaskError, errors.RuntimeEnvSetupError) as error:
            return Outcome(
                failures=[
                    Failure(
                        f"A node of the Ray cluster could not begin with '{job.method.name}' on "
                        f"{job.task.name} ({reason(error)}); install this version of ht-bench "
                        "there, with what the method imports.",
                        error,
                    )
                ]
            )
        except errors.RayError:  # the worker, its node or its result is lost
            return Outcome(failures=[Death.of(job, "Ray worker")])
        return answer

    def _settle(self, ticket: int, answer: Answer | Outcome, halted: bool) -> None:
        """Keep what came of a stack, or have it trained on where its worker was cut short."""
        stack = self.stacks[ticket]
        job = self.jobs[stack]
        with self.claims.pop(ticket, contextlib.ExitStack()):
            if isinstance(answer, Answer):
                if answer.mismatch:
                    return self._refuse(stack, answer)
                self._tell(stack, answer.steps)
                outcome = answer.outcome
                if answer.files is not None:
                    outcome = keep(job, outcome, answer.files)
            else:
                outcome = answer
        outcome.left = [replace(left, job=job) for left in outcome.left]
        outcome.busy = [job] * len(outcome.busy)
        if outcome.is_cut_short and not halted and self.deaths[stack] < self.request.retries:
            self.deaths[stack] += 1
            self.announce(_again(job))
            self.waiting.appendleft(stack)
            return None
        self.outcome.add(outcome, job.is_brief)
        for record in outcome.records[:1]:
            self.times.add(record)
        return None

    def _refuse(self, stack: int, answer: Answer) -> None:
        """Have a node train nothing, whose numbers would differ."""
        if answer.node not in self.refused:
            self.refused.add(answer.node)
            self.announce(
                f"Node {answer.node[:8]} of the Ray cluster is left out, since its numbers would "
                f"differ: it has {answer.mismatch}."
            )
        self._counted = 0.0
        self.waiting.appendleft(stack)

    def _grant(self, ticket: int) -> Grant:
        """Claim a stack for a worker that cannot see the folder; return the stack's files."""
        job = self.jobs[self.stacks[ticket]]
        if ticket not in self.claims:
            claim = contextlib.ExitStack()
            try:
                claim.enter_context(locked(job.seed_folders))
            except Claimed:
                return Grant(busy=True)
            except UsageError as error:
                return Grant(refusal=str(error))
            self.claims[ticket] = claim
        try:
            return Grant(stack_files(job))
        except OSError as error:
            return Grant(refusal=f"Could not read {job.folder}: {error.strerror or error}.")

    def _recall(self) -> None:
        """Take back what has not begun: a cluster that others fill may not come to it for hours."""
        for reference, ticket in self.running.items():
            if ticket not in self.begun | self.recalled:
                self.recalled.add(ticket)
                self.ray.cancel(reference)

    # ---- the nodes ----

    def _count_nodes(self) -> None:
        """See what the nodes hold; give up what none of them can take any more."""
        if self._counted and time.monotonic() - self._counted < BETWEEN_COUNTS:
            return
        self._counted = time.monotonic()
        rooms = {each: room(self.ray, each, self.refused) for each in set(self.needs)}
        self._room = max(rooms.values())
        lacking = {each for each, count in rooms.items() if not count}
        lost = [stack for stack in self.waiting if self.needs[stack] in lacking]
        for reference, ticket in list(self.running.items()):
            stack = self.stacks[ticket]
            if self.needs[stack] in lacking:
                self.ray.cancel(reference)
                del self.running[reference]
                lost.append(stack)
        if lost:
            self.waiting = deque(stack for stack in self.waiting if stack not in lost)
            sentence = f"{len(lost)} stack(s) of seeds were not trained. "
            self.outcome.failures.append(Failure(sentence + self._no_room(self.needs[lost[0]])))

    def _no_room(self, lacking: Need) -> str:
        left_out = f", {len(self.refused)} left out" if self.refused else ""
        return (
            f"No node of the Ray cluster has the {lacking} that each stack of seeds is given (its "
            f"nodes: {largest(self.ray)}{left_out}); start one that has, or ask for less: "
            "--gpus-per-run takes fractions, --threads sets the CPUs."
        )


def _again(job: StackJob) -> str:
    return (
        f"The Ray worker that trained '{job.method.name}' on {job.task.name}, seeds "
        f"{format_seeds(job.seeds)}, ended; they are trained on from their last checkpoint."
    )
