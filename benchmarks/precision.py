"""Whether bf16 and TF32 end where fp32 does: `python benchmarks/precision.py --device cpu`.

Trains CIFAR-10 at a reduced budget (precision.toml) once per seed in each precision, on the same
data from the same weights, and prints each seed's final accuracy and, against fp32, the mean of
the paired differences with Student's 95 % interval. Finished runs are kept in --out: the same
command goes on. CIFAR-10 is needed (docs/data.md).
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import torch

import ht_bench
from ht_bench.ranking.score import paired_interval
from ht_bench.streams.seeds import parse_seeds

TASK = Path(__file__).with_suffix(".toml")
MOST = 0.01
"""A difference of one point of accuracy would be seen: the interval must lie within."""


def arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--task", default=str(TASK), help="a task's name or TOML file")
    parser.add_argument("--method", default="none")
    parser.add_argument("--seeds", default="100-107")
    parser.add_argument("--out", type=Path, default=Path("runs/precision"))
    return parser.parse_args()


def main() -> None:
    """Train, and print the table."""
    asked = arguments()
    seeds = parse_seeds(asked.seeds)
    names = ("fp32", "tf32", "bf16") if asked.device == "cuda" else ("fp32", "bf16")
    hardware: dict[str, str] = {}
    finals: dict[str, list[float]] = {name: [] for name in names}
    for seed in seeds:
        for name in names:
            result = ht_bench.evaluate(
                asked.method,
                asked.task,
                [seed],
                device=asked.device,
                precision=name,
                out=asked.out,
                progress=False,
            )
            finals[name] += result.final.tolist()
            hardware = result.records[0]["hardware"]
        print(f"seed {seed}: {', '.join(f'{n} {finals[n][-1]:.4f}' for n in names)}", flush=True)
    machine = hardware.get("gpu", hardware["processor"])
    print(f"\n{asked.method} on {Path(asked.task).stem}, n = {len(seeds)}, seeds {asked.seeds}.")
    print(f"{machine} ({hardware['instructions']}), torch {torch.__version__}.")
    for name in names:
        print(f"{name}: {np.mean(finals[name]):.4f} ± {np.std(finals[name], ddof=1):.4f} (sd)")
    for name in names[1:]:
        gap = paired_interval(finals[name], finals["fp32"])
        verdict = "within" if max(abs(gap.low), abs(gap.high)) < MOST else "not surely within"
        print(
            f"{name} - fp32: {gap.value:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}], "
            f"{verdict} {MOST:.2f}."
        )


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="The tortoise is judged")
    main()
