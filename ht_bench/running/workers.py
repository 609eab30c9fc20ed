"""How many worker processes: one per core, or what fills each GPU, which a short trial tells."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from ht_bench.running.cores import available_cores
from ht_bench.running.gpus import visible_gpus
from ht_bench.running.job import StackJob
from ht_bench.running.pool import Pool, pack
from ht_bench.running.time_limit import TimeLimit

GAIN = 1.1
"""By how much more processes must raise the steps per second to be worth their memory."""
SHARE = 0.9
"""Of the free memory, to be used: a run may still need more than it did in the trial."""
WARM_STEPS, WINDOW, PATIENCE = 20, 5.0, 180.0
"""Steps that each process takes first; seconds that are then measured; seconds to wait for it."""
SHORTEST = 300.0
"""Seconds that must be left of a time limit for a trial to be worth its own."""


@dataclass(frozen=True)
class Load:
    """What some processes do together: steps per second, and bytes of the device's memory."""

    rate: float
    bytes: int


def most_useful(measure: Callable[[int], Load], free: int, most: int) -> int:
    """Return how many processes to use: doubled while steps per second grow by a tenth.

    measure(n): the load of n processes; n rises from call to call. free: bytes of the device.
    """
    best, load = 1, measure(1)
    each = load.bytes
    while True:
        room = int(SHARE * free / each) if each > 0 else most
        count = min(2 * best, most, room)
        if count <= best:
            return best
        more = measure(count)
        if more.rate < GAIN * load.rate:
            return best
        best, load = count, more
        each = max(each, more.bytes // count)


def choose_workers(
    jobs: Sequence[StackJob], limit: TimeLimit, announce: Callable[[str], None]
) -> int:
    """Return the number of processes for jobs of one device."""
    most = min(available_cores(), len(jobs))
    gpus = max(len(visible_gpus()), 1)
    if not jobs or jobs[0].compute.device == "cpu" or most <= 1:
        return max(most, 1)
    if limit.left < SHORTEST:
        announce("There is no time to try how many processes fill a GPU: one; --jobs N asks.")
        return min(gpus, most)
    if most <= gpus:
        return most
    announce("Trying how many processes fill the GPU, a minute or two …")
    free = torch.cuda.mem_get_info()[0]
    loads: dict[int, Load] = {}
    with trial(jobs[0], -(-most // gpus), lambda: free - torch.cuda.mem_get_info()[0]) as measure:

        def noted(count: int) -> Load:
            loads[count] = measure(count)
            return loads[count]

        best = most_useful(noted, free, -(-most // gpus))
    tried = ", ".join(
        f"{count}: {load.rate:.0f} steps/s in {load.bytes / 2**30:.1f} GiB"
        for count, load in loads.items()
    )
    where = "the GPU" if gpus == 1 else f"each of {gpus} GPUs"
    announce(f"{best} process(es) on {where} ({tried}); --jobs N takes another number.")
    return min(best * gpus, most)


@contextmanager
def trial(job: StackJob, most: int, used: Callable[[], int]) -> Iterator[Callable[[int], Load]]:
    """Yield a measure of n processes that all train `job` and keep nothing of it.

    used(): bytes of the device's memory that they take. Where they fail, the rate is 0.
    """
    pool = Pool(most, visible_gpus()[:1])
    packed = pack(replace(job, out=None, tensorboard=False))

    def run_for(seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Keep the processes busy; returns False where one failed."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not until():
            for _, ended in pool.collect():
                if ended.failures:
                    return False
                pool.start(job, packed)  # it was a short one
        return True

    def measure(count: int) -> Load:
        before = list(pool.steps)
        while len(pool.running) < count:
            pool.start(job, packed)
        slots = [slot for _, slot, _ in pool.running.values()]

        def is_warm() -> bool:
            return all(pool.steps[slot] >= before[slot] + WARM_STEPS for slot in slots)

        if not run_for(PATIENCE, is_warm) or not is_warm():
            return Load(0.0, used())
        steps, began = sum(pool.steps), time.monotonic()
        if not run_for(WINDOW):
            return Load(0.0, used())
        return Load((sum(pool.steps) - steps) / (time.monotonic() - began), used())

    try:
        yield measure
    finally:
        pool.close(at_once=True)
