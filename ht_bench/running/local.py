"""Stacks trained on this machine: in this process, or in worker processes that end with it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence

from ht_bench.running.executor import Announce, ExecutorRequest, Outcome, Progress, train
from ht_bench.running.expected import Left, Times
from ht_bench.running.gpus import visible_gpus
from ht_bench.running.job import StackJob
from ht_bench.running.pool import Pool, pack
from ht_bench.running.time_limit import TimeLimit
from ht_bench.running.workers import choose_workers
from ht_bench.streams.seeds import format_seeds
from ht_bench.training.history import Observer


class LocalExecutor:
    """Trains in this process, or in as many as are asked for: an `executor.Executor`."""

    def __init__(self, request: ExecutorRequest, announce: Announce) -> None:
        self.request, self.announce = request, announce

    def execute(
        self,
        jobs: Sequence[StackJob],
        progress: Progress,
        limit: TimeLimit,
        stop: Callable[[], bool],
    ) -> Outcome:
        """Train the stacks of one device after those of another, since each has its own number."""
        outcome = Outcome()
        for device in dict.fromkeys(job.compute.device for job in jobs):
            own = [job for job in jobs if job.compute.device == device]
            if stop():
                outcome.left += map(Left, own)
                continue
            workers = self.request.workers or choose_workers(own, limit, self.announce)
            if workers <= 1 or len(own) <= 1:
                observer = Observer(progress, stop=lambda: stop() or limit.is_over())
                outcome.add(execute_here(own, observer, limit))
            else:
                outcome.add(self._in_pool(own, min(workers, len(own)), progress, limit, stop))
        outcome.interrupted = stop() and bool(outcome.left)
        return outcome

    def _in_pool(
        self,
        jobs: Sequence[StackJob],
        workers: int,
        progress: Progress,
        limit: TimeLimit,
        stop: Callable[[], bool],
    ) -> Outcome:
        outcome, times = Outcome(), Times()
        waiting = deque([(job, pack(job)) for job in jobs])
        tries: Counter[int] = Counter()
        on_gpu = jobs[0].compute.device == "cuda"
        pool = Pool(workers, visible_gpus() if on_gpu else ())
        try:
            while pool.running or waiting:
                halted = stop() or limit.is_over()
                while waiting and (halted or pool.idle):
                    job, packed = waiting.popleft()
                    if halted or not limit.admits(times.of(job)):
                        outcome.left.append(Left(job))
                    else:
                        tries[id(job)] += 1
                        pool.start(job, packed)
                for job, ended in pool.collect():
                    if ended.is_cut_short and not halted and tries[id(job)] <= self.request.retries:
                        self.announce(_again(job))
                        waiting.appendleft((job, pack(job)))
                        continue
                    outcome.add(ended, job.is_brief)
                    for record in ended.records[:1]:
                        times.add(record)
                pool.halt.value = halted
                progress(pool.new_steps())
        except BaseException:
            pool.close(at_once=True)
            raise
        pool.close(at_once=False)
        return outcome


def execute_here(jobs: Sequence[StackJob], observer: Observer, limit: TimeLimit) -> Outcome:
    """Train one stack after the other in this process."""
    outcome, times = Outcome(), Times()
    for job in jobs:
        if observer.stop() or not limit.admits(times.of(job)):
            outcome.left.append(Left(job))
            continue
        ended = train(job, observer)
        outcome.add(ended, job.is_brief)
        for record in ended.records[:1]:
            times.add(record)
    return outcome


def _again(job: StackJob) -> str:
    return (
        f"The worker process that trained '{job.method.name}' on {job.task.name}, seeds "
        f"{format_seeds(job.seeds)}, ended; they are trained on from their last checkpoint."
    )
