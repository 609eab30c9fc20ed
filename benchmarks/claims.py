"""What the benchmarks must show: one entry per claim, with its goal and the script it comes from.

`report.py` reads results against these; a claim without a result is said to be not measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Claim:
    """One line of the table in docs/performance.md.

    reads: what the goal is about: the package's own number, the ratio, or the upper end of the
    ratio's interval. at_most, at_least: the goal; none of them: only told.
    """

    id: str
    what: str
    script: str
    device: Literal["cpu", "cuda"]
    reads: Literal["own", "ratio", "high"] = "ratio"
    at_least: float | None = None
    at_most: float | None = None
    unit: str = "×"

    @property
    def goal(self) -> str:
        """The goal in words, or ""."""
        if self.at_least is not None:
            return f"≥ {self.at_least:g} {self.unit}"
        if self.at_most is None:
            return ""
        end = "upper end " if self.reads == "high" else ""
        return f"{end}≤ {self.at_most:g}{'' if self.unit == '×' else f' {self.unit}'}"

    @property
    def command(self) -> str:
        """What measures it."""
        return f"python -m benchmarks.{self.script} --device {self.device}"

    def met(self, row: dict[str, Any]) -> bool | None:
        """Whether a result's row meets the goal; None where there is none."""
        ratio = row["ratio"] or {}
        key = {"ratio": "median", "high": "high"}.get(self.reads, "")
        value = row["own"] if self.reads == "own" else ratio[key]
        if self.at_least is not None:
            return bool(value >= self.at_least)
        return None if self.at_most is None else bool(value <= self.at_most)


def number(value: float) -> str:
    """Return three digits that count, never in powers of ten."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _gpu(id: str, what: str, script: str, at_most: float | None, unit: str = "ms") -> Claim:
    return Claim(id, what, script, "cuda", "own", at_most=at_most, unit=unit)


_EMA = (("26k", "26 k", 10, 8), ("537k", "537 k", 5, 2.5), ("11m", "11 M", 4, 1.3))
_LOOPS = "ResNet-18, batch"

_CLAIMS = (
    _gpu("resnet-bf16-none", f"{_LOOPS} 256, bf16, `none`: a step", "images", 3.75),
    _gpu("resnet-bf16-ht", f"{_LOOPS} 256, bf16, `hare-tortoise`: a step", "images", 3.75),
    Claim(
        "resnet-bf16-ht-over-none",
        f"{_LOOPS} 256, bf16: `hare-tortoise` over `none`",
        "images",
        "cuda",
        at_most=1.02,
    ),
    _gpu("resnet-bf16-augmented", f"{_LOOPS} 256, bf16, augmented: a step", "images", None),
    _gpu("resnet-tf32", f"{_LOOPS} 256, tf32: a step", "images", 7.6),
    _gpu("resnet-fp32", f"{_LOOPS} 256, fp32: a step", "images", None),
    _gpu("cnn-lone", "small conv net, batch 128, one seed: a step", "images", None),
    _gpu("cnn-20", "small conv net, batch 128, 20 seeds: a seed-step", "images", 0.25),
    _gpu("cnn-20-long", "the same in a run long enough to compile for", "images", 0.25),
    _gpu("warm-start", "published CIFAR-10 warm start, one seed, all", "cifar_run", 165, "s"),
    _gpu("digits-10", "digits MLP, 10 seeds: a step", "digits", 0.16),
    _gpu("digits-100", "digits MLP, 100 seeds: a step", "digits", 0.25),
    _gpu("digits-1000", "digits MLP, 1,000 seeds: a step", "digits", None),
    _gpu("core-suite-cuda", "`suite-core-v1`, 12 methods × 20 seeds", "core_suite", 180, "s"),
    Claim("dqn-cuda", "DQN on Breakout pixels, `fast=True`", "agent_claims", "cuda", at_least=4),
    Claim(
        "dqn-cpu",
        "DQN on Breakout pixels, `fast=True`, a core",
        "agent_claims",
        "cpu",
        at_least=1.5,
    ),
    *(
        Claim(f"ema-loop-{id}", f"EMA update, {size}: a Python loop", "ema", "cpu", at_least=goal)
        for id, size, goal, _ in _EMA
    ),
    *(
        Claim(
            f"ema-pytorch-{id}",
            f"EMA update, {size}: `ema-pytorch`, foreach",
            "ema",
            "cpu",
            at_least=goal,
        )
        for id, size, _, goal in _EMA
    ),
    *(
        Claim(f"ema-averaged-{id}", f"EMA update, {size}: `AveragedModel`", "ema", "cpu")
        for id, size, _, _ in _EMA
    ),
    Claim("digits-cpu", "digits, whole CPU: a loop per seed", "digits", "cpu", at_least=3),
    Claim("digits-cpu-vmap", "digits, whole CPU: `torch.func.vmap`", "digits", "cpu"),
    Claim(
        "hook-pixels",
        "the hook in stable-baselines3, pixels",
        "agent_claims",
        "cpu",
        "high",
        None,
        1.03,
    ),
    Claim(
        "hook-cartpole",
        "the hook in stable-baselines3, CartPole",
        "agent_claims",
        "cpu",
        "high",
        None,
        1.05,
    ),
    Claim("resnet-fp32-cpu", f"{_LOOPS} 32, fp32, a core: a plain loop", "images", "cpu"),
    Claim("resnet-bf16-cpu", f"{_LOOPS} 32, bf16, a core: a plain loop", "images", "cpu"),
    Claim("cnn-lone-cpu", "small conv net, batch 128, a core: a plain loop", "images", "cpu"),
    Claim("cnn-4-cpu", "small conv net, 4 seeds, a core: one after another", "images", "cpu"),
    Claim(
        "core-suite-cpu",
        "`suite-core-v1`, 12 methods × 20 seeds",
        "core_suite",
        "cpu",
        "own",
        unit="s",
    ),
)
_GROWTH = (
    *(
        Claim(
            f"growth-{step}",
            f"`{step}`, ten times the results: exponent",
            "growth",
            "cpu",
            "own",
            None,
            1.1,
            "",
        )
        for step in ("resume", "compare", "tensorboard", "submit", "verify", "page")
    ),
    Claim("run-processor-1", "a run of two updates, all", "growth_runs", "cpu", "own", unit="ms"),
    Claim("run-processor-2", "the same, `--jobs 2`", "growth_runs", "cpu", "own", unit="ms"),
    *(
        Claim(
            f"{who}-{what}-{jobs}",
            f"{words}, `--jobs {jobs}`",
            "growth_runs",
            "cpu",
            "own",
            None,
            most,
            unit,
        )
        for who, jobs in (("runner", 1), ("runner", 2), ("workers", 2))
        for what, most, unit, words in (
            ("memory", 10, "MiB", f"short runs: memory of the {who} rises by"),
            ("files", 1, "files", f"short runs: open files of the {who} rise by"),
        )
    ),
)
CLAIMS = {claim.id: claim for claim in (*_CLAIMS, *_GROWTH)}
