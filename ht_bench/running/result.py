"""Result: what `evaluate` returns, one method on one task over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ht_bench.errors import UsageError
from ht_bench.ranking.entries import epoch
from ht_bench.ranking.score import Estimate, suite_score
from ht_bench.records.metrics import final_metric, metric_key
from ht_bench.records.record import Record, group_digest, seeds_of, write_record
from ht_bench.records.runs import group_folder, result_file, write_spec
from ht_bench.streams.spec import Spec
from ht_bench.streams.suite import known_suites


class Result:
    """One method on one task: `final`, `curves`, `score()`, `plot()`, `save()`.

    task: the Task. records: one result.json's content per seed, in the order of `seeds`.
    """

    def __init__(self, task: Spec, records: Sequence[Record]) -> None:
        self.task, self.records = task, list(records)
        self.method = str(self.records[0]["method"])
        self.seeds = tuple(seeds_of(self.records))

    @property
    def final(self) -> np.ndarray:
        """The task's final metric (PROTOCOL: anchors and score), float64 [seeds]."""
        family = self.task.family
        return np.array([final_metric(r, family, r["classes"]) for r in self.records])

    @property
    def curves(self) -> dict[str, np.ndarray]:
        """Metric key → float64 [seeds, points], nan where there is no value.

        `phase` and `step` (optimizer steps planned so far) are [points].
        """
        tables = [record["curve"] for record in self.records]
        found = {
            key: np.array([table[key] for table in tables], dtype=np.float64) for key in tables[0]
        }
        return {k: v[0] if k in ("phase", "step") else v for k, v in found.items()}

    @property
    def diverged(self) -> np.ndarray:
        """Whether each seed's losses or weights left the finite numbers, bool [seeds]."""
        return np.array([record["status"] == "diverged" for record in self.records])

    def score(self, warm: Result | None = None, fresh: Result | None = None) -> Estimate:
        """Return gap closed with its 95 % interval, paired by seed.

        warm, fresh: results of `none` and `full-reset`, run as this one; both left out, the anchors
        frozen in a suite of the result's epoch are taken, if they were run so too. Only seeds that
        all three have are used. The estimate is `NO_GAP` (nan) where fresh is not surely above
        warm on them. Raises UsageError when only one is given, when they were run otherwise, and
        when there are no anchors for this task and these seeds.
        """
        if (warm is None) != (fresh is None):
            given, lacking = ("fresh", "warm") if warm is None else ("warm", "fresh")
            raise UsageError(
                f"Only {given} is given; pass {lacking} too, or neither for the frozen anchors."
            )
        if warm is not None and fresh is not None:
            for other in (warm, fresh):
                self._check_alike(other)
            anchors = {"none": _by_seed(warm), "full-reset": _by_seed(fresh)}
        else:
            anchors = self._frozen_anchors()
        own = _by_seed(self)
        common = [s for s in self.seeds if all(s in values for values in anchors.values())]
        if not common:
            raise UsageError(
                f"No seed of this result has anchors on {self.task.name}; evaluate 'none' and "
                "'full-reset' on the same seeds and pass them as warm and fresh."
            )
        values = [[v[s] for s in common] for v in (own, anchors["none"], anchors["full-reset"])]
        name = self.task.name
        total = suite_score(*({name: np.array(value)} for value in values))
        return total.shown(total.gap_closed)

    def _check_alike(self, other: Result) -> None:
        """Raise UsageError unless another result is of the same task, data, setting and epoch."""
        own, theirs = ({**r.records[0], "epoch": epoch(r.records[0])} for r in (self, other))
        for key in ("task", "task_sha256", "data_sha256", "split", "precision", "device", "epoch"):
            here, there = own[key], theirs[key]
            if here != there:
                raise UsageError(
                    f"'{other.method}' does not compare with '{self.method}': its {key} is "
                    f"{there}, not {here}; evaluate it in the same way."
                )

    def _frozen_anchors(self) -> dict[str, dict[int, float]]:
        first = self.records[0]
        setting = f"{first['precision']} on {first['device'].partition(':')[0]}"
        identity = (self.task.sha256, first["data_sha256"])
        others: list[str] = []
        for suite in known_suites().values():
            anchors = suite.anchors.get(self.task.name)
            if anchors is None or first["split"] != "test":
                continue
            if (anchors.task_sha256, anchors.data_sha256) != identity:
                continue
            if (suite.benchmark, anchors.setting) == (epoch(first), setting):
                return anchors.by_seed()
            others.append(
                f"{suite.name}'s anchors of {self.task.name} are of ht-bench {suite.benchmark}, "
                f"{anchors.setting}"
            )
        if others:
            raise UsageError(
                f"{' and '.join(others)}, this result is of {epoch(first)}, {setting}, and numbers "
                "of two epochs or settings do not compare; evaluate 'none' and 'full-reset' in the "
                "same way and pass them as warm and fresh."
            )
        raise UsageError(
            f"No suite has anchors for {self.task.name} as it is here; evaluate 'none' and "
            "'full-reset' on the same seeds and pass them as warm and fresh."
        )

    def plot(self, path: str | Path = "curves.png", key: str = "") -> Path:
        """Draw the learning curve (mean and 95 % band over seeds) as PNG and SVG.

        key: a metric key, by default the one the task is scored by. Returns the PNG's path.
        """
        from ht_bench.views.figures import curves_figure

        key = key or metric_key(self.task.family)
        place = Path(path).expanduser()
        return curves_figure({self.method: self.records}, self.task.name, key, place)[0]

    def save(self, out: str | Path = "runs") -> list[Path]:
        """Write each seed's result.json below `out`, as `ht-bench run` lays them out."""
        written, out = [], Path(out).expanduser()
        for record in self.records:
            digest = group_digest(
                record["hyperparameters"], record["split"], record["precision"], record["device"]
            )
            group = group_folder(out, self.task.name, self.method, digest)
            written.append(result_file(group, record["seed"]))
            write_record(written[-1], record)
        write_spec(out, self.task)
        return written

    def __repr__(self) -> str:
        final: Any = self.final
        return (
            f"Result({self.method} on {self.task.name}, {len(self.seeds)} seeds, "
            f"final {final.mean():.4f} ± {final.std(ddof=1) / len(final) ** 0.5:.4f})"
            if len(final) > 1
            else f"Result({self.method} on {self.task.name}, seed {self.seeds[0]}, {final[0]:.4f})"
        )


def _by_seed(result: Result) -> dict[int, float]:
    return dict(zip(result.seeds, result.final.tolist(), strict=True))
